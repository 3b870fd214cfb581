"""Linear probes and effective rank against what is known exactly."""

import numpy as np
import pytest
from cccad_train.memory_study.probes import effective_rank, fit_probe, places, score, told_exactly

NAMES = ("goal_x", "goal_y")
PLACES = places(NAMES)


def lives(rng, num_tasks, num_replicas, num_features, noise):
    """Memories that hold x and y of a task linearly, in places of their own, beside noise."""
    tasks = np.repeat(np.arange(num_tasks), num_replicas)
    targets = rng.integers(0, 9, size=(num_tasks, 2))[tasks].astype(float)
    code = np.random.default_rng(7).normal(size=(2, num_features))
    return targets @ code + noise * rng.normal(size=(len(tasks), num_features)), targets, tasks


def test_a_probe_reads_what_is_held_linearly_on_tasks_it_never_saw():
    rng = np.random.default_rng(0)
    probe = fit_probe(*lives(rng, 40, 3, 60, 0.5))
    memories, targets, _ = lives(rng, 20, 2, 60, 0.5)
    ended = score(probe(memories), targets, np.array([4.0, 4.0]), NAMES, PLACES)
    assert min(ended["r2"].values()) > 0.98
    assert ended["accuracy"]["goal"] > 0.9


def test_a_probe_of_noise_is_no_better_than_a_guess_and_hardly_worse():
    rng = np.random.default_rng(1)
    _, targets, tasks = lives(rng, 40, 3, 200, 0.0)
    probe = fit_probe(rng.normal(size=(120, 200)), targets, tasks)
    ended = score(probe(rng.normal(size=(120, 200))), targets, targets.mean(0), NAMES, PLACES)
    assert all(-0.3 < value < 0.1 for value in ended["r2"].values())


def test_the_penalty_is_chosen_on_tasks_left_out_and_not_on_lives_left_out():
    rng = np.random.default_rng(2)
    _, targets, tasks = lives(rng, 30, 4, 1, 0.0)
    tags = rng.normal(size=(60, 60))  # of a task, telling nothing of its goal
    noticed, strangers = (tags[first + tasks] + 0.1 * rng.normal(size=(120, 60)) for first in (0, 30))
    ended, fooled = (
        score(fit_probe(noticed, targets, groups)(strangers), targets, targets.mean(0), NAMES, PLACES)
        for groups in (tasks, np.arange(120))
    )
    assert min(ended["r2"].values()) > -0.3
    assert min(fooled["r2"].values()) < -0.5


def test_a_feature_that_never_changes_does_no_harm():
    memories, targets, tasks = lives(np.random.default_rng(3), 20, 2, 10, 0.1)
    padded = np.concatenate([memories, np.ones((40, 1))], axis=1)
    assert fit_probe(padded, targets, tasks)(padded) == pytest.approx(fit_probe(memories, targets, tasks)(memories))


def test_scores_are_those_worked_out_by_hand():
    targets, read = np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([[1.4, 2.0], [2.0, 2.0]])
    ended = score(read, targets, np.array([2.0, 2.0]), NAMES, PLACES)
    assert ended["r2"] == {"goal_x": pytest.approx(1 - (0.16 + 1.0) / 2), "goal_y": None}
    assert ended["accuracy"] == {"goal": 0.5}


def test_numbers_of_one_thing_are_one_place():
    assert places(["key_x", "key_y", "door_x", "door_y", "size"]) == {"key": [0, 1], "door": [2, 3], "size": [4]}


def test_only_a_place_whose_numbers_repeat_is_to_be_told_exactly():
    tasks = np.array([(x, y, 1000 * x + y) for x in range(3) for y in range(3)], dtype=float)
    assert told_exactly(("goal_x", "goal_y", "stream"), np.repeat(tasks, 4, axis=0)) == {"goal": [0, 1]}


def test_effective_rank_counts_directions_by_their_weight():
    matrices = np.stack(
        [np.eye(4), np.outer(np.ones(4), np.arange(4.0)), np.diag([3.0, 1.0, 0.0, 0.0]), np.zeros((4, 4))]
    )
    by_hand = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert effective_rank(matrices)[:3] == pytest.approx([4.0, 1.0, by_hand], abs=1e-6)
    assert np.isfinite(effective_rank(matrices)).all()
