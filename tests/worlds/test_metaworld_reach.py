"""Meta-World's reach-v3 with a hidden goal and its own expert; needs metaworld, see `make worlds`."""

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="needs metaworld: make worlds")
pytestmark = pytest.mark.filterwarnings("ignore:Constant")


def play(env, act, seed=0):
    observation, _ = env.reset(seed=seed)
    total = 0.0
    for _ in range(25):
        observation, reward, _, _, infos = env.step(act(observation))
        total += reward
    return total, infos["success"]


def test_tasks_differ_in_the_goal_alone_which_is_not_observed(named):
    envs = [named("metaworld_reach.py:make")(task) for task in (0, 1, 50)]
    first = [env.reset(seed=0)[0] for env in envs]
    assert all(np.allclose(one, first[0], atol=1e-3) for one in first)
    assert len({tuple(env.unwrapped._target_pos.round(4)) for env in envs}) == 3
    again = named("metaworld_reach.py:make")(50)
    again.reset(seed=1)
    assert np.array_equal(again.unwrapped._target_pos, envs[2].unwrapped._target_pos)


def test_the_expert_succeeds_and_one_that_is_blind_does_not(named):
    make, expert = named("metaworld_reach.py:make"), named("metaworld_reach.py:expert")
    outcomes, blind = [], []
    for task in (0, 20, 49, 50, 77, 99):
        env, other = make(task), make(3)
        other.reset(seed=0)
        env.reset(seed=0)
        outcomes.append(play(env, expert(env)))
        blind.append(play(env, expert(other)))  # it goes where another task has its goal
    assert all(success for _, success in outcomes)
    assert sum(success for _, success in blind) <= 2
    assert np.mean([total for total, _ in outcomes]) > np.mean([total for total, _ in blind]) + 20.0


def test_its_spec_runs_to_a_report(report_of):
    settings = {"env.vary.task.to": "5", "data.source.env_steps": "200"}
    assert "report.html" in report_of("metaworld_reach.toml", **settings)
