"""A space and its plain dictionary say the same thing, and a wrong dictionary says what is wrong with it."""

import json

import pytest
from cccad_core.errors import SpaceError
from cccad_core.spaces import (
    Box,
    Dict,
    Discrete,
    MultiDiscrete,
    Space,
    Tuple,
    dtype_of,
    ends_of,
    from_dict,
    leaves_of,
    to_dict,
)
from hypothesis import given
from hypothesis import strategies as st

sizes = st.integers(1, 1000)


@st.composite
def boxes(draw):
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    count = Box(shape=shape, low=0.0, high=1.0).num_features
    numbers = st.floats(-100, 100)
    low = draw(numbers | st.lists(numbers, min_size=count, max_size=count).map(tuple))
    return Box(shape=shape, low=low, high=draw(st.floats(101, 200)))


images = st.builds(Box, shape=st.just((2, 2)), low=st.integers(0, 9), high=st.integers(9, 255), dtype=st.just("uint8"))
leaves = (
    st.builds(Discrete, n=sizes)
    | st.builds(MultiDiscrete, sizes=st.lists(sizes, min_size=1, max_size=4))
    | boxes()
    | images
)
names = st.text("abc", min_size=1, max_size=3)
spaces = st.recursive(
    leaves,
    lambda parts: (
        st.builds(Dict, parts=st.dictionaries(names, parts, min_size=1, max_size=3))
        | st.builds(Tuple, parts=st.lists(parts, min_size=1, max_size=3))
    ),
    max_leaves=5,
)


@given(spaces)
def test_a_space_survives_the_way_through_json(space):
    assert from_dict(json.loads(json.dumps(to_dict(space)))) == space


def test_the_plain_dictionaries_are_those_of_the_task_families():
    assert to_dict(Discrete(n=5)) == {"kind": "discrete", "n": 5}
    assert to_dict(MultiDiscrete(sizes=(9, 9))) == {"kind": "multi-discrete", "sizes": [9, 9]}
    box = {"kind": "box", "shape": [4], "low": -1.0, "high": 1.0}
    assert to_dict(from_dict(box)) == box


@given(spaces)
def test_the_leaves_of_a_space_make_up_its_rows(space):
    leaves = leaves_of(space)
    ends = [0, *(leaf.slice.stop for leaf in leaves)]
    assert [leaf.slice.start for leaf in leaves] == ends[:-1]
    assert ends[-1] == space.num_features
    assert [len(end) for end in ends_of(space)] == [space.num_features] * 2
    assert len({leaf.path for leaf in leaves}) == len(leaves)


IMAGE = Box(shape=(2, 2, 3), low=0, high=255, dtype="uint8")
SPEED = Box(shape=(2,), low=-1.0, high=1.0)


def test_leaves_have_paths_and_the_parts_of_a_dict_the_order_of_their_names():
    space = Dict({"z": Discrete(3), "agent": Tuple((IMAGE, Dict({"speed": SPEED})))})
    assert [(leaf.path, leaf.slice) for leaf in leaves_of(space)] == [
        ("agent/0", slice(0, 12)),
        ("agent/1/speed", slice(12, 14)),
        ("z", slice(14, 15)),
    ]
    assert space == Dict({"agent": Tuple((IMAGE, Dict({"speed": SPEED}))), "z": Discrete(3)})
    assert ends_of(Dict({"a": SPEED, "b": MultiDiscrete((3, 4))})) == ((-1, -1, 0, 0), (1, 1, 2, 3))


def test_rows_are_of_the_smallest_type_that_holds_every_leaf():
    wanted: dict[Space, str] = {
        Discrete(3): "int64",
        Tuple((Discrete(300), MultiDiscrete((2, 2)))): "int64",
        IMAGE: "uint8",
        Dict({"image": IMAGE, "direction": Discrete(4)}): "uint8",
        Dict({"image": IMAGE, "number": Discrete(257)}): "float32",
        Dict({"image": IMAGE, "speed": SPEED}): "float32",
        SPEED: "float32",
    }
    assert {space: dtype_of(space) for space in wanted} == wanted
    with pytest.raises(SpaceError, match=r"may have 2\*\*24 choices, not 16,777,217"):
        dtype_of(Dict({"speed": SPEED, "number": Discrete(2**24 + 1)}))


def test_parts_lie_within_one_another_sixteen_times_at_most():
    data = {"kind": "discrete", "n": 2}
    for _ in range(16):
        data = {"kind": "tuple", "parts": [data]}
    assert from_dict(data).num_features == 1
    with pytest.raises(SpaceError, match="16 times, not deeper"):
        from_dict({"kind": "tuple", "parts": [data]})


def test_features_are_counted():
    counts = [Discrete(n=5).num_features, MultiDiscrete(sizes=(9, 9, 2)).num_features]
    assert counts == [1, 3]
    assert Discrete(n=5).sizes == (5,)
    assert Box(shape=(2, 3), low=0, high=1).num_features == 6
    assert Box(shape=(), low=0, high=1).num_features == 1


def test_bounds_may_be_nested_lists_and_infinite():
    box = from_dict({"kind": "box", "shape": [2, 2], "low": [[0, 1], [2, 3]], "high": float("inf")})
    assert isinstance(box, Box)
    low, high = box.bounds()
    assert low == (0.0, 1.0, 2.0, 3.0)
    assert high == (float("inf"),) * 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"kind": "multidiscrete", "sizes": [3]},
            "Did you mean 'multi-discrete'? Known: discrete, multi-discrete, box, dict, tuple",
        ),
        ({"n": 3}, "no kind of space named None"),
        ({"kind": ["box"]}, "no kind of space named ['box']"),
        (3, "expected a space such as"),
        ({"kind": "discrete"}, "a discrete space has the fields n; got nothing"),
        ({"kind": "discrete", "n": 3, "start": 1}, "a discrete space has the fields n; got n, start"),
        ({"kind": "discrete", "n": 0}, "'n' of a discrete space must be at least 1 everywhere: 0"),
        ({"kind": "discrete", "n": 4.5}, "expected a whole number in a space, got 4.5"),
        ({"kind": "discrete", "n": True}, "expected a whole number in a space, got True"),
        ({"kind": "multi-discrete", "sizes": []}, "'sizes' of a multi-discrete space must be at least 1"),
        ({"kind": "multi-discrete", "sizes": "99"}, "expected a list of whole numbers"),
        ({"kind": "box", "shape": [0], "low": 0, "high": 1}, "'shape' of a box space must be at least 1"),
        ({"kind": "box", "shape": [3], "low": [0, 0], "high": 1}, "one number or 3, as its shape is (3,): it holds 2"),
        ({"kind": "box", "shape": [3], "low": 2, "high": 1}, "'low' of a box space must not be above 'high' anywhere"),
        ({"kind": "box", "shape": [1], "low": float("inf"), "high": None}, "must not be above 'high' anywhere"),
        ({"kind": "box", "shape": [3], "low": "0", "high": 1}, "expected a number or a list of numbers"),
        ({"kind": "box", "shape": [3], "low": float("nan"), "high": 1}, "expected a number or a list of numbers"),
    ],
)
def test_a_wrong_space_says_what_is_wrong(data, message):
    with pytest.raises(SpaceError) as caught:
        from_dict(data)
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)
