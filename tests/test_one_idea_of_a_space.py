"""Gymnasium's spaces, those of the histories and those of the policies are one table."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from cccad_core.errors import SpaceError
from cccad_core.fitting import encoder_for, head_for
from cccad_core.heads.reconstruction import Field
from cccad_core.spaces import Box, dtype_of, ends_of, from_dict, leaves_of, to_dict
from cccad_data import spaces as data_spaces
from cccad_data.errors import DataError
from cccad_data.gym_spaces import adapt, restore
from gymnasium import spaces as gym

F32, F64 = np.float32, np.float64
TRUTH: Any = np.bool_  # which a box takes, though its annotation does not say so
MOST = float(np.finfo(F32).max)


def box(low, high, dtype=F32, shape=None):
    return gym.Box(np.asarray(low, dtype), np.asarray(high, dtype), shape, dtype)


SPACES = {
    # classic control, toy text, Box2D
    "CartPole": box([-4.8, -np.inf, -0.418, -np.inf], [4.8, np.inf, 0.418, np.inf]),
    "CartPole before 1.0": box([-4.8, -MOST, -0.418, -MOST], [4.8, MOST, 0.418, MOST]),
    "Pendulum": box([-1, -1, -8], [1, 1, 8]),
    "Pendulum action": gym.Box(-2.0, 2.0, (1,)),
    "FrozenLake": gym.Discrete(16),
    "LunarLander": box([-2.5] * 6 + [0, 0], [2.5] * 6 + [1, 1]),
    "CarRacing": gym.Box(0, 255, (4, 4, 3), np.uint8),
    "CarRacing action": box([-1, 0, 0], [1, 1, 1]),
    "Blackjack part": gym.Discrete(32),
    # MuJoCo
    "Ant": gym.Box(-np.inf, np.inf, (105,), F64),
    "HalfCheetah action": gym.Box(-1.0, 1.0, (6,), F32),
    "InvertedPendulum action": gym.Box(-3.0, 3.0, (1,), F32),
    "Humanoid action": gym.Box(-0.4, 0.4, (17,), F32),
    "Swimmer, float64 action": gym.Box(-0.1, 0.3, (2,), F64),
    # MiniGrid, Atari, Minari
    "MiniGrid image": gym.Box(0, 255, (7, 7, 3), np.uint8),
    "MiniGrid direction": gym.Discrete(4),
    "Atari RAM": gym.Box(0, 255, (128,), np.uint8),
    "door of Adroit, float64": gym.Box(-np.inf, np.inf, (39,), F64),
    "PointMaze goal": gym.Box(-np.inf, np.inf, (2,), F64),
    # starts
    "discrete from 1": gym.Discrete(3, start=1),
    "discrete from -1": gym.Discrete(3, start=-1),
    "discrete of one": gym.Discrete(1),
    "discrete, int32": gym.Discrete(5, dtype=np.int32),
    "discrete, 300": gym.Discrete(300, start=7),
    "multi from 0": gym.MultiDiscrete([3, 4]),
    "multi from 1": gym.MultiDiscrete([3, 3], start=[1, 1]),
    "multi from -2": gym.MultiDiscrete([5, 5], start=[-2, -2]),
    "multi of two axes": gym.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[0, 1], [0, -1]])),
    "multi, uint8": gym.MultiDiscrete([200, 255], dtype=np.uint8),
    "multi, int16 and a start": gym.MultiDiscrete([9, 9], dtype=np.int16, start=[100, 0]),
    "binary": gym.MultiBinary(3),
    "binary of two axes": gym.MultiBinary([2, 3]),
    # shapes and bounds of boxes
    "a number": gym.Box(0.0, 1.0, ()),
    "a whole number": gym.Box(-3, 7, (), np.int64),
    "constant feature": box([0, -1], [0, 1]),
    "constant at large": box([5.0, 1e30], [5.0, 1e30]),
    "half bounded": box([0, -np.inf], [np.inf, 0]),
    "huge": gym.Box(-1e30, 1e30, (2,), F32),
    "beyond float32": gym.Box(-1e300, 1e300, (2,), F64),
    "float16": gym.Box(-0.1, 0.1, (2,), np.float16),
    "int8": gym.Box(-128, 127, (2,), np.int8),
    "int64, all": gym.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (1,), np.int64),
    "uint64, all": gym.Box(0, np.iinfo(np.uint64).max, (1,), np.uint64),
    "truth values": gym.Box(0, 1, (2,), TRUTH),
    "large whole numbers": gym.Box(0, 2**31, (1,), np.int64),
    "a stack of images": gym.Box(0.0, 1.0, (2, 3, 3, 1), F32),
}
REFUSED = {
    "Text": gym.Text(10),
    "Dict": gym.Dict(a=gym.Discrete(2)),
    "Tuple": gym.Tuple((gym.Discrete(2), gym.Box(-1.0, 1.0, (2,)))),
    "Sequence": gym.Sequence(gym.Discrete(2)),
    "Graph": gym.Graph(gym.Discrete(2), None),
    "OneOf": gym.OneOf((gym.Discrete(2), gym.Discrete(3))),
}


def through_json(plain):
    return json.loads(json.dumps(plain, allow_nan=False))


def samples(space, count=50):
    space.seed(3)
    drawn = np.stack([np.asarray(space.sample()) for _ in range(count)])
    if isinstance(space, gym.Box):
        for row, end in enumerate((space.low, space.high)):
            drawn[row] = np.where(np.isfinite(np.asarray(end, F64)), end, drawn[row])
    return drawn


@pytest.mark.parametrize("name", SPACES)
def test_a_space_of_gymnasiums_is_rebuilt_from_its_counterpart(name):
    space = SPACES[name]
    adapted = adapt(space, "the file")
    rebuilt = restore(through_json(adapted.ours), through_json(adapted.origin)).theirs
    assert type(rebuilt) is type(space)
    assert (rebuilt.shape, rebuilt.dtype) == (space.shape, space.dtype)
    assert rebuilt == space
    if isinstance(space, gym.Box):
        assert (rebuilt.low == space.low).all()
        assert (rebuilt.high == space.high).all()


@pytest.mark.parametrize("name", SPACES)
def test_its_elements_lie_in_the_counterpart_and_come_back_as_they_were(name):
    adapted = adapt(SPACES[name], "the file")
    values = samples(adapted.theirs)
    ours = adapted.read(values, "the file").astype(data_spaces.dtype(adapted.ours))
    assert not data_spaces.outside(adapted.ours, ours).any()
    back = adapted.write(ours)
    assert (back.dtype, back.shape) == (adapted.theirs.dtype, values.shape)
    assert all(adapted.theirs.contains(value if value.shape else value[()]) for value in back)
    if adapted.theirs.dtype.itemsize < 4 or adapted.ours["kind"] != "box":
        assert (back == values).all()


@pytest.mark.parametrize("name", SPACES)
def test_the_policies_take_every_space_that_the_histories_take(name):
    plain = through_json(adapt(SPACES[name], "the file").ours)
    ours = from_dict(plain)
    assert ours.num_features == data_spaces.num_features(plain)
    assert data_spaces.alike(through_json(to_dict(ours)), plain)
    if isinstance(ours, Box):
        assert np.array_equal(np.array(ours.bounds(), F64), data_spaces.bounds(plain))


@pytest.mark.parametrize("name", SPACES)
def test_numbers_of_every_space_are_finite_in_the_policy(name):
    space = from_dict(adapt(SPACES[name], "the file").ours)
    adapted = adapt(SPACES[name], "the file")
    values = adapted.read(samples(adapted.theirs), "the file").astype(F64)
    columns = np.clip(values, -1e12, 1e12).astype(F32) if isinstance(space, Box) else values.astype(int)
    tensor = torch.as_tensor(columns)
    torch.manual_seed(0)
    assert encoder_for(space).build(space, 8)(tensor).isfinite().all()
    loss, _ = Field(space, 8)(torch.randn(1, len(tensor), 8), tensor[None])
    assert loss.isfinite().all()
    has_no_head = space.dtype == "uint8" if isinstance(space, Box) else space.num_features > 1
    if has_no_head:
        return
    head = head_for(space).build(space, 8)
    parameters = head(torch.randn(1, len(tensor), 8)).requires_grad_()
    nats = head.nats(parameters, tensor[None] if isinstance(space, Box) else tensor[None, :, 0])
    nats.sum().backward()
    assert nats.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    acted = head.draw(parameters[0], torch.Generator().manual_seed(0), greedy=False).detach().numpy()
    assert not data_spaces.outside(adapted.ours, acted).any()


@pytest.mark.parametrize("name", REFUSED)
def test_a_space_without_counterpart_is_refused_by_its_class(name):
    with pytest.raises(DataError, match=f"^observations: a space of class {name} has no counterpart here"):
        adapt(REFUSED[name], "observations")


BYTES = {"kind": "box", "shape": [2, 3], "low": 0, "high": 255, "dtype": "uint8"}


def nested(depth):
    return {"kind": "tuple", "parts": [nested(depth - 1)]} if depth else {"kind": "discrete", "n": 2}


WRONG = [
    3,
    {"kind": "box", "shape": [2], "low": 0, "high": 256, "dtype": "uint8"},
    {"kind": "box", "shape": [2], "low": 0.5, "high": 255, "dtype": "uint8"},
    {"kind": "box", "shape": [2], "low": None, "high": 255, "dtype": "uint8"},
    {"kind": "box", "shape": [2], "low": 0, "high": 1, "dtype": "int8"},
    {"kind": "dict", "parts": {}},
    {"kind": "dict", "parts": [{"kind": "discrete", "n": 2}]},
    {"kind": "dict", "parts": {"a/b": {"kind": "discrete", "n": 2}}},
    {"kind": "dict", "parts": {"": {"kind": "discrete", "n": 2}}},
    {"kind": "dict", "parts": {"a": {"kind": "text"}}},
    {"kind": "tuple", "parts": []},
    {"kind": "tuple", "parts": {"a": {"kind": "discrete", "n": 2}}},
    {"kind": "tuple", "parts": [3]},
    nested(17),
    {"n": 3},
    {"kind": ["box"]},
    {"kind": "text"},
    {"kind": "discrete"},
    {"kind": "discrete", "n": 3, "start": 1},
    {"kind": "discrete", "n": 0},
    {"kind": "discrete", "n": 4.5},
    {"kind": "discrete", "n": True},
    {"kind": "discrete", "n": None},
    {"kind": "discrete", "n": [3]},
    {"kind": "multi-discrete", "sizes": []},
    {"kind": "multi-discrete", "sizes": 3},
    {"kind": "multi-discrete", "sizes": "99"},
    {"kind": "multi-discrete", "sizes": [3, 0]},
    {"kind": "box", "shape": [0], "low": 0, "high": 1},
    {"kind": "box", "shape": 3, "low": 0, "high": 1},
    {"kind": "box", "shape": [3], "low": [0, 0], "high": 1},
    {"kind": "box", "shape": [3], "low": [], "high": 1},
    {"kind": "box", "shape": [3], "low": 2, "high": 1},
    {"kind": "box", "shape": [3], "low": "0", "high": 1},
    {"kind": "box", "shape": [3], "low": True, "high": 1},
    {"kind": "box", "shape": [3], "low": float("nan"), "high": 1},
    {"kind": "box", "shape": [1], "low": float("inf"), "high": None},
    {"kind": "box", "shape": [1], "low": None, "high": [float("-inf")]},
    {"kind": "box", "shape": [2], "low": [0, [None, 1]], "high": 1},
]


@pytest.mark.parametrize("space", WRONG, ids=str)
def test_what_the_policies_refuse_the_histories_refuse(space):
    with pytest.raises(SpaceError):
        from_dict(space)
    with pytest.raises(DataError, match=r"^manifest(, part '.+')*: "):
        data_spaces.check(space, "manifest")


RIGHT = [
    {"kind": "box", "shape": [2, 2, 3], "low": 0, "high": 255, "dtype": "uint8"},
    {"kind": "box", "shape": [2], "low": -1, "high": 1, "dtype": "float32"},
    {"kind": "dict", "parts": {"b": {"kind": "discrete", "n": 256}, "B": BYTES}},
    {"kind": "dict", "parts": {"b": {"kind": "discrete", "n": 257}, "a": {"kind": "tuple", "parts": [BYTES, BYTES]}}},
    {"kind": "tuple", "parts": [{"kind": "discrete", "n": 3}, {"kind": "multi-discrete", "sizes": [4, 5]}]},
    nested(16),
    {"kind": "box", "shape": [2, 2], "low": [[0, 1], [2, None]], "high": float("inf")},
    {"kind": "box", "shape": [2, 2], "low": [0, 1, 2, 3], "high": [3.0, 3, 3, 3]},
    {"kind": "box", "shape": [], "low": None, "high": 3},
    {"kind": "box", "shape": [], "low": [0.0], "high": [0.0]},
    {"kind": "box", "shape": [3], "low": -0.1, "high": 0.1},
    {"kind": "discrete", "n": 1},
]


@pytest.mark.parametrize("space", RIGHT, ids=str)
def test_the_same_dictionaries_are_sound_for_both(space):
    data_spaces.check(space, "manifest")
    written = through_json(data_spaces.plain(space))
    assert data_spaces.alike(written, space)
    assert from_dict(written) == from_dict(space)
    if isinstance(box := from_dict(space), Box):
        assert np.allclose(np.array(box.bounds(), F64), data_spaces.bounds(space))


@pytest.mark.parametrize("space", RIGHT, ids=str)
def test_a_row_is_the_same_for_both(space):
    ours = from_dict(space)
    assert [path for path, _ in data_spaces.leaves(space)] == [leaf.path for leaf in leaves_of(ours)]
    assert data_spaces.num_features(space) == ours.num_features
    kind = data_spaces.dtype(space)
    assert dtype_of(ours) == ("int64" if data_spaces.is_discrete(space) else str(kind))
    assert np.allclose(np.array(ends_of(ours), F64), data_spaces.bounds(space))
