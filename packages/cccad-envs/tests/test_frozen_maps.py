"""`frozen_maps.py`: the twin of Gymnasium's FrozenLake, step by step; maps and returns by hand and a second way."""

from typing import cast

import gymnasium
import numpy as np
import pytest
from cccad_envs import FrozenMapsSpec, SettingError, TransitionError
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv

FAMILY = FrozenMapsSpec().build()
SLIPPERY = FrozenMapsSpec(size=4, horizon=30, is_slippery=True, num_tasks=30).build()
TINY = FrozenMapsSpec(size=2, horizon=2, num_tasks=3).build()


def table_of(family, task):
    """Return Gymnasium's own transition table of the same map."""
    return FrozenLakeEnv(desc=cast("str", task.params["map"]).split("-"), is_slippery=family.spec.is_slippery).P


def induced(family, task, choose):
    """Return what the start is worth, from Gymnasium's table, one number at a time."""
    table, values = table_of(family, task), [0.0] * family.num_cells
    for _ in range(family.horizon):
        values = [
            choose([sum(p * (r + (not over) * values[s]) for p, s, r, over in ways) for ways in table[cell].values()])
            for cell in range(family.num_cells)
        ]
    return values[0]


def test_steps_are_those_of_gymnasium():
    actions = np.random.default_rng(0)
    for task in FAMILY.tasks[::20]:
        theirs = gymnasium.make("FrozenLake-v1", desc=cast("str", task.params["map"]).split("-"), is_slippery=False)
        ours = FAMILY.make(task)
        for episode in range(40):
            shown, also = theirs.reset(seed=episode)[0], ours.reset(seed=episode)[0]
            assert also.tolist() == [shown]
            is_over = False
            for now in range(FAMILY.horizon):
                action = int(actions.integers(4))
                shown, reward, terminated, *_ = theirs.step(action)
                also, *flags = ours.step(action)[:4]
                is_last = now == FAMILY.horizon - 1
                assert (also.tolist(), *flags) == ([shown], reward, terminated, is_last)
                is_over = terminated
                if is_over:
                    break


def test_the_table_of_slippery_ice_is_that_of_gymnasium():
    tasks = SLIPPERY.tasks[:10]
    is_hole = SLIPPERY.holes(tasks)
    values = np.random.default_rng(0).random(is_hole.shape) * ~is_hole
    values[:, SLIPPERY.goal] = 0.0
    ours = SLIPPERY.action_values(is_hole, values)
    for index, task in enumerate(tasks):
        for cell, by_action in table_of(SLIPPERY, task).items():
            for action, ways in by_action.items():
                theirs = sum(chance * (reward + values[index, state]) for chance, state, reward, _ in ways)
                assert ours[index, cell, action] == pytest.approx(theirs if cell != SLIPPERY.goal else 0.0)


def test_slips_are_as_likely_as_gymnasium_says_and_lead_where_it_says():
    task = SLIPPERY.tasks[0]
    rows = SLIPPERY.make_vec([task] * 30_000)
    for action in range(4):
        rows.reset(seed=action)
        reached = rows.step(np.full(30_000, action))[4]["final_obs"][:, 0]
        shares = np.bincount(reached, minlength=16) / 30_000
        expected = np.zeros(16)
        for chance, state, *_ in table_of(SLIPPERY, task)[0][action]:
            expected[state] += chance
        assert shares.tolist() == pytest.approx(expected.tolist(), abs=0.014)


def test_returns_of_the_smallest_maps_by_hand():
    by_map = {task.params["map"]: task for task in TINY.tasks}
    assert sorted(by_map) == ["SF-FG", "SF-HG", "SH-FG"]
    open_map, one_way = by_map["SF-FG"], by_map["SH-FG"]
    assert TINY.optimal_returns([open_map, one_way]).tolist() == [1, 1]
    assert TINY.random_returns([open_map, one_way]).tolist() == [1 / 2 * 1 / 4, 1 / 4 * 1 / 4]
    slippery = FrozenMapsSpec(size=2, horizon=2, num_tasks=3, is_slippery=True).build()
    assert slippery.optimal_return(open_map) == pytest.approx(2 / 3 * 1 / 3)
    assert slippery.random_return(open_map) == pytest.approx(1 / 8)


def test_returns_are_those_of_gymnasiums_table():
    for family in (FAMILY, SLIPPERY):
        for task in family.tasks[::10]:
            assert family.optimal_return(task) == pytest.approx(induced(family, task, max))
            mean = induced(family, task, lambda values: sum(values) / 4)
            assert family.random_return(task) == pytest.approx(mean)


def test_optimal_actions_waste_no_time_and_avoid_holes():
    rows = FAMILY.make_vec(FAMILY.tasks)
    rows.reset(seed=0)
    returns, when = np.zeros(200), np.zeros(200)
    for now in range(1, FAMILY.horizon + 1):
        running = when == 0
        _, rewards, terminations, *_ = rows.step(rows.optimal_actions())
        returns += rewards * running
        when[terminations & running] = now
    assert (returns == 1).all()
    for index, task in enumerate(FAMILY.tasks[:30]):
        holes, depth, front, reached = FAMILY.holes([task])[0], 0, {0}, {0}
        while FAMILY.goal not in front:
            front = {int(cell) for place in front for cell in FAMILY.moved[place] if not holes[cell]} - reached
            reached |= front
            depth += 1
        assert when[index] == depth


def test_optimal_actions_earn_the_optimum_on_slippery_ice():
    rows = SLIPPERY.make_vec(SLIPPERY.tasks * 1_000)
    rows.reset(seed=0)
    returns, running = np.zeros(30_000), np.ones(30_000, bool)
    for _ in range(SLIPPERY.horizon):
        _, rewards, terminations, truncations, _ = rows.step(rows.optimal_actions())
        returns += rewards * running
        running &= ~(terminations | truncations)
    means = returns.reshape(1_000, 30).mean(axis=0)
    assert np.abs(means - SLIPPERY.optimal_returns(SLIPPERY.tasks)).max() < 5 * (0.25 / 1_000) ** 0.5


def test_maps_are_distinct_can_be_crossed_and_are_the_same_in_any_number():
    assert len({task.task_id for task in FAMILY.tasks}) == len({task.params["map"] for task in FAMILY.tasks}) == 200
    assert (FAMILY.optimal_returns(FAMILY.tasks) == 1).all()
    assert FrozenMapsSpec(num_tasks=3).build().tasks == FAMILY.tasks[:3]
    assert FAMILY.tasks[0].task_id == "frozen-maps-5x5/SHHFF-FFFFH-FHFFF-FFHFF-HHFFG"
    assert FrozenMapsSpec(task_seed=1).build().tasks[0] != FAMILY.tasks[0]
    assert 0.1 < FAMILY.holes(FAMILY.tasks).mean() < 0.25
    with pytest.raises(SettingError, match="only 3 that can be crossed in 2 env steps turned up"):
        _ = FrozenMapsSpec(size=2, horizon=2, num_tasks=4).build().tasks


def test_a_slip_that_cannot_be_is_not_believed():
    task = SLIPPERY.tasks[0]
    start, right = [[0]], [2]
    for reached in (0, 1, 4):  # up, right and down
        assert SLIPPERY.next_observations(task, start, right, recorded=[[reached]]).item() == reached
    assert SLIPPERY.next_observations(task, start, right, recorded=[[5]]).item() == 1
    with pytest.raises(TransitionError, match="chance decides what follows"):
        SLIPPERY.next_observations(task, start, right)


def test_a_picture_is_the_map():
    task = FAMILY.tasks[0]
    env = FAMILY.make(task, render_mode="ansi")
    env.reset(seed=0)
    drawn = cast("str", env.render()).replace(" ", "").splitlines()
    assert drawn == [row.replace("F", ".").replace("S", "@") for row in cast("str", task.params["map"]).split("-")]
