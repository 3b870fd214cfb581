"""A MiniGrid room with a hidden goal and its planner; needs minigrid, see `make worlds`."""

import numpy as np
import pytest

pytest.importorskip("minigrid", reason="needs minigrid: make worlds")


def episode(env, act):
    observation, total, ended = env.reset()[0], 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        total, ended = total + reward, terminated or truncated
    return total


def test_the_goal_is_not_observed(named):
    make = named("minigrid_goal.py:make")
    here, there, way = make(0, 0), make(0, 38), [2, 1, 2, 0, 2]
    assert np.array_equal(here.reset(seed=0)[0], there.reset(seed=0)[0])
    for action in way:
        one, other = here.step(action)[0], there.step(action)[0]
        assert here.observation_space.contains(one)
        assert np.array_equal(one, other)


def test_the_fewest_moves_are_what_breadth_first_search_finds_and_pay_what_is_promised(named):
    make, moves, planned = (named(f"minigrid_goal.py:{name}") for name in ("make", "moves", "planned_return"))
    for start, goal in ((0, 0), (1, 20), (2, 38), (3, 5)):
        env = make(start, goal)
        env.reset(seed=0)
        way = iter(moves(env.unwrapped.place, env.unwrapped.agent_dir, env.unwrapped.goal))
        assert episode(env, lambda _, way=way: next(way)) == pytest.approx(planned(env, 40))
    assert len(moves((1, 1), 0, (7, 7))) == 13  # six ahead, a turn, six ahead


def test_the_planner_looks_for_the_goal_and_then_knows_it(named):
    make, planner, planned = (named(f"minigrid_goal.py:{name}") for name in ("make", "planner", "planned_return"))
    first, last = [], []
    for task in range(12):
        env = make(task % 4, 3 * task)
        env.reset(seed=task)
        act = planner(env)
        returns = np.array([episode(env, act) for _ in range(8)]) / planned(env, 40)
        first.append(returns[0])
        last.append(returns[-1])
    assert np.mean(first) < 0.6
    assert last == pytest.approx(np.ones(12))


def test_its_spec_runs_to_a_report(report_of):
    settings = {"env.num_tasks": "8", "data.source.env_steps": "200"}
    assert "report.html" in report_of("minigrid_goal.toml", **settings)
