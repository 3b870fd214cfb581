"""`sources/noisy_oracle`."""

import numpy as np
import pytest
from cccad_data import NoisyOracleSpec, SourceError, learning_curve


def collect(family, seed=0, tasks=None, **fields):
    return NoisyOracleSpec(**fields).build().collect(family, tasks or family.tasks, seed=seed)


def test_noise_decays_linearly_over_the_life(corridor):
    (task,) = collect(corridor, tasks=corridor.tasks[:1], num_envs=400, env_steps=80)
    strayed = (task.actions != task.optimal_actions).reshape(400, 80).mean(axis=0)  # env step
    expected = (1 - np.arange(80) / 80) * 2 / 3  # a random action is the optimal one in a third of the cases
    assert np.abs(strayed - expected).max() < 0.12
    assert np.abs(strayed - expected).mean() < 0.025


def test_without_noise_left_every_action_is_optimal(corridor):
    (task,) = collect(corridor, tasks=corridor.tasks[:1], num_envs=4, env_steps=160, noise_end_frac=0.5)
    is_optimal = (task.actions == task.optimal_actions).reshape(4, 160)
    assert is_optimal[:, 80:].all()
    assert not is_optimal[:, :80].all()


def test_histories_end_near_the_optimum_and_begin_at_random(corridor):
    histories = collect(corridor, num_envs=30, env_steps=400)
    for task_id, curve in learning_curve(histories).items():
        task = corridor.task(task_id)
        assert curve[-1] == pytest.approx(corridor.optimal_return(task), abs=0.4)
        assert curve[0] == pytest.approx(corridor.random_return(task), abs=0.9)


def test_the_same_seed_gives_the_same_histories_whatever_else_is_collected(corridor):
    together = collect(corridor, num_envs=2, env_steps=40)
    alone = collect(corridor, tasks=corridor.tasks[3:4], num_envs=2, env_steps=40)
    other = collect(corridor, tasks=corridor.tasks[3:4], num_envs=2, env_steps=40, seed=1)
    assert (together[3].actions == alone[0].actions).all()
    assert not (other[0].actions == alone[0].actions).all()


def test_a_life_shorter_than_an_episode_is_refused(corridor):
    with pytest.raises(SourceError, match=r"'env_steps' must be at least one episode .*\(8 env steps\): 7"):
        collect(corridor, env_steps=7)


def test_progress_counts_env_steps_of_all_histories(corridor):
    reports = []
    NoisyOracleSpec(num_envs=3, env_steps=10).build().collect(
        corridor, corridor.tasks[:2], seed=0, progress=reports.append
    )
    assert reports == [6 * (i + 1) for i in range(10)]
