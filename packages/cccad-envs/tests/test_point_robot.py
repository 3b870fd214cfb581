"""`point_robot.py`: goals, moves, walls and rewards by hand, and returns against a walk written down a second time."""

import math
from typing import cast

import numpy as np
import pytest
from cccad_envs import ActionError, PointRobotSpec, SettingError, TransitionError

SPARSE = PointRobotSpec().build()
DENSE = PointRobotSpec(reward="dense", goals="square", horizon=7).build()


def straight_walk(spec, goal):
    """Return what one agent earns that goes to *goal* as fast as it may, one number at a time."""
    place, earned = [0.0, 0.0], 0.0
    for _ in range(spec.horizon):
        for axis in (0, 1):
            step = max(-spec.step_size, min(spec.step_size, goal[axis] - place[axis]))
            place[axis] = place[axis] + step
        distance = math.dist(place, goal)
        if spec.reward == "dense":
            earned -= distance
        elif distance <= spec.goal_radius:
            earned += 1 - distance
    return earned


def test_goals_lie_where_they_should_and_are_the_same_in_any_number():
    for goals, has_all_sides in (("half-circle", False), ("circle", True)):
        family = PointRobotSpec(goals=goals, distance=0.7).build()
        points = family.goals(family.tasks)
        assert np.hypot(*points.T) == pytest.approx(0.7, abs=1e-5)
        assert (points[:, 1] < 0).any() == has_all_sides
        assert (points[:, 0] < 0).any()
        assert (points[:, 0] > 0).any()
        assert PointRobotSpec(goals=goals, distance=0.7, num_tasks=7).build().tasks == family.tasks[:7]
    square = DENSE.goals(DENSE.tasks)
    assert np.abs(square).max() <= 1
    assert (np.hypot(*square.T) > 1).any()
    assert len({task.task_id for task in SPARSE.tasks}) == len({tuple(task.params.values()) for task in SPARSE.tasks})


def test_ids_and_goals_stay_as_they_are():
    task = SPARSE.tasks[0]
    assert task.task_id == "point-robot-half-circle-1-seed-0/0000"
    assert task.params == {"goal_x": 0.999342, "goal_y": 0.036267}
    assert SPARSE.task("point-robot-half-circle-1-seed-0/0099") == SPARSE.tasks[99]


def test_an_action_moves_by_the_step_size_and_walls_stop_it():
    rows = PointRobotSpec(arena=1.0, horizon=50).build().make_vec(SPARSE.tasks[:2])
    rows.reset(seed=0)
    action = np.array([[1.0, -0.5], [-1.0, 0.0]], np.float32)
    observations = rows.step(action)[0]
    assert observations.tolist() == [pytest.approx([0.1, -0.05]), pytest.approx([-0.1, 0.0])]
    for _ in range(30):
        observations = rows.step(action)[0]
    assert observations.tolist() == [[1.0, -1.0], [-1.0, 0.0]]


def test_rewards_by_hand():
    goals = np.zeros((4, 2))
    places = np.array([[0.0, 0.0], [0.06, 0.08], [0.0, 0.2], [0.0, 0.21]])
    assert SPARSE.rewards(places, goals).tolist() == pytest.approx([1.0, 0.9, 0.8, 0.0])
    assert DENSE.rewards(places, goals).tolist() == pytest.approx([0.0, -0.1, -0.2, -0.21])


def test_the_optimum_is_what_a_straight_walk_earns():
    for family in (SPARSE, DENSE):
        some = family.tasks[::9]
        by_walking = [straight_walk(family.spec, list(task.params.values())) for task in some]
        assert family.optimal_returns(some).tolist() == pytest.approx(by_walking, abs=1e-9)


def test_no_other_way_earns_more():
    generator = np.random.default_rng(0)
    for family in (SPARSE, DENSE):
        tasks = family.tasks[:10] * 50
        rows = family.make_vec(tasks)
        rows.reset(seed=0)
        returns = np.zeros(len(tasks))
        for _ in range(family.horizon):
            noise = generator.normal(0, 0.1, (len(tasks), 2)) * (generator.random((len(tasks), 1)) < 0.3)
            actions = (rows.optimal_actions() + noise).clip(-1, 1).astype(np.float32)
            returns += rows.step(actions)[1]
        assert (returns <= family.optimal_returns(tasks) + 1e-5).all()


def test_the_random_return_is_an_estimate_with_its_standard_error():
    tasks = SPARSE.tasks[:20]
    means, errors = SPARSE.random_returns(tasks), SPARSE.random_return_errors(tasks)
    assert (errors > 0).all()
    assert errors.max() < 0.01
    rows, generator = SPARSE.make_vec(tasks * 300), np.random.default_rng(1)
    rows.reset(seed=1)
    returns = np.zeros((300, 20))
    for _ in range(SPARSE.horizon):
        returns += rows.step(generator.uniform(-1, 1, (6_000, 2)).astype(np.float32))[1].reshape(300, 20)
    spread = np.hypot(errors, returns.std(axis=0) / 300**0.5)
    assert (np.abs(returns.mean(axis=0) - means) < 5 * spread).all()
    assert PointRobotSpec().build().random_returns(tasks[::-1]).tolist() == means[::-1].tolist()


def test_what_is_no_action_or_no_place_is_refused():
    rows = SPARSE.make_vec(SPARSE.tasks[:2])
    rows.reset(seed=0)
    with pytest.raises(ActionError, match=r"must be numbers of shape \(2, 2\), got int64 \(2,\)"):
        rows.step(np.zeros(2, int))
    for wrong in (1.5, np.nan, -np.inf):
        with pytest.raises(ActionError, match=r"must be from -1.0 to 1.0, got .* in row 1"):
            rows.step(np.array([[0.0, 0.0], [0.0, wrong]]))
    with pytest.raises(TransitionError, match=r"observations must be from -1.5 to 1.5, got .* at env step 1"):
        SPARSE.next_observations(SPARSE.tasks[0], [[0.0, 0.0], [1.6, 0.0]], np.zeros((2, 2)))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(SettingError, match="'distance' must be at most 'arena'"):
        PointRobotSpec(distance=2.0)
    with pytest.raises(SettingError, match="'horizon' must be long enough"):
        PointRobotSpec(horizon=7)
    with pytest.raises(SettingError, match="'goal_radius' must be below 1"):
        PointRobotSpec(goal_radius=1.0)


def test_a_single_robot_can_be_looked_at():
    env = SPARSE.make(SPARSE.tasks[0], render_mode="ansi")
    observation, _ = env.reset(seed=0)
    assert observation.tolist() == [0.0, 0.0]
    lines = cast("str", env.render()).splitlines()
    assert lines[10].split()[10] == "@"
    assert sum(line.count("G") for line in lines) == 1
    for _ in range(SPARSE.horizon):
        *_, truncated, _ = env.step(env.optimal_action())
    assert truncated
    assert sum(line.count("*") for line in cast("str", env.render()).splitlines()) == 1
