import json
import shutil

import h5py
import numpy as np
import pytest
from cccad_data import Histories, HistoryFileError, verify

SHARD = "unit-0001.h5"


def tamper(dataset, change, shard=SHARD):
    with h5py.File(dataset / "shards" / shard, "r+") as file:
        change(file["tasks/00001"])
    return dataset / "shards" / shard


def test_a_sound_dataset_has_no_faults(dataset, corridor):
    assert verify(dataset, corridor) == []
    assert verify(dataset / "shards" / SHARD, corridor) == []
    assert verify(dataset) == []


@pytest.mark.parametrize(
    ("name", "place", "value", "words"),
    [
        ("rewards", 120, 5.0, "the reward is 5.0, but the task gives"),
        ("truncations", 120, True, "an episode is flagged as over, but goes on"),
        ("terminations", 120, True, "the termination is True, but the task gives False"),
        ("actions", 120, 3, "'actions' is outside its space {'kind': 'discrete', 'n': 3}"),
        ("observations", 120, 7, "'observations' is outside its space {'kind': 'multi-discrete', 'sizes': [7]}"),
    ],
)
def test_a_changed_number_is_found_with_its_place(dataset, corridor, name, place, value, words):
    def change(task):
        task[name][place] = value

    path = tamper(dataset, change)
    faults = [fault for fault in verify(dataset, corridor) if words in fault.message]
    assert len(faults) == 1
    assert (faults[0].file, faults[0].history, faults[0].env_step) == (str(path), 1, 120 - 96)
    assert "history 1, env step 24" in str(faults[0])


def test_an_observation_that_the_action_does_not_lead_to_is_found(dataset, corridor):
    def change(task):
        place = task["observations"][20]
        task["observations"][20] = (place + 3) % 7

    tamper(dataset, change)
    messages = [str(fault) for fault in verify(dataset, corridor)]
    assert any("env step 19: the next observation is" in message for message in messages)


def test_a_reset_observation_in_place_of_the_true_last_one_is_found(dataset, corridor):
    def change(task):
        task["final_observations"][:] = 3

    tamper(dataset, change)
    assert any("final observation of an episode is [3]" in str(fault) for fault in verify(dataset, corridor))


def test_many_faults_of_one_kind_are_counted_not_listed(dataset, corridor):
    def change(task):
        task["rewards"][:] = 9.0

    tamper(dataset, change)
    faults = verify(dataset, corridor)
    assert len(faults) == 10
    assert "and 278 more in this task" in faults[-1].message


def test_a_history_that_is_there_twice_is_found(dataset):
    def change(task):
        for name in ("observations", "actions"):
            task[name][96:192] = task[name][:96]

    tamper(dataset, change)
    assert any("is a copy of" in fault.message and fault.history == 1 for fault in verify(dataset))


def test_a_held_out_task_in_the_data_is_found(dataset, corridor):
    manifest = json.loads((dataset / "manifest.json").read_text())
    leaked = manifest["tasks"][2]["task_id"]
    manifest["held_out_task_ids"].append(leaked)
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    faults = verify(dataset, corridor)
    assert any(fault.task_id == leaked and "held-out task" in fault.message for fault in faults)
    assert any("not what the split gives" in fault.message for fault in faults)


def test_a_shard_that_is_there_twice_is_found(dataset):
    shutil.copy(dataset / "shards" / SHARD, dataset / "shards" / "unit-0002.h5")
    messages = [str(fault) for fault in verify(dataset)]
    assert any("is there twice" in message for message in messages)
    assert any("is listed, but no shard has it whole" in message for message in messages)


def test_a_damaged_shard_does_not_hide_the_others_faults(dataset, corridor):
    def change(task):
        task["rewards"][3] = 5.0

    tamper(dataset, change, shard="unit-0002.h5")
    (dataset / "shards" / SHARD).write_bytes(b"nothing of use")
    messages = [str(fault) for fault in verify(dataset, corridor)]
    assert any(SHARD in message and "not a whole HDF5 file" in message for message in messages)
    assert any("the reward is 5.0" in message for message in messages)


def test_a_wrong_dtype_is_found(dataset):
    def change(task):
        wide = task["actions"][...].astype(np.int64)
        del task["actions"]
        task["actions"] = wide

    tamper(dataset, change)
    assert any("'actions' has dtype int64, not uint8" in fault.message for fault in verify(dataset))


def test_an_episode_longer_than_the_horizon_is_found(dataset):
    def change(task):
        ends = np.delete(task["episode_ends"][...], 0)
        final = np.delete(task["final_observations"][...], 0, axis=0)
        del task["episode_ends"], task["final_observations"]
        task["episode_ends"], task["final_observations"] = ends, final

    tamper(dataset, change)
    assert any("longer than the horizon of 8" in fault.message for fault in verify(dataset))


def test_what_cannot_be_used_at_all_is_an_error_not_a_fault(tmp_path):
    with pytest.raises(HistoryFileError):
        verify(tmp_path)


def test_the_worlds_own_view_is_what_is_stored(dataset):
    for task in Histories.open(dataset):
        assert task.num_env_steps == 3 * 96
