"""`switching_darkroom.py`, `darkroom_permuted.py` and `large_darkroom.py`: what each adds, by hand."""

from typing import cast

import numpy as np
import pytest
from cccad_envs import (
    DarkroomPermutedSpec,
    DarkroomSpec,
    LargeDarkroomSpec,
    SettingError,
    SwitchingDarkroomSpec,
    Task,
    UnknownTaskError,
)
from gymnasium.spaces import MultiDiscrete
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

SWITCHING = SwitchingDarkroomSpec(size=3, horizon=2, num_episodes_each=2).build()
PAIR = SWITCHING.place(first=(2, 1), second=(0, 1))  # to the right of the start, and to its left


def paid_by_going_right(rows, num_episodes):
    """Return for each episode whether staying at the right of the start pays."""
    paid = []
    for _ in range(num_episodes):
        rows.step(np.array([0]))
        paid.append(float(rows.step(np.array([4]))[1][0]))
    return paid


def test_the_goal_switches_back_and_forth_without_a_word():
    rows = SWITCHING.make_vec([PAIR])
    rows.reset()
    assert paid_by_going_right(rows, 8) == [1, 1, 0, 0, 1, 1, 0, 0]


def test_a_new_life_begins_with_the_first_goal():
    rows = SWITCHING.make_vec([PAIR, PAIR])
    rows.reset()
    for _ in range(4):
        rows.step(np.array([4, 4]))
    assert rows.optimal_actions().tolist() == [1, 1]
    rows.reset(options={"reset_mask": np.array([True, False])})
    assert rows.optimal_actions().tolist() == [0, 1]


def test_a_row_reset_by_hand_after_its_episode_goes_on_with_its_life_unless_seeded():
    rows = SWITCHING.make_vec([PAIR], autoreset_mode=AutoresetMode.DISABLED)
    everyone = {"reset_mask": np.array([True])}
    best = []
    for seed in (None, None, None, 7):
        rows.reset(seed=seed, options=everyone)
        best.append(rows.optimal_actions().tolist())
        rows.step(np.array([4]))
        rows.step(np.array([4]))
    assert best == [[0], [0], [1], [0]]


def test_the_optimum_of_each_episode_is_that_of_its_goal():
    family = SwitchingDarkroomSpec(num_episodes_each=3).build()
    task = family.place(first=(4, 5), second=(0, 0))
    optima = family.optimal_returns_by_episode([task], 8)
    assert optima.tolist() == [[20, 20, 20, 13, 13, 13, 20, 20]]
    assert family.optimal_return(task) == 16.5
    assert family.episodes_per_cycle == 6
    darkroom = DarkroomSpec().build()
    alone = [darkroom.random_return(darkroom.place(goal=goal)) for goal in ((4, 5), (0, 0))]
    assert family.random_return(task) == pytest.approx(sum(alone) / 2)


def test_the_history_of_a_switching_goal_is_replayed_from_its_birth():
    reached = np.array([[2, 1], [2, 1]] * 5)
    starts = np.array([[1, 1], [2, 1]] * 5)
    rewards, _, _ = SWITCHING.replay(PAIR, starts, [0, 4] * 5, reached, [2, 4, 6, 8, 10])
    assert rewards.tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 1, 1]


def test_a_permuted_action_makes_the_move_that_its_task_says():
    family = DarkroomPermutedSpec(size=3, num_permutations=120).build()
    task = family.task("darkroom-permuted-3x3/goal-1-2-actions-30214")
    rows = family.make_vec([task] * 5)
    rows.reset()
    assert rows.optimal_actions().tolist() == [2] * 5  # move 2 is +y, and stands in place 2
    there = rows.step(np.arange(5))[0]
    assert there.tolist() == [[1, 0], [2, 1], [1, 2], [0, 1], [1, 1]]
    led_to = family.next_observations(task, np.ones((5, 2), dtype=int), np.arange(5))
    assert led_to.tolist() == there.tolist()
    assert task.params == {"goal_x": 1, "goal_y": 2} | {f"action_{a}": int(m) for a, m in enumerate("30214")}


def test_permutations_are_drawn_without_repeats_and_never_change():
    family = DarkroomPermutedSpec().build()
    assert len(family.tasks) == 81 * 20 == len(family.positions)
    drawn = [task.task_id[-5:] for task in family.tasks[:20]]
    assert len(set(drawn)) == 20
    assert DarkroomPermutedSpec(num_permutations=3).build().tasks[2].task_id[-5:] == drawn[2]
    assert family.place(goal=(0, 0), permutation=2).task_id[-5:] == drawn[2]
    assert DarkroomPermutedSpec(permutation_seed=1).build().tasks[0].task_id[-5:] != drawn[0]


def test_a_permutation_that_was_not_drawn_is_refused():
    family = DarkroomPermutedSpec(num_permutations=2).build()
    with pytest.raises(SettingError, match="'permutation' must be 0 to 1: 2"):
        family.place(goal=(0, 0), permutation=2)
    others = DarkroomPermutedSpec(num_permutations=120).build()
    with pytest.raises(UnknownTaskError, match="is none of darkroom-permuted"):
        family.make_vec([others.place(goal=(0, 0), permutation=100)])
    with pytest.raises(ValueError, match="'num_permutations' must be <= 120: 121"):
        DarkroomPermutedSpec(num_permutations=121)


def test_optima_do_not_depend_on_the_permutation():
    family, darkroom = DarkroomPermutedSpec(num_permutations=4).build(), DarkroomSpec().build()
    assert (darkroom.optimal_returns(darkroom.tasks) == family.optimal_returns(family.tasks).reshape(81, 4).T).all()
    assert (darkroom.random_returns(darkroom.tasks) == family.random_returns(family.tasks).reshape(81, 4).T).all()


def test_a_room_may_be_wider_than_high():
    family = LargeDarkroomSpec(width=40, height=20, horizon=800).build()
    assert len(family.tasks) == 800
    assert family.tasks[21].task_id == "large-darkroom-40x20/goal-1-1"
    corner = family.place(goal=(39, 0))
    assert family.optimal_return(corner) == 800 - (19 + 10) + 1  # from the centre, (20, 10)
    rows = family.make_vec([corner])
    assert rows.reset()[0].tolist() == [[20, 10]]
    assert cast("MultiDiscrete", rows.single_observation_space).nvec.tolist() == [40, 20]
    for _ in range(29):
        rewards = rows.step(rows.optimal_actions())[1]
    assert rewards.tolist() == [1]
    assert rows.step(np.array([0]))[0].tolist() == [[39, 0]]
    assert family.random_returns(family.tasks).sum() == pytest.approx(800)  # on exactly one cell after each env step


def test_a_wide_room_is_drawn_wide_and_refuses_places_outside():
    family = LargeDarkroomSpec(width=4, height=2, horizon=3).build()
    env = family.make(family.place(goal=(3, 0)), render_mode="ansi")
    env.reset()
    assert env.render() == ". . @ .\n. . . G\n"
    image = family.make(family.tasks[0], render_mode="rgb_array")
    image.reset()
    assert cast("NDArray[np.uint8]", image.render()).shape == (32, 64, 3)
    with pytest.raises(SettingError, match=r"a cell \(x, y\) of the 4x2 room: \(0, 2\)"):
        family.place(goal=(0, 2))
    with pytest.raises(UnknownTaskError, match="in a 4x2 room"):
        family.make_vec([Task(task_id="large-darkroom-4x2/goal-0-2", params={"goal_x": 0, "goal_y": 2})])


def test_a_square_large_room_has_the_optima_of_a_darkroom():
    large, plain = LargeDarkroomSpec().build(), DarkroomSpec(size=20, horizon=100).build()
    assert (large.optimal_returns(large.tasks) == plain.optimal_returns(plain.tasks)).all()
