"""`dark_key_to_door.py`: order matters, each landmark pays once, and nothing of it is seen."""

import random

import numpy as np
import pytest
from cccad_envs import DarkKeyToDoorSpec

FAMILY = DarkKeyToDoorSpec().build()


def played(family, task, actions):
    """Return the rewards of *actions* in one episode of *task*."""
    rows = family.make_vec([task])
    rows.reset()
    return [float(rows.step(np.array([action]))[1][0]) for action in actions]


def test_the_key_pays_once_and_then_the_door_pays_once():
    task = FAMILY.place(key=(5, 4), door=(6, 4))
    assert played(FAMILY, task, [0, 4, 1, 0, 0, 4, 1, 0]) == [1, 0, 0, 0, 1, 0, 0, 0]


def test_the_door_pays_nothing_before_the_key():
    task = FAMILY.place(key=(3, 4), door=(5, 4))
    assert played(FAMILY, task, [0, 4, 1, 1, 0, 0]) == [0, 0, 0, 1, 0, 1]


def test_a_key_at_the_start_is_taken_by_the_first_env_step_that_ends_on_it():
    task = FAMILY.place(key=(4, 4), door=(4, 5))
    assert played(FAMILY, task, [2, 3, 2]) == [0, 1, 1]
    assert played(FAMILY, task, [4, 2]) == [1, 1]
    assert FAMILY.optimal_return(task) == 2.0


def test_a_new_episode_hides_the_key_again():
    family = DarkKeyToDoorSpec(horizon=3).build()
    task = family.place(key=(5, 4), door=(6, 4))
    assert played(family, task, [0, 0, 4, 0, 0, 4]) == [1, 1, 0, 1, 1, 0]


@pytest.mark.parametrize(("horizon", "optimum"), [(7, 0.0), (8, 1.0), (23, 1.0), (24, 2.0)])
def test_the_optimum_is_cut_by_the_horizon(horizon, optimum):
    family = DarkKeyToDoorSpec(horizon=horizon).build()
    task = family.place(key=(0, 0), door=(8, 8))  # 8 moves to the key, 16 more to the door
    assert family.optimal_return(task) == optimum


def test_every_task_can_be_solved_within_the_default_horizon():
    assert (FAMILY.optimal_returns(FAMILY.tasks) == 2.0).all()


def test_the_random_return_of_two_env_steps_is_right_by_hand():
    family = DarkKeyToDoorSpec(size=3, horizon=2).build()
    # Key next to the start: 1/5 at once, or staying first, 1/25; the door beyond it: 1/25.
    assert family.random_return(family.place(key=(2, 1), door=(2, 2))) == pytest.approx(1 / 5 + 1 / 25 + 1 / 25)


def test_the_random_return_agrees_with_a_simulation_that_shares_no_code():
    draw, num_episodes, total = random.Random(0), 20_000, 0
    cells = [(x, y) for x in range(9) for y in range(9)]
    for _ in range(num_episodes):
        landmarks = draw.sample(cells, 2)
        x = y = 4
        for _ in range(50):
            dx, dy = draw.choice([(1, 0), (-1, 0), (0, 1), (0, -1), (0, 0)])
            x, y = min(8, max(0, x + dx)), min(8, max(0, y + dy))
            if landmarks and (x, y) == landmarks[0]:
                landmarks.pop(0)
                total += 1
    exact = FAMILY.random_returns(FAMILY.tasks).mean()
    assert exact == pytest.approx(0.2672, abs=5e-5)
    assert total / num_episodes == pytest.approx(exact, abs=4 * (0.3 / num_episodes) ** 0.5)
