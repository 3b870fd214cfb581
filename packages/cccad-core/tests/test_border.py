"""An agent takes in what its spaces have, and refuses all else with row, env step and value."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from attrs import fields
from cccad_core.agent import Agent
from cccad_core.batch import HistoryBatch
from cccad_core.border import Border, as_parts
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.errors import UnfitValueError, UnplayableError
from cccad_core.laws.noise import random_batch
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.play import play
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Box, Dict, Discrete, MultiDiscrete, Spaces, Tuple

SPEC = PolicySpec(
    memory=CompressedSpec(window=9, compressor=GatedQuerySpec(num_latents=2, num_heads=2), num_layers=1, num_heads=2),
    width=8,
)
CELLS = Spaces(observation=MultiDiscrete((200, 200)), action=Discrete(3))
REALS = Spaces(observation=Box((2,), -0.1, (0.7, float("inf"))), action=Box((1,), -1.0, 1.0))
FLAGS = ([False, False], [False, False])


def agent_after(num_decisions, spaces):
    agent = Agent(SPEC.build(spaces, seed=0))
    state = agent.begin(2)
    for _ in range(num_decisions):
        agent.act(state, np.zeros((2, 2)))
        agent.observe(state, [0.0, 0.0], *FLAGS, np.zeros((2, 2)))
    return agent, state


@pytest.mark.parametrize(
    ("spaces", "seen", "words"),
    [
        (CELLS, [[0, 0], [-1, 7]], r"the observations, row 1, env step 3: -1 in feature 0, which is not in MultiDisc"),
        (CELLS, [[0, 200], [0, 0]], r"row 0, env step 3: 200 in feature 1, which is not in"),
        (CELLS, [[0, 0], [0, 3.9]], r"row 1, env step 3: 3\.9\d* in feature 1, which is not in"),
        (CELLS, np.array([[0, 0], [0, 65_535]], np.uint16), r"row 1, env step 3: 65535 in feature 1"),
        (CELLS, [0, 0], r"they must be of shape \[2, 2\], not \[2\]"),
        (CELLS, [[0, 0]], r"they must be of shape \[2, 2\], not \[1, 2\]"),
        (CELLS, np.array([[None, None]] * 2), r"is no array of numbers"),
        (REALS, [[0.0, 0.0], [1.0, 0.0]], r"row 1, env step 3: 1\.0 in feature 0, which is not in Box"),
        (REALS, [[0.0, np.nan], [0.0, 0.0]], r"row 0, env step 3: nan in feature 1, which is not in Box"),
        (REALS, [[0.0, np.inf], [0.0, 0.0]], r"row 0, env step 3: inf in feature 1, which is not in Box"),
    ],
)
def test_an_observation_outside_its_space_is_refused_with_row_env_step_and_value(spaces, seen, words):
    agent, state = agent_after(3, spaces)
    with pytest.raises(UnfitValueError, match=words):
        agent.act(state, seen)
    agent.act(state, np.zeros((2, 2)))
    with pytest.raises(UnfitValueError, match=words.replace("the observations", "the next observations")):
        agent.observe(state, [0.0, 0.0], *FLAGS, seen)


@pytest.mark.parametrize(
    ("spaces", "seen"),
    [
        (CELLS, [[199, 0], [0, 199]]),
        (CELLS, np.array([[199.0, 0.0], [0.0, 199.0]])),
        (CELLS, np.array([[199, 0], [0, 199]], np.uint16)),
        (REALS, np.array([[-0.1, 1e3], [0.7, 0.0]])),
        (REALS, np.array([[-0.1, 1e3], [0.7, 0.0]], np.float32)),
    ],
)
def test_bounds_belong_to_a_space_whatever_type_they_come_in(spaces, seen):
    agent, state = agent_after(1, spaces)
    actions, _ = agent.act(state, seen)
    assert len(actions) == 2


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        ([0.0, np.nan], "the rewards, row 1, env step 2: nan, which is no finite number"),
        ([1e300, 0.0], r"the rewards, row 0, env step 2: 1e\+300, which is no finite number"),
        ([[0.0], [0.0]], r"the rewards: they must be of shape \[2\], not \[2, 1\]"),
        ([0.0], r"the rewards: they must be of shape \[2\], not \[1\]"),
    ],
)
def test_a_reward_that_is_not_finite_is_refused(rewards, words):
    agent, state = agent_after(2, CELLS)
    agent.act(state, np.zeros((2, 2)))
    with pytest.raises(UnfitValueError, match=words):
        agent.observe(state, np.array(rewards), *FLAGS, np.zeros((2, 2)))


@pytest.mark.parametrize("spaces", [CELLS, REALS])
def test_a_policy_that_says_no_finite_number_does_not_act(spaces):
    agent, state = agent_after(2, spaces)
    torch.nn.init.constant_(next(agent.policy.head.parameters()), float("nan"))
    with pytest.raises(UnfitValueError, match="the policy's output, row 0, env step 2: nan in feature 0, which is no"):
        agent.act(state, np.zeros((2, 2)))


class Payer:
    """One row of three env steps an episode, whose rewards are too fine to be added up in 32 bits."""

    num_envs = 1
    final_obs = np.array([[0, 0]])

    def reset(self, seed=None):
        self.age = 0
        return np.zeros((1, 2), np.int64), {}

    def step(self, actions):
        self.age += 1
        ended, flags = np.array([self.age % 3 == 0]), np.zeros(1, bool)
        return np.zeros((1, 2), np.int64), np.array([1e8 if ended else 1.0]), flags, ended, self.infos(ended)

    def infos(self, ended):
        return {"final_obs": self.final_obs} if ended.any() else {}


def test_returns_are_added_up_as_exactly_as_rewards_come():
    played = play(agent_after(0, CELLS)[0], Payer(), num_episodes=2)
    assert played.returns.tolist() == [[100_000_002.0, 100_000_002.0]]


@pytest.mark.parametrize("last", [None, np.array([None], object)])
def test_environments_that_keep_no_last_observation_are_refused(last):
    environments = Payer()
    environments.final_obs = last
    with pytest.raises(UnplayableError, match=r"infos\['final_obs'\] does not hold its last observation"):
        play(agent_after(0, CELLS)[0], environments, num_episodes=1)


def test_a_return_that_is_not_finite_is_refused_whoever_plays():
    class Still:
        """Does nothing, and looks at nothing."""

        def begin(self, num_envs):
            return SimpleNamespace(num_writes=torch.zeros(num_envs, dtype=torch.int64))

        def act(self, state, observations, **_):
            return torch.zeros(len(observations), dtype=torch.int64), state

        def observe(self, state, *_):
            return state

    class Broken(Payer):
        def step(self, actions):
            observations, _, *others = super().step(actions)
            return observations, np.array([np.nan]), *others

    with pytest.raises(UnfitValueError, match="the returns, row 0: nan in feature 0, which is no finite number"):
        play(Still(), Broken(), num_episodes=2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("name", ["rewards", "observations"])
def test_a_training_batch_with_a_float_that_is_not_finite_is_refused(name, value):
    batch = random_batch(REALS, size=2, length=5, seed=0)
    arrays = {each.name: getattr(batch, each.name).numpy() for each in fields(type(batch))}
    arrays[name] = arrays[name].astype(np.float64)
    arrays[name].reshape(2, -1)[1, 3] = value
    with pytest.raises(UnfitValueError, match=rf"the batch's '{name}', row 1: {re.escape(repr(value))} in feature 3"):
        HistoryBatch.from_arrays(arrays)


PHOTO = Box((2, 2), 0, 200, dtype="uint8")
NESTED = Dict({"image": PHOTO, "agent": Tuple((Discrete(4), Box((2,), -1.0, 1.0)))})
SHOWN: dict[str, Any] = {
    "image": np.full((2, 2, 2), 7, np.uint8),
    "agent": (np.array([3, 0]), np.array([[0.5, -1.0], [0.0, 1.0]])),
    "mission": ("go", "stay"),
}


def test_parts_that_an_environment_shows_become_rows_in_the_order_of_the_leaves():
    cross, counts = Border(NESTED, torch.device("cpu")), torch.zeros(2, dtype=torch.int64)
    rows = cross(SHOWN, "the observations", counts)
    assert rows.tolist() == [[3, 0.5, -1, 7, 7, 7, 7], [0, 0, 1, 7, 7, 7, 7]]
    assert rows.dtype == torch.float32
    assert torch.equal(cross(rows, "the observations", counts), rows)
    alone = Border(PHOTO, torch.device("cpu"))(SHOWN["image"], "the observations", counts)
    assert (alone.dtype, alone.shape) == (torch.uint8, (2, 4))


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("agent", (np.array([3, 4]), SHOWN["agent"][1]), r"^the observations, 'agent/0', row 1, env step 0: 4, which"),
        (
            "agent",
            (np.array([0.5, 1.0]), SHOWN["agent"][1]),
            r"'agent/0', row 0, env step 0: 0\.5, which is not in D",
        ),
        ("image", np.full((2, 2, 2), 201, np.uint8), r"'image', row 0, env step 0: 201 in feature 0, which is not in"),
        ("image", np.full((2, 2, 2), 263), r"'image', row 0, env step 0: 263 in feature 0"),
        ("image", np.full((2, 2, 2), 0.5), r"'image', row 0, env step 0: 0\.5 in feature 0"),
        ("agent", (np.array([3, 0]),), r"^the observations: there is no part 'agent/1'"),
        ("agent", {"a": 0}, r"^the observations: there is no part 'agent/0'"),
    ],
)
def test_a_part_that_is_not_in_its_space_is_refused_by_its_path(part, value, words):
    with pytest.raises(UnfitValueError, match=words):
        Border(NESTED, torch.device("cpu"))(
            {**SHOWN, part: value}, "the observations", torch.zeros(2, dtype=torch.int64)
        )


def test_rows_of_another_length_are_refused():
    with pytest.raises(UnfitValueError, match=r"must be of shape \[b, 7\], not \[2, 6\]"):
        Border(NESTED, torch.device("cpu"))(torch.zeros(2, 6), "the observations", torch.zeros(2, dtype=torch.int64))


def test_images_of_a_batch_stay_bytes_where_the_spaces_are_handed_in():
    batch = random_batch(Spaces(observation=PHOTO, action=Discrete(3)), size=2, length=4, seed=0)
    arrays = {field.name: getattr(batch, field.name).numpy() for field in fields(HistoryBatch)}
    spaces = Spaces(observation=PHOTO, action=Discrete(3))
    kept, wide = HistoryBatch.from_arrays(arrays, spaces=spaces), HistoryBatch.from_arrays(arrays)
    assert (kept.observations.dtype, wide.observations.dtype) == (torch.uint8, torch.int64)
    assert torch.equal(kept.next_observations.long(), wide.next_observations)
    other = Spaces(observation=MultiDiscrete((201,) * 4), action=Discrete(3))
    assert HistoryBatch.from_arrays(arrays, spaces=other).observations.dtype == torch.int64


def test_rows_become_what_an_environment_takes_and_come_back():
    rows = torch.tensor([[3.0, 0.5, -1.0, 7.0, 7.0, 7.0, 8.0], [0.0, 0.0, 1.0, 7.0, 7.0, 7.0, 9.0]])
    parts = as_parts(NESTED, rows)
    assert parts["image"].shape == (2, 2, 2)
    assert parts["image"].dtype == torch.uint8
    assert parts["agent"][0].tolist() == [3, 0]
    assert parts["agent"][0].dtype == torch.int64
    back = Border(NESTED, torch.device("cpu"))(parts, "the actions", torch.zeros(2, dtype=torch.int64))
    assert torch.equal(back, rows)
