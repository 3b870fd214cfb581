"""`histories/history`: one task's histories in memory."""

import numpy as np
import pytest
from cccad_data import DataError, NoisyOracleSpec, TaskHistories, early_late_returns, learning_curve
from cccad_data.families.toys import CorridorSpec


def two_histories(**changes):
    """Two histories: episodes of 2, 1 and 2 env steps; then of 1 and 3."""
    fields = {
        "task_id": "task/1",
        "observations": np.arange(9, dtype=np.uint8)[:, None],
        "actions": np.zeros(9, np.uint8),
        "rewards": np.array([1, 2, 4, 8, 16, 32, 64, 128, 256], np.float32),
        "terminations": np.zeros(9, bool),
        "truncations": np.zeros(9, bool),
        "final_observations": np.array([[102], [103], [105], [106], [109]], np.uint8),
        "episode_ends": np.array([2, 3, 5, 6, 9]),
        "history_ends": np.array([5, 9]),
    }
    return TaskHistories(**{**fields, **changes})


def test_the_next_observation_at_an_episodes_end_is_the_true_last_one():
    following = two_histories().next_observations()[:, 0]
    assert following.tolist() == [1, 102, 103, 4, 105, 106, 7, 8, 109]


def test_returns_are_summed_per_episode():
    assert two_histories().episode_returns().tolist() == [3, 4, 24, 32, 448]


def test_one_history_counts_from_its_own_birth():
    second = list(two_histories())[1]
    assert second.observations[:, 0].tolist() == [5, 6, 7, 8]
    assert second.episode_ends.tolist() == [1, 4]
    assert second.history_ends.tolist() == [4]
    assert second.final_observations[:, 0].tolist() == [106, 109]


def test_thinning_keeps_every_kth_episode_of_each_history():
    thinned = two_histories().every_kth_episode(2)
    assert thinned.observations[:, 0].tolist() == [0, 1, 3, 4, 5]
    assert thinned.episode_ends.tolist() == [2, 4, 5]
    assert thinned.history_ends.tolist() == [4, 5]
    assert thinned.final_observations[:, 0].tolist() == [102, 105, 106]


def test_thinning_by_one_changes_nothing():
    whole, thinned = two_histories(), two_histories().every_kth_episode(1)
    assert all((array == thinned.arrays()[name]).all() for name, array in whole.arrays().items())


def test_a_learning_curve_is_the_mean_over_histories_as_far_as_the_shortest_goes():
    curve = learning_curve([two_histories()])["task/1"]
    assert curve.tolist() == [(3 + 32) / 2, (4 + 448) / 2]
    assert early_late_returns([two_histories()], num_episodes=1) == {"task/1": (17.5, 226.0)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"actions": np.zeros(8, np.uint8)}, "'actions' has 8 env steps, but 'rewards' has 9"),
        ({"episode_ends": np.array([2, 3, 5, 6, 8])}, "'episode_ends' must increase"),
        ({"episode_ends": np.array([2, 2, 5, 6, 9])}, "'episode_ends' must increase"),
        ({"history_ends": np.array([4, 9])}, "must end where an episode ends"),
        ({"final_observations": np.zeros((4, 1), np.uint8)}, "4 final observations for 5 episodes"),
        ({"observations": np.zeros(9, np.uint8)}, r"'observations' has dtype uint8 and shape \(9,\)"),
        ({"rewards": np.zeros((9, 1), np.float32)}, r"'rewards' has dtype float32 and shape \(9, 1\)"),
        ({"rewards": np.array(["1"] * 9)}, r"'rewards' has dtype <U1"),
        ({"terminations": np.zeros(9, np.uint8)}, "'terminations' has dtype uint8"),
        ({"episode_ends": np.array([2.0, 3.0, 5.0, 6.0, 9.0])}, "'episode_ends' has dtype float64"),
        ({"final_observations": np.full((5, 1), -1)}, "in int64 do not fit among 'observations' of 1 in uint8"),
        ({"final_observations": np.zeros((5, 2), np.uint8)}, "of 2 features in uint8 do not fit"),
        ({"optimal_actions": np.zeros(3, np.uint8)}, "'optimal_actions' has shape"),
    ],
)
def test_arrays_that_contradict_each_other_are_refused(changes, words):
    with pytest.raises(DataError, match=words):
        two_histories(**changes)


def test_an_unfinished_last_episode_is_left_out_of_the_history():
    family = CorridorSpec(horizon=8).build()
    (task,) = NoisyOracleSpec(num_envs=2, env_steps=30).build().collect(family, family.tasks[:1], seed=0)
    assert task.history_ends.tolist() == [24, 48]
    assert task.num_episodes == 6


def test_histories_of_episodes_that_end_at_different_times_stay_apart():
    family = CorridorSpec(ends_on_goal=True).build()
    tasks = NoisyOracleSpec(num_envs=5, env_steps=60).build().collect(family, family.tasks, seed=0)
    for task in tasks:
        original = family.task(task.task_id)
        following = task.next_observations()
        outcome = family.replay(original, task.observations, task.actions, following, task.episode_ends)
        assert (family.next_observations(original, task.observations, task.actions) == following).all()
        assert (outcome[0] == task.rewards).all()
        assert (outcome[1] == task.terminations).all()
        assert (outcome[2] == task.truncations).all()
        assert ((task.terminations | task.truncations).nonzero()[0] + 1 == task.episode_ends).all()
    assert len({len(task.rewards) for task in tasks}) > 1
