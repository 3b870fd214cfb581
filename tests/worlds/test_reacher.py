"""Reacher with a hidden target and its expert by inverse kinematics; needs mujoco, see `make worlds`."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: make worlds")


@pytest.fixture
def make(named):
    hidden_target = named("reacher.py:HiddenTarget")
    return lambda angle=1.0, distance=0.15: hidden_target(gym.make("Reacher-v5"), angle=angle, distance=distance)


def test_the_target_stays_where_the_task_has_it_and_is_not_observed(make):
    here, there = make(1.0), make(-2.0)
    for seed in range(3):
        (one, _), (other, _) = here.reset(seed=seed), there.reset(seed=seed)
        assert here.observation_space.contains(one)
        assert np.array_equal(one, other)
        assert here.unwrapped.data.qpos[-2:] == pytest.approx([0.15 * np.cos(1.0), 0.15 * np.sin(1.0)])
    action = np.array([0.3, -0.2], np.float32)
    (one, reward, *_), (other, different, *_) = here.step(action), there.step(action)
    assert np.allclose(one, other, atol=1e-5)
    assert reward != different


def test_the_expert_reaches_every_target_and_random_actions_do_not(make, named):
    expert = named("reacher.py:expert")
    for angle, distance in ((-3.0, 0.05), (-1.0, 0.2), (0.5, 0.1), (2.0, 0.15)):
        env, total = make(angle, distance), 0.0
        params = {"angle": np.array([angle]), "distance": np.array([distance])}
        observation, _ = env.reset(seed=1)
        for _ in range(50):
            observation, reward, *_, infos = env.step(expert(observation[None], params)[0])
            total += reward
        assert infos["success"]
        assert total > -9.0
        env.action_space.seed(0)
        env.reset(seed=1)
        assert sum(env.step(env.action_space.sample())[1] for _ in range(50)) < -15.0


def test_its_spec_runs_to_a_report(report_of):
    settings = {"env.num_tasks": "8", "data.source.env_steps": "500"}
    assert "report.html" in report_of("reacher.toml", **settings)
