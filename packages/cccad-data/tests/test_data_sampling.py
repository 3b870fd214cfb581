"""`sampling/sampler`."""

import time

import numpy as np
import pytest
from cccad_data import Histories, NoisyOracleSpec, SamplerSpec, SamplingError
from cccad_data.families.toys import CorridorSpec
from cccad_data.sampling.sampler import Prefetcher
from hypothesis import given, settings
from hypothesis import strategies as st


def make(env_steps=100, num_envs=3, ends_on_goal=True, size=5):
    family = CorridorSpec(size=size, ends_on_goal=ends_on_goal).build()
    tasks = NoisyOracleSpec(num_envs=num_envs, env_steps=env_steps).build().collect(family, family.tasks, seed=0)
    return Histories(header={}, tasks=tuple(tasks))


HISTORIES = make()


@given(
    seed=st.integers(0, 2**63),
    index=st.integers(0, 2**40),
    length=st.integers(1, 130),
    size=st.integers(1, 9),
    starts=st.sampled_from(["uniform", "birth"]),
    thinning=st.integers(1, 4),
)
@settings(max_examples=150, deadline=None)
def test_every_row_is_a_stretch_of_one_history(seed, index, length, size, starts, thinning):
    sampler = SamplerSpec(starts=starts, subsample_episodes=thinning).build(HISTORIES, seed)
    batch = sampler.batch(index, length, size)
    tasks = [task.every_kth_episode(thinning) for task in HISTORIES]
    for row in range(size):
        lives = list(tasks[batch["task_index"][row]])
        start, count = batch["start"][row], int(batch["mask"][row].sum())
        assert batch["mask"][row, :count].all()
        fits = [
            life for life in lives if start + count <= life.num_env_steps and is_stretch(life, batch, row, start, count)
        ]
        assert fits, "the row is no stretch of any history of its task"
        if count < length:
            assert start == 0
            assert any(life.num_env_steps == count for life in fits)
        if starts == "birth":
            assert start == 0


def is_stretch(life, batch, row, start, count):
    part = slice(start, start + count)
    columns = {
        "observations": life.observations,
        "next_observations": life.next_observations(),
        "actions": life.actions,
        "optimal_actions": life.optimal_actions,
        "rewards": life.rewards,
        "terminations": life.terminations,
        "truncations": life.truncations,
    }
    return all((batch[name][row, :count] == column[part]).all() for name, column in columns.items())


@given(seed=st.integers(0, 99), index=st.integers(0, 99), first=st.integers(0, 8), count=st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_a_slice_of_rows_is_that_part_of_the_whole_batch(seed, index, first, count):
    sampler = SamplerSpec().build(HISTORIES, seed)
    whole, part = sampler.batch(index, 20, 8), sampler.batch(index, 20, 8, rows=slice(first, first + count))
    assert all((whole[name][first : first + count] == part[name]).all() for name in whole)


def test_a_batch_is_a_pure_function_of_its_arguments():
    one, other = SamplerSpec().build(HISTORIES, 3), SamplerSpec().build(HISTORIES, 3)
    for index in (5, 0, 7):
        one.batch(index, 30, 4)
    left, right = one.batch(9, 10, 6), other.batch(9, 10, 6)
    assert all((left[name] == right[name]).all() for name in left)


def test_seeds_and_indices_give_different_batches():
    batches = [SamplerSpec().build(HISTORIES, seed).batch(index, 10, 50) for seed, index in ((0, 0), (0, 1), (1, 0))]
    assert len({batch["start"].tobytes() for batch in batches}) == 3


def test_tasks_are_equally_likely_however_many_histories_they_have():
    many, few = make(num_envs=20).tasks[0], make(num_envs=1).tasks[1]
    batch = SamplerSpec().build(Histories(header={}, tasks=(many, few)), 0).batch(0, 5, 4000)
    assert batch["task_index"].mean() == pytest.approx(0.5, abs=0.03)


def test_a_task_is_drawn_by_its_weight():
    ids = HISTORIES.task_ids
    sampler = SamplerSpec(weights={ids[0]: 3.0, ids[2]: 0.0}).build(HISTORIES, 0)
    counts = np.bincount(sampler.batch(0, 5, 6000)["task_index"], minlength=5)
    assert counts[2] == 0
    assert counts / 1000 == pytest.approx([3, 1, 0, 1, 1], abs=0.15)


def test_equal_weights_change_nothing():
    same = SamplerSpec(weights=dict.fromkeys(HISTORIES.task_ids, 1.0)).build(HISTORIES, 3).batch(5, 20, 40)
    assert all(
        (same[name] == array).all() for name, array in SamplerSpec().build(HISTORIES, 3).batch(5, 20, 40).items()
    )


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"corridor-5/goal-9": 1.0}, "names 'corridor-5/goal-9', which is none of these tasks; did you mean"),
        ({"corridor-5/goal-1": -1.0}, "must be >= 0, finite and not all 0"),
        ({f"corridor-5/goal-{goal}": 0.0 for goal in range(5)}, "must be >= 0, finite and not all 0"),
    ],
)
def test_impossible_weights_are_refused(weights, words):
    with pytest.raises(SamplingError, match=words):
        SamplerSpec(weights=weights).build(HISTORIES, 0)


@pytest.mark.parametrize("length", [7, 130])
def test_targets_are_counted_without_reading(length):
    sampler = SamplerSpec().build(HISTORIES, 0)
    assert sampler.num_targets(4, length, 9) == sampler.batch(4, length, 9)["targets"].sum()


def test_ranks_never_draw_the_same_rows():
    sampler = SamplerSpec().build(make(env_steps=2000, num_envs=20), 0)
    ranks = [sampler.batch(3, 50, 40, rows=slice(10 * rank, 10 * rank + 10)) for rank in range(4)]
    drawn = [{(part["task_index"][row], part["observations"][row].tobytes()) for row in range(10)} for part in ranks]
    assert [len(rows) for rows in drawn] == [10] * 4
    assert len(set.union(*drawn)) == 40


def test_what_is_made_ahead_is_what_would_have_been_made():
    numbers = []
    ahead = Prefetcher(lambda number: numbers.append(number) or number**2)
    assert [ahead(number) for number in (0, 1, 2, 7, 8, 3)] == [0, 1, 4, 49, 64, 9]
    assert set(numbers) >= {0, 1, 2, 3, 7, 8}


def test_a_mistake_that_is_made_ahead_shows_when_it_is_asked_for():
    ahead = Prefetcher(lambda number: 1 // (2 - number))
    assert ahead(1) == 1
    with pytest.raises(ZeroDivisionError):
        ahead(2)
    assert ahead(1) == 1


def test_starts_are_uniform_over_all_places_that_leave_room():
    histories = Histories(header={}, tasks=make(env_steps=40, ends_on_goal=False, num_envs=1).tasks[:1])
    starts = SamplerSpec().build(histories, 0).batch(0, 31, 20_000)["start"]
    counts = np.bincount(starts, minlength=10)
    assert len(counts) == 10
    assert np.abs(counts / 2000 - 1).max() < 0.12


def test_only_what_lies_beyond_a_history_is_masked():
    histories = make(env_steps=40, ends_on_goal=False)
    sampler = SamplerSpec().build(histories, 0)
    assert sampler.batch(0, 40, 9)["mask"].all()
    assert sampler.batch(0, 44, 9)["mask"].sum(axis=1).tolist() == [40] * 9
    assert sampler.longest_history_env_steps == 40
    assert sampler.num_env_steps == 5 * 3 * 40


@pytest.mark.parametrize("arguments", [(-1, 1, 1), (0, 0, 1), (0, 1, 0)])
def test_an_impossible_batch_is_refused(arguments):
    with pytest.raises(SamplingError, match="a batch needs index >= 0, length >= 1 and size >= 1"):
        SamplerSpec().build(HISTORIES, 0).batch(*arguments)


def test_no_histories_are_refused():
    with pytest.raises(SamplingError, match="no histories"):
        SamplerSpec().build(Histories(header={}, tasks=()), 0)


def test_a_million_transitions_are_sampled_within_a_second():
    sampler = SamplerSpec().build(make(env_steps=2000, num_envs=20, size=7), 0)
    sampler.batch(0, 1000, 64)
    before = time.process_time()
    for index in range(16):
        sampler.batch(index, 1000, 64)
    assert time.process_time() - before < 1.0
