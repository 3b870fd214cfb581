"""Values become vectors as the layouts say, and the ends of episodes can be seen."""

import pytest
import torch
from cccad_core.encoders.linear import ProjectionSpec
from cccad_core.encoders.table import TableSpec
from cccad_core.laws.noise import SPACES, random_batch
from cccad_core.layouts import (
    BIRTH,
    TERMINATED,
    TRUNCATED,
    WITHIN,
    FusedSpec,
    TransitionSpec,
    TripleSpec,
    boundary,
)
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Box, Discrete, MultiDiscrete, Spaces

WIDTH = 8
SPEC = PolicySpec(width=WIDTH)
ENCODERS = SPEC.encoders(SPACES)


@pytest.fixture
def batch():
    return random_batch(SPACES, size=2, length=9, seed=0)


def test_each_coordinate_is_looked_up_in_a_table_of_its_own_and_summed():
    encoder = TableSpec().build(MultiDiscrete((3, 4)), WIDTH)
    vectors, table = encoder(torch.tensor([[2, 1], [0, 3]])), encoder.table
    torch.testing.assert_close(vectors, torch.stack([table[2] + table[3 + 1], table[0] + table[3 + 3]]))


def test_a_discrete_value_is_one_row_of_the_table():
    encoder = TableSpec().build(Discrete(5), WIDTH)
    torch.testing.assert_close(encoder(torch.tensor([[4], [0]])), encoder.table[[4, 0]])


def test_a_box_is_scaled_to_unit_range_and_one_without_bounds_is_left_as_it_is():
    space = Box(shape=(3,), low=(0.0, -4.0, float("-inf")), high=(10.0, 4.0, float("inf")))
    encoder = ProjectionSpec().build(space, WIDTH)
    vector = encoder(torch.tensor([10.0, -4.0, 7.0]))
    torch.testing.assert_close(vector, encoder.project.weight @ torch.tensor([1.0, -1.0, 7.0]))


def test_what_lies_behind_a_transition_is_told_apart():
    terminated, truncated = torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True])
    assert boundary(terminated, truncated).tolist() == [WITHIN, TERMINATED, TRUNCATED, TERMINATED]


def test_a_fused_token_is_the_current_observation_and_the_last_transition(batch):
    layout = FusedSpec().build(ENCODERS)
    tokens = layout.sequence(batch)
    first = layout.observation(batch.observations[:, 0]) + layout.before[BIRTH]
    torch.testing.assert_close(tokens[:, 0], first)
    ended = boundary(batch.terminations[:, 6], batch.truncations[:, 6])
    assert ended.tolist() == [TERMINATED, WITHIN]  # in every row episodes end at other times
    last = layout.action(batch.actions[:, 6, None]) + layout.reward(batch.rewards[:, 6, None]) + layout.before[ended]
    torch.testing.assert_close(tokens[:, 7], layout.observation(batch.observations[:, 7]) + last)


def test_a_transition_token_holds_the_whole_transition_and_its_true_next_observation(batch):
    layout = TransitionSpec().build(ENCODERS)
    moved = layout.observation(batch.observations[:, 4]) + layout.next_observation(batch.next_observations[:, 4])
    done = layout.action(batch.actions[:, 4, None]) + layout.reward(batch.rewards[:, 4, None]) + layout.before[WITHIN]
    torch.testing.assert_close(layout.sequence(batch)[:, 4], moved + done)


def test_a_triple_is_the_observation_then_the_action_then_the_reward_with_how_it_ended(batch):
    layout = TripleSpec().build(ENCODERS)
    tokens = layout.sequence(batch)
    torch.testing.assert_close(tokens[:, 18], layout.observation(batch.observations[:, 6]))
    torch.testing.assert_close(tokens[:, 19], layout.action(batch.actions[:, 6, None]))
    ended = layout.before[[TERMINATED, WITHIN]]
    torch.testing.assert_close(tokens[:, 20], layout.reward(batch.rewards[:, 6, None]) + ended)


@pytest.mark.parametrize("spec", [FusedSpec(), TransitionSpec(), TripleSpec()])
def test_real_observations_and_actions_have_tokens_too(spec):
    spaces = Spaces(observation=Box(shape=(2, 2), low=-1.0, high=1.0), action=Box(shape=(3,), low=-1.0, high=1.0))
    batch = random_batch(spaces, size=2, length=5, seed=0)
    assert batch.observations.shape == (2, 5, 4)
    assert spec.build(SPEC.encoders(spaces)).sequence(batch).shape == (2, 5 * spec.slots, WIDTH)
