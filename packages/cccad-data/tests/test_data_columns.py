"""`histories/columns` and `histories/pieces`: lazy arrays are the arrays."""

import multiprocessing
import os
import pickle

import numpy as np
import pytest
from cccad_data import (
    Histories,
    HistoryFileError,
    InlineSpec,
    NoisyOracleSpec,
    SamplerSpec,
    collect,
)
from cccad_data.families.toys import CorridorSpec
from cccad_data.histories import merging, pieces, shards
from cccad_data.histories.columns import Column, joined
from cccad_data.histories.merging import merge
from cccad_data.histories.shards import write_shard
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module", params=["lzf", "gzip", "none"])
def both(request, tmp_path_factory):
    """The same histories twice: in memory, and on the disk."""
    folder = tmp_path_factory.mktemp("columns")
    source = NoisyOracleSpec(num_envs=3, env_steps=200, tasks_per_unit=2).build()
    split = {"seed": 0, "held_out_frac": 0.2}
    family = CorridorSpec(ends_on_goal=True).build()
    out = collect(family, source, InlineSpec().build(), out=folder / "set", split=split, seed=4)
    held = Histories.open(out, lazy=False)
    write_shard(folder / "one.h5", held.header, held.tasks, request.param)
    return Histories.open(folder / "one.h5", lazy=False), Histories.open(folder / "one.h5", lazy=True)


def test_lazy_histories_are_the_same_and_stay_on_the_disk(both):
    held, lazy = both
    for ours, theirs in zip(held, lazy, strict=True):
        assert all(isinstance(array, Column) for name, array in theirs.arrays().items() if name != "history_ends")
        assert ours.arrays().keys() == theirs.arrays().keys()
        for name, array in ours.arrays().items():
            other = theirs.arrays()[name]
            assert (other.shape, other.dtype) == (array.shape, array.dtype)
            assert (np.asarray(other) == array).all()
        assert (np.asarray(theirs.next_observations()) == ours.next_observations()).all()
        assert (theirs.episode_returns() == ours.episode_returns()).all()
        for mine, alone in zip(ours, theirs, strict=True):
            assert all((array == alone.arrays()[name]).all() for name, array in mine.arrays().items())


@given(data=st.data(), k=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_any_places_are_those_of_the_array(both, data, k):
    held, lazy = ([task.every_kth_episode(k) for task in histories] for histories in both)
    for pick in (
        lambda task: task.observations, lambda task: task.rewards, lambda task: task.next_observations(),
        lambda task: task.truncations, lambda task: task.optimal_actions,
    ):  # fmt: skip
        array, column = (joined([pick(task) for task in tasks]) for tasks in (held, lazy))
        assert isinstance(array, np.ndarray)
        assert isinstance(column, Column)
        starts = data.draw(st.lists(st.integers(0, len(array) - 1), min_size=1, max_size=4))
        places = np.minimum(np.array(starts)[:, None] + np.arange(30), len(array) - 1)
        assert (column.take(places, axis=0) == array.take(places, axis=0)).all()
        assert (column[starts[0] : starts[0] + 7] == array[starts[0] : starts[0] + 7]).all()
        assert (column[starts[0]] == array[starts[0]]).all()
        assert (column[-1] == array[-1]).all()


def _sum_of(column):
    return float(np.asarray(column).sum())


def test_a_column_can_be_sent_to_another_process(both):
    column = both[1].tasks[0].rewards
    assert _sum_of(pickle.loads(pickle.dumps(column))) == _sum_of(column)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_sum_of, (column,)) == _sum_of(column)


def test_runs_that_cross_the_pieces_of_a_file_and_the_files_are_whole(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_PLAIN_CHUNK_BYTES", 100)
    copy = merge(tmp_path / "copy", [dataset], compression="none")
    monkeypatch.setattr(merging, "_UNIT_TASKS", 1)
    copy = merge(tmp_path / "many", [copy], compression="none")
    held, lazy = Histories.open(dataset, lazy=False), Histories.open(copy, lazy=True)
    assert len(list((copy / "shards").iterdir())) == len(held)
    assert len(lazy.tasks[0].rewards.pieces) > 3
    for pick in (lambda task: task.rewards, lambda task: task.next_observations()):
        array, column = (joined([pick(task) for task in tasks]) for tasks in (held, lazy))
        assert (np.asarray(column) == array).all()
        assert (column[90:700] == array[90:700]).all()
        assert (column.take(np.array([[5, 6, 6], [1200, 30, 31]]), axis=0) == array[[[5, 6, 6], [1200, 30, 31]]]).all()


@pytest.mark.parametrize("thinning", [1, 2])
def test_drawing_from_compressed_histories_says_how_to_make_it_fast(both, thinning, recwarn):
    lazy = both[1]
    SamplerSpec(subsample_episodes=thinning).build(lazy, 0)
    is_packed = any(task.rewards.packed_in for task in lazy)
    messages = [str(warning.message) for warning in recwarn]
    assert [("merge NEW OLD --compression none" in text) for text in messages] == [True] * is_packed


def test_a_plain_file_that_is_cut_off_is_an_error(dataset, tmp_path):
    path, column = lazy_copy(dataset, tmp_path)
    column.extents.bases[0] = column.pieces[0].offset = path.stat().st_size - 8
    with pytest.raises(HistoryFileError, match="is damaged"):
        column[:30]


def lazy_copy(dataset, tmp_path):
    held = Histories.open(dataset)
    write_shard(tmp_path / "one.h5", held.header, held.tasks, "none")
    return tmp_path / "one.h5", Histories.open(tmp_path / "one.h5", lazy=True).tasks[0].rewards


def test_a_file_that_changes_under_its_readers_is_an_error(dataset, tmp_path):
    path, column = lazy_copy(dataset, tmp_path)
    pieces.mapped.cache_clear()  # as when many other files have been read meanwhile
    os.utime(path, ns=(1, 1))
    with pytest.raises(HistoryFileError, match="has changed since these histories were opened"):
        column[:3]
    path.unlink()
    with pytest.raises(HistoryFileError, match="can no longer be read"):
        column[:3]


def test_a_reward_that_is_no_number_is_found_when_it_is_read(dataset, tmp_path):
    path, column = lazy_copy(dataset, tmp_path)
    with path.open("r+b") as file:
        file.seek(column.pieces[0].offset + 4 * 7)
        file.write(np.float32(np.nan).tobytes())
    again = Histories.open(path, lazy=True).tasks[0].rewards
    assert len(again[:7]) == 7
    with pytest.raises(HistoryFileError, match="is not a finite number"):
        again[5:9]


@pytest.mark.parametrize("thinning", [1, 3])
def test_a_sampler_draws_the_same_batches_from_the_disk_as_from_memory(both, thinning):
    ours, theirs = (SamplerSpec(subsample_episodes=thinning).build(histories, 5) for histories in both)
    for index in range(3):
        one, other = ours.batch(index, 40, 6), theirs.batch(index, 40, 6)
        assert all((one[name] == other[name]).all() for name in one)


def test_stretches_longer_than_a_history_end_with_it_on_the_disk_as_in_memory(both):
    for histories in both:
        batch = SamplerSpec().build(histories, 5).batch(0, 230, 12)
        ends = batch["mask"].sum(axis=1)
        assert (ends < 230).all()
        for name in ("observations", "actions", "rewards", "terminations", "truncations", "next_observations"):
            for row, end in zip(batch[name], ends, strict=True):
                assert (row[end:] == row[end - 1]).all(), name
    ours, theirs = (SamplerSpec().build(histories, 5).batch(0, 230, 12) for histories in both)
    assert all((ours[name] == theirs[name]).all() for name in ours)
