"""`histories/shards` and `histories/dataset`: what is written is read."""

import json
import shutil

import h5py
import numpy as np
import pytest
from cccad_data import Histories, HistoryFileError, NoisyOracleSpec
from cccad_data.families.toys import CorridorSpec
from cccad_data.histories.shards import FORMAT, write_shard

HEADER = {"format": FORMAT, "env": {"kind": "corridor"}, "spaces": {}, "horizon": 8, "held_out_task_ids": []}
HEADER |= {"split": {}, "versions": {}, "seed": 0, "source": {"kind": "noisy-oracle"}}
SPACES = {"observation": {"kind": "multi-discrete", "sizes": [300]}, "action": {"kind": "discrete", "n": 3}}
HEADER |= {"spaces": SPACES}


def shard_of(dataset):
    return dataset / "shards" / "unit-0001.h5"


def test_a_dataset_reads_back_as_its_shards_do(dataset):
    whole = Histories.open(dataset)
    parts = [Histories.open(path) for path in sorted((dataset / "shards").iterdir())]
    assert whole.task_ids == tuple(task_id for part in parts for task_id in part.task_ids)
    for task, alone in zip(whole, (task for part in parts for task in part), strict=True):
        assert all((array == alone.arrays()[name]).all() for name, array in task.arrays().items())


def test_a_shard_alone_says_all_about_its_histories(dataset, corridor):
    header = Histories.open(shard_of(dataset)).header
    assert header["env"] == {"kind": "corridor", "size": 7, "horizon": 8, "ends_on_goal": False, "breaks_on": ""}
    assert header["source"]["kind"] == "noisy-oracle"
    assert header["source"]["env_steps"] == 100
    assert header["spaces"] == corridor.spaces
    assert header["seed"] == 4
    assert header["split"] == {"seed": 0, "held_out_frac": 0.2}
    assert header["held_out_task_ids"] == [task.task_id for task in corridor.split(seed=0, held_out_frac=0.2).held_out]
    assert [task["split"] for task in header["tasks"]] == ["train", "train"]


def test_no_held_out_task_is_collected(dataset, corridor):
    histories = Histories.open(dataset)
    assert not set(histories.task_ids) & set(histories.held_out_task_ids)
    assert set(histories.task_ids) | set(histories.held_out_task_ids) == {task.task_id for task in corridor.tasks}


def test_arrays_have_the_smallest_sufficient_dtypes_and_checksums(dataset):
    with h5py.File(shard_of(dataset)) as file:
        group = file["tasks/00000"]
        dtypes = {name: group[name].dtype for name in group}
        assert all(group[name].fletcher32 and group[name].compression == "lzf" for name in group)
    assert dtypes == {
        "observations": np.uint8,
        "final_observations": np.uint8,
        "actions": np.uint8,
        "optimal_actions": np.uint8,
        "rewards": np.float32,
        "terminations": bool,
        "truncations": bool,
        "episode_ends": np.int64,
        "history_ends": np.int64,
    }


def test_what_lzf_would_hardly_shrink_is_stored_as_it_is_and_reads_back(tmp_path):
    family = CorridorSpec(size=300).build()
    tasks = NoisyOracleSpec(num_envs=20, env_steps=4000).build().collect(family, family.tasks[:1], seed=0)
    for compression in ("lzf", "gzip"):
        header = {**HEADER, "tasks": [{"task_id": tasks[0].task_id, "params": {}}]}
        write_shard(tmp_path / "one.h5", header, tasks, compression)
        with h5py.File(tmp_path / "one.h5") as file:
            packed = {name: dataset.compression for name, dataset in file["tasks/00000"].items()}
        assert packed["actions"] == (None if compression == "lzf" else "gzip")
        assert packed["rewards"] == packed["truncations"] == packed["episode_ends"] == compression
        (read,) = Histories.open(tmp_path / "one.h5").tasks
        assert all((array == read.arrays()[name]).all() for name, array in tasks[0].arrays().items())


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def set_reward_to_nan(file):
    file["tasks/00001/rewards"][7] = np.nan


def drop(name):
    def change(file):
        del file[name]

    return change


def new_format(file):
    file.attrs["format"] = "cccad-history/2"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (new_format, "the format is 'cccad-history/2'; this version of cccad-data reads 'cccad-history/1' only"),
        (drop("tasks/00001"), r"task 'corridor-7/goal-\d' is in the header, but group 'tasks/00001' does not hold it"),
        (drop("tasks/00000/actions"), r"task 'corridor-7/goal-\d' lacks 'actions'"),
        (drop("header"), "the header cannot be read"),
        (set_reward_to_nan, r"the reward of task 'corridor-7/goal-\d' at env step 7 is not a finite number"),
    ],
)
def test_a_file_that_is_not_sound_is_refused_with_one_sentence(dataset, change, words):
    edit(shard_of(dataset), change)
    with pytest.raises(HistoryFileError, match=words) as error:
        Histories.open(shard_of(dataset))
    assert "unit-0001.h5" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_cut_off_is_refused(dataset):
    path = shard_of(dataset)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(HistoryFileError, match="not a whole HDF5 file"):
        Histories.open(path)


def test_a_damaged_array_fails_its_checksum(dataset):
    path = shard_of(dataset)
    with h5py.File(path) as file:
        chunk = file["tasks/00001/rewards"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(HistoryFileError, match="is damaged"):
        Histories.open(path)


@pytest.mark.parametrize(
    ("name", "words"), [("nowhere", "there is no such history file"), ("folder", "this is no dataset folder")]
)
def test_a_path_without_histories_is_refused(tmp_path, name, words):
    (tmp_path / "folder").mkdir()
    with pytest.raises(HistoryFileError, match=words):
        Histories.open(tmp_path / name)


def test_a_dataset_of_which_a_unit_is_missing_is_refused(dataset):
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["units"][2]["done"] = False
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(HistoryFileError, match="only 2 of 3 units are collected"):
        Histories.open(dataset)


def test_a_shard_of_another_collection_is_refused(dataset):
    header = json.loads((dataset / "manifest.json").read_text())
    (dataset / "manifest.json").write_text(json.dumps({**header, "seed": 5}))
    with pytest.raises(HistoryFileError, match=r"'seed' is not what .*manifest\.json says"):
        Histories.open(dataset)


def test_a_dataset_can_be_moved(dataset, tmp_path):
    before = Histories.open(dataset).num_env_steps
    moved = shutil.move(dataset, tmp_path / "elsewhere")
    assert Histories.open(moved).num_env_steps == before
