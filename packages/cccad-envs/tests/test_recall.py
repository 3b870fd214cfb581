"""`recall.py`: what is shown, when it is asked for, and what an answer pays, by hand."""

from typing import cast

import numpy as np
import pytest
from cccad_envs import RecallSpec, Task, UnknownTaskError

STRINGS = RecallSpec(num_bits=3, num_filler=2, resample=False).build()


def test_an_episode_shows_waits_and_asks():
    rows = STRINGS.make_vec([STRINGS.task("recall-3x2/101")])
    observed = [rows.reset()[0][0].tolist()]
    rewards = []
    for action in (0, 0, 0, 0, 0, 1, 1, 1):
        _, reward, _, truncations, infos = rows.step(np.array([action]))
        observed.append(infos["final_obs"][0].tolist())
        rewards.append(float(reward[0]))
    assert observed == [[1, 2], [2, 1], [3, 2], [0, 0], [0, 0], [4, 0], [5, 0], [6, 0], [0, 0]]
    assert rewards == pytest.approx([0, 0, 0, 0, 0, 1 / 3, 0, 1 / 3])
    assert truncations.all()


def test_every_string_is_a_task_when_there_are_few():
    ids = [task.task_id.split("/")[1] for task in STRINGS.tasks]
    assert ids == ["000", "001", "010", "011", "100", "101", "110", "111"]
    assert STRINGS.tasks[5].params == {"symbol_0": 1, "symbol_1": 0, "symbol_2": 1}


def test_of_many_strings_some_are_drawn_without_repeats_and_the_same_in_any_number():
    few = RecallSpec(num_bits=6, num_symbols=3, resample=False, num_tasks=40).build().tasks
    many = RecallSpec(num_bits=6, num_symbols=3, resample=False, num_tasks=700).build().tasks
    assert len({task.task_id for task in many}) == 700
    assert many[:40] == few
    assert len(RecallSpec(num_bits=64, resample=False, num_tasks=30).build().tasks[29].params) == 64


def test_new_symbols_are_fair_and_new_in_every_episode_and_row():
    family = RecallSpec(num_bits=5, num_symbols=4, num_filler=0).build()
    rows = family.make_vec(family.tasks[:1] * 4000)
    observed = rows.reset(seed=0)[0]
    shown = []
    for now in range(2 * family.horizon):
        if now % family.horizon < 5:
            shown.append(observed[:, 1] - 1)
        observed = rows.step(np.zeros(4000, dtype=int))[0]
    shares = np.bincount(np.concatenate(shown), minlength=4) / 40_000
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=5 * (0.1875 / 40_000) ** 0.5)
    first, second = np.stack(shown[:5]), np.stack(shown[5:])
    assert (first == second).mean() == pytest.approx(0.25, abs=0.02)
    assert (first[:, 1:] == first[:, :-1]).mean() == pytest.approx(0.25, abs=0.02)
    assert (first[1:] == first[:-1]).mean() == pytest.approx(0.25, abs=0.02)


def test_resetting_a_row_leaves_the_symbols_of_its_neighbour_alone():
    family = RecallSpec(num_bits=20, num_filler=0).build()
    alone, disturbed = family.make_vec(family.tasks[:2]), family.make_vec(family.tasks[:2])
    alone.reset(seed=0)
    disturbed.reset(seed=0)
    disturbed.reset(options={"reset_mask": np.array([False, True])})
    pairs = [(alone.step(np.zeros(2, dtype=int))[0], disturbed.step(np.zeros(2, dtype=int))[0]) for _ in range(60)]
    assert all((a[0] == b[0]).all() for a, b in pairs)
    assert any((a[1] != b[1]).any() for a, b in pairs)


def test_an_oracle_is_always_right_and_chance_is_one_over_the_symbols():
    family = RecallSpec(num_bits=8, num_symbols=10).build()
    assert family.optimal_return(family.tasks[0]) == 1.0
    assert family.random_return(family.tasks[0]) == pytest.approx(0.1)
    assert family.horizon == 36


def test_params_in_another_order_are_the_same_task():
    family = RecallSpec(num_bits=11, resample=False).build()
    task = family.tasks[3]
    shuffled = Task(task_id=task.task_id, params=dict(sorted(task.params.items(), key=lambda item: item[0])))
    rows = family.make_vec([task, shuffled])
    observations, _ = rows.reset()
    for _ in range(11):
        assert observations[0].tolist() == observations[1].tolist()
        observations = rows.step(np.zeros(2, dtype=int))[0]
    flipped = 1 - cast("int", task.params["symbol_0"])
    with pytest.raises(UnknownTaskError, match="has other params in this recall"):
        family.make_vec([Task(task_id=task.task_id, params={**task.params, "symbol_0": flipped})])


def test_a_picture_shows_evidence_filler_and_question():
    env = STRINGS.make(STRINGS.task("recall-3x2/101"), render_mode="ansi")
    env.reset()
    assert env.render() == ". . .\n* . S\n. S .\n"
    for _ in range(3):
        env.step(0)
    assert env.render() == ". . .\nS . S\n. S .\n"
    for _ in range(3):
        env.step(0)
    assert env.render() == ". @ .\nS . S\n. S .\n"


def test_a_long_string_keeps_its_observations_in_a_type_that_fits():
    family = RecallSpec(num_bits=200).build()
    rows = family.make_vec(family.tasks[:1])
    assert rows.reset()[0].dtype == np.int64 == rows.observation_space.dtype


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_symbols": 11}, "'num_symbols' must be <= 10: 11"),
        ({"num_filler": -1}, "'num_filler' must be >= 0: -1"),
        ({"num_bits": 0}, "'num_bits' must be >= 1: 0"),
    ],
)
def test_a_quiz_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RecallSpec(**settings)
