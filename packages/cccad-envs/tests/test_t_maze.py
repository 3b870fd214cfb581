"""`t_maze.py`: what is seen and paid, by hand; lengths side by side; a million cells at the cost of one."""

import tracemalloc
from typing import cast

import numpy as np
import pytest
from cccad_envs import SettingError, TMazeSpec

FAMILY = TMazeSpec(shortest=1, longest=30).build()
FORWARD, LEFT, RIGHT = 0, 1, 2


def play_right(length, actions):
    """Return what is seen and paid, and whether it ended, in an episode whose cue says right."""
    family = TMazeSpec(shortest=length, longest=length + 1).build()
    rows = family.make_vec(family.tasks[:1])
    seed = next(seed for seed in range(50) if rows.reset(seed=seed)[0].item() == RIGHT)
    shown, paid = [rows.reset(seed=seed)[0].item()], []
    for action in actions:
        _, rewards, terminations, truncations, infos = rows.step(np.array([action]))
        shown.append(infos["final_obs"].item())
        paid.append(rewards.item())
    return shown, paid, terminations.item(), truncations.item()


def test_the_cue_is_shown_at_the_start_alone_and_the_turn_pays():
    assert play_right(3, [FORWARD] * 3 + [RIGHT]) == ([2, 0, 0, 3, 0], [0, 0, 0, 1], True, False)
    assert play_right(3, [FORWARD] * 3 + [LEFT]) == ([2, 0, 0, 3, 0], [0, 0, 0, 0], True, False)


def test_other_actions_lead_nowhere():
    shown, paid, *_ = play_right(2, [RIGHT, FORWARD, LEFT, FORWARD, FORWARD, RIGHT])
    assert shown == [2, 2, 0, 0, 3, 3, 0]
    assert paid == [0, 0, 0, 0, 0, 1]


def test_an_episode_is_cut_off_after_twice_its_shortest_way():
    assert play_right(2, [LEFT] * 6)[2:] == (False, True)


def test_the_random_return_of_the_shortest_corridors_by_hand():
    hasty = TMazeSpec(shortest=1, longest=2, patience=1).build()
    assert hasty.random_return(hasty.tasks[0]) == pytest.approx(1 / 3 * 2 / 3 / 2)
    assert FAMILY.random_return(FAMILY.tasks[0]) == pytest.approx(25 / 81)


def test_the_random_return_is_that_of_the_markov_chain():
    for task in FAMILY.tasks[::4]:
        length = cast("int", task.params["length"])
        chain = np.zeros((length + 2, length + 2))  # places, and an arm
        for place in range(length):
            chain[place, [place, place + 1]] = 2 / 3, 1 / 3
        chain[length, [length, length + 1]] = 1 / 3, 2 / 3
        chain[-1, -1] = 1
        turned = np.linalg.matrix_power(chain, 2 * (length + 1))[0, -1]
        assert FAMILY.random_return(task) == pytest.approx(turned / 2, abs=1e-12)


def test_corridors_of_different_length_are_played_side_by_side():
    tasks = [FAMILY.tasks[length - 1] for length in (2, 7, 2, 30)]
    rows = FAMILY.make_vec(tasks)
    rows.reset(seed=0)
    ends: list[list[int]] = [[] for _ in tasks]
    rewards = np.zeros(4)
    for now in range(1, 63):
        _, paid, terminations, *_ = rows.step(rows.optimal_actions())
        rewards += paid
        for row in np.flatnonzero(terminations):
            ends[row].append(now)
    assert ends == [list(range(3, 63, 3)), list(range(8, 63, 8)), list(range(3, 63, 3)), [31, 62]]
    assert rewards.tolist() == [len(row) for row in ends]
    assert FAMILY.time_limits(tasks).tolist() == [6, 16, 6, 62]


def test_cues_are_fair_and_new_in_every_episode_and_row():
    rows = FAMILY.make_vec(FAMILY.tasks[:1] * 4_000)
    first = rows.reset(seed=0)[0][:, 0]
    rows.step(np.full(4_000, FORWARD))
    second = rows.step(np.full(4_000, LEFT))[0][:, 0]
    assert set(first) == set(second) == {LEFT, RIGHT}
    for share in ((first == LEFT).mean(), (second == LEFT).mean(), (first == second).mean()):
        assert share == pytest.approx(0.5, abs=5 * (0.25 / 4_000) ** 0.5)


def test_a_corridor_of_a_million_costs_no_more_memory_than_one_of_twenty():
    peaks = []
    for length in (20, 999_999):
        family = TMazeSpec(shortest=length, longest=length + 1).build()
        tracemalloc.start()
        rows = family.make_vec(family.tasks * 8)
        rows.reset(seed=0)
        for _ in range(30):
            rows.step(rows.optimal_actions())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] < 1_000_000


def test_the_junction_at_the_end_of_a_long_corridor_is_reached():
    family = TMazeSpec(shortest=20_000, longest=20_001).build()
    rows = family.make_vec(family.tasks[:1] * 2)
    cues = rows.reset(seed=3)[0][:, 0]
    for _ in range(20_000):
        observations, *_ = rows.step(np.full(2, FORWARD))
    assert observations.tolist() == [[3], [3]]
    _, rewards, terminations, *_ = rows.step(np.array([cues[0], 3 - cues[1]]))
    assert (rewards.tolist(), terminations.tolist()) == ([1, 0], [True, True])


def test_a_history_of_a_million_env_steps_replays():
    family = TMazeSpec(shortest=999_999, longest=1_000_000).build()
    task, length = family.tasks[1], 1_000_000
    observations = np.zeros((length + 1, 1), np.uint8)
    observations[0], observations[-1] = RIGHT, 3
    actions = np.full(length + 1, FORWARD)
    actions[-1] = RIGHT
    following = np.append(observations[1:], [[0]], axis=0)
    assert (family.next_observations(task, observations, actions) == following).all()
    rewards, terminations, truncations = family.replay(task, observations, actions, following, [length + 1])
    assert np.flatnonzero(rewards).tolist() == np.flatnonzero(terminations).tolist() == [length]
    assert not truncations.any()
    assert family.random_return(task) == 0.0


def test_tasks_are_lengths():
    family = TMazeSpec(shortest=200, longest=1_000, spacing=10).build()
    assert [task.task_id for task in family.tasks[:2]] == ["t-maze/corridor-200", "t-maze/corridor-210"]
    assert len(family.tasks) == 81
    assert TMazeSpec(longest=10**6).build().task("t-maze/corridor-123456").params == {"length": 123_456}
    with pytest.raises(SettingError, match="so that there are two tasks: 5"):
        TMazeSpec(shortest=5, longest=5)


def test_a_picture_shows_the_way_the_arm_and_the_agent():
    env = FAMILY.make(FAMILY.tasks[1], render_mode="ansi")
    env.reset(seed=0)
    assert sorted(cast("str", env.render())) == sorted("@ . .\n. . .\n. . G\n")
