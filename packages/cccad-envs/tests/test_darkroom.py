"""`darkroom.py`: its numbers worked out by hand."""

from typing import cast

import numpy as np
import pytest
from cccad_envs import DarkroomSpec
from gymnasium.spaces import MultiDiscrete

FAMILY = DarkroomSpec().build()


@pytest.mark.parametrize(
    ("goal", "optimum"),
    [
        ((4, 4), 20.0),  # stays from the first env step on
        ((4, 5), 20.0),  # one move, which already ends on the goal
        ((6, 4), 19.0),
        ((0, 0), 13.0),  # eight moves, the eighth pays: 20 - 8 + 1
        ((8, 0), 13.0),
        ((1, 6), 16.0),
    ],
)
def test_the_optimum_counts_the_env_step_that_arrives(goal, optimum):
    assert FAMILY.optimal_return(FAMILY.place(goal=goal)) == optimum


def test_the_mean_optimum_is_the_known_one():
    assert round(FAMILY.optimal_returns(FAMILY.tasks).mean(), 3) == 16.543


def test_a_goal_beyond_the_horizon_pays_nothing():
    family = DarkroomSpec(horizon=5).build()
    assert family.optimal_return(family.place(goal=(0, 0))) == 0.0
    assert family.optimal_return(family.place(goal=(0, 3))) == 1.0


def test_the_random_policy_earns_a_quarter_on_average():
    returns = FAMILY.random_returns(FAMILY.tasks)
    assert round(returns.mean(), 2) == 0.25
    assert returns.sum() == pytest.approx(20)  # the agent is on exactly one cell after each of 20 env steps


def test_the_random_return_of_two_env_steps_is_right_by_hand():
    family = DarkroomSpec(size=3, horizon=2).build()
    # Centre: 1/5 after one env step; after two, stay-stay or there-and-back by four moves, 5/25.
    assert family.random_return(family.place(goal=(1, 1))) == pytest.approx(1 / 5 + 5 / 25)
    # Middle of a side: 1/5; then from the centre 1/25, or staying there by stay or by running into the wall, 2/25.
    assert family.random_return(family.place(goal=(2, 1))) == pytest.approx(1 / 5 + 3 / 25)
    # Corner: two orders of the two moves.
    assert family.random_return(family.place(goal=(2, 2))) == pytest.approx(2 / 25)


def test_the_goal_pays_on_every_env_step_that_ends_on_it():
    rows = FAMILY.make_vec([FAMILY.place(goal=(5, 4))])
    rows.reset(seed=0)
    rewards = [float(rows.step(np.array([action]))[1][0]) for action in (0, 4, 0, 1, 4, 2)]
    assert rewards == [1, 1, 0, 1, 1, 0]


@pytest.mark.parametrize(("size", "centre"), [(2, 1), (4, 2), (9, 4)])
def test_an_episode_starts_at_the_centre_also_of_an_even_room(size, centre):
    family = DarkroomSpec(size=size).build()
    observations, _ = family.make_vec(family.tasks).reset()
    assert (observations == centre).all()


def test_actions_move_as_named_and_walls_clip():
    family = DarkroomSpec(size=3).build()
    rows = family.make_vec([family.tasks[0]] * 5)
    rows.reset()
    moves = np.arange(5)
    once = rows.step(moves)[0]
    assert once.tolist() == [[2, 1], [0, 1], [1, 2], [1, 0], [1, 1]]
    assert rows.step(moves)[0].tolist() == once.tolist()


def test_a_large_room_keeps_its_observations_in_a_type_that_fits():
    family = DarkroomSpec(size=200).build()
    rows = family.make_vec([family.place(goal=(199, 199))])
    observations, _ = rows.reset()
    assert observations.dtype == np.int64 == rows.observation_space.dtype
    assert observations.tolist() == [[100, 100]]
    space = family.make_vec([family.place(goal=(0, 0))]).single_observation_space
    assert cast("MultiDiscrete", space).nvec.sum() == 400
