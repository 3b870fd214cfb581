"""`histories/merging`."""

import json

import h5py
import numpy as np
import pytest
from cccad_data import DataError, Histories, InlineSpec, NoisyOracleSpec, collect, merge, verify
from cccad_data.families.toys import CorridorSpec

SPLIT = {"seed": 0, "held_out_frac": 0.2}


def gather(out, seed=4, max_tasks=None, split=SPLIT, **settings):
    source = NoisyOracleSpec(num_envs=3, env_steps=100, tasks_per_unit=2).build()
    family = CorridorSpec(**settings).build()
    return collect(family, source, InlineSpec().build(), out=out, split=split, seed=seed, max_tasks=max_tasks)


def test_datasets_of_two_seeds_become_one_with_the_histories_of_both(dataset, tmp_path, corridor):
    other = gather(tmp_path / "other", seed=5, max_tasks=3)
    whole = Histories.open(merge(tmp_path / "whole", [dataset, other]))
    left, right = Histories.open(dataset), Histories.open(other)
    assert whole.task_ids == left.task_ids
    assert [task.num_histories for task in whole] == [6, 6, 6, 3, 3, 3]
    for task, ours, theirs in zip(whole, left, right, strict=False):
        for merged, single in zip(task, [*ours, *theirs], strict=True):
            assert all((array == single.arrays()[name]).all() for name, array in merged.arrays().items())
            assert all(array.dtype == single.arrays()[name].dtype for name, array in merged.arrays().items())
    assert [part["seed"] for part in whole.header["source"]["parts"]] == [4, 5]
    assert verify(tmp_path / "whole", corridor) == []


def test_a_single_dataset_is_published_with_gzip_and_the_same_arrays(dataset, tmp_path):
    out = merge(tmp_path / "published", [dataset])
    ours, theirs = Histories.open(dataset), Histories.open(out)
    assert ours.header == theirs.header
    for task, other in zip(ours, theirs, strict=True):
        assert all((array == other.arrays()[name]).all() for name, array in task.arrays().items())
    with h5py.File(out / "shards" / "unit-0000.h5") as file:
        assert {(one.compression, one.fletcher32) for one in file["tasks/00003"].values()} == {("gzip", True)}


def test_a_task_of_the_same_seed_in_two_datasets_is_named(dataset, tmp_path):
    again = gather(tmp_path / "again", max_tasks=2)
    with pytest.raises(DataError, match=r"task 'corridor-7/goal-\d' of source 'noisy-oracle' and seed 4 is in .*again"):
        merge(tmp_path / "whole", [dataset, again])
    assert not list(tmp_path.glob("whole*"))
    merged = merge(tmp_path / "both", [dataset, gather(tmp_path / "other", seed=5)])
    with pytest.raises(DataError, match="seed 5"):
        merge(tmp_path / "whole", [merged, tmp_path / "other"])


@pytest.mark.parametrize(
    ("changes", "key"), [({"horizon": 9}, "env"), ({"split": {"seed": 1, "held_out_frac": 0.2}}, "split")]
)
def test_datasets_that_do_not_fit_together_are_refused(dataset, tmp_path, changes, key):
    other = gather(tmp_path / "other", seed=5, **changes)
    with pytest.raises(DataError, match=f"cannot be merged with .*: their '{key}' differ"):
        merge(tmp_path / "whole", [dataset, other])


def test_optimal_actions_in_one_dataset_only_are_refused(dataset, tmp_path):
    other = gather(tmp_path / "other", seed=5)
    for shard in (other / "shards").iterdir():
        with h5py.File(shard, "r+") as file:
            for group in file["tasks"].values():
                del group["optimal_actions"]
    with pytest.raises(DataError, match="has 'optimal_actions' in some of the datasets only"):
        merge(tmp_path / "whole", [dataset, other])
    assert not list(tmp_path.glob("whole*"))


def test_what_is_there_already_is_not_overwritten(dataset, tmp_path):
    with pytest.raises(DataError, match="is there already"):
        merge(dataset, [dataset])
    (tmp_path / "empty").mkdir()
    assert merge(tmp_path / "empty", [dataset]) == tmp_path / "empty"


def test_a_merged_manifest_lists_units_of_many_tasks(dataset, tmp_path):
    manifest = json.loads((merge(tmp_path / "whole", [dataset]) / "manifest.json").read_text())
    assert [len(unit["task_ids"]) for unit in manifest["units"]] == [6]
    assert np.all([unit["done"] for unit in manifest["units"]])
