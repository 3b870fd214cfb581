"""`audit/verify`: every fault that is planted into a sound dataset is named with its place."""

import json
import shutil

import h5py
import numpy as np
import pytest
from attrs import evolve
from cccad_data import Histories, HistoryFileError, NoisyOracleSpec, verify, write_dataset
from cccad_data.families.toys import Corridor, CorridorSpec

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


def test_the_own_view_of_an_environment_is_what_is_stored(dataset):
    for task in Histories.open(dataset):
        assert task.num_env_steps == 3 * 96


def test_a_task_that_nothing_was_learned_on_is_a_fault_unless_the_source_does_not_learn(tmp_path, corridor):
    source = NoisyOracleSpec(num_envs=4, env_steps=200).build()
    tasks = source.collect(corridor, corridor.tasks[:1], seed=0)
    (task,) = [evolve(one, **backwards(one)) for one in tasks]
    header = {
        "format": "cccad-history/1", "env": {"kind": "corridor"}, "spaces": corridor.spaces, "horizon": 8, "tasks": [],
        "held_out_task_ids": [one.task_id for one in corridor.split(seed=0, held_out_frac=0.2).held_out],
        "split": {"seed": 0, "held_out_frac": 0.2}, "source": {"kind": "noisy-oracle"}, "seed": 0, "versions": {},
    }  # fmt: skip
    (fault,) = verify(write_dataset(tmp_path / "worse", header, [task]), corridor)
    assert "does not improve: its return is " in fault.message
    assert fault.task_id == task.task_id
    header["source"] = {"kind": "random"}
    assert verify(write_dataset(tmp_path / "random", header, [task]), corridor) == []
    header["source"] = {"kind": "noisy-oracle"}
    assert verify(write_dataset(tmp_path / "better", header, tasks), corridor) == []


def backwards(task):
    """The arrays of *task* with the episodes of all histories, of 8 env steps each, in the opposite order."""
    rows = np.arange(task.num_env_steps).reshape(-1, 8)[::-1].reshape(-1)
    arrays = {name: getattr(task, name)[rows] for name in ("observations", "actions", "rewards", "truncations")}
    return {**arrays, "optimal_actions": None, "final_observations": task.final_observations[::-1]}


class Lottery(Corridor):
    """A corridor whose rewards chance decides: anything from 0 to 1 on the goal, nothing elsewhere."""

    has_random_rewards = True

    def replay(self, task, observations, actions, next_observations, episode_ends, *, rewards):
        sure, *flags = super().replay(task, observations, actions, next_observations, episode_ends)
        return np.clip(rewards, 0, sure), *flags


def test_rewards_that_chance_decides_are_held_against_their_range(dataset):
    family = Lottery(CorridorSpec())

    def change(task):
        task["rewards"][...] *= np.float32(0.5)

    tamper(dataset, change)
    assert verify(dataset, family) == []
    tamper(dataset, lambda task: task["rewards"].__setitem__(120, 3.0))
    (fault,) = verify(dataset, family)
    assert "the reward is 3.0, but the task gives" in fault.message


def test_no_file_with_changed_or_missing_bytes_is_taken_for_sound(dataset, tmp_path):
    right, path = Histories.open(dataset / "shards" / SHARD), tmp_path / "fuzzed.h5"
    good = (dataset / "shards" / SHARD).read_bytes()
    rng = np.random.default_rng(0)
    complaints = []
    for count in range(120):
        content = bytearray(good[: rng.integers(len(good))] if count % 4 == 0 else good)
        for place in rng.integers(0, len(content) or 1, 2) if count % 4 else ():
            content[place] ^= rng.integers(1, 256)
        path.write_bytes(content)
        try:
            left = Histories.open(path)
        except HistoryFileError as error:
            complaints.append(str(error))
            continue
        assert left.header == right.header
        for task, other in zip(left, right, strict=True):
            assert all((array == other.arrays()[name]).all() for name, array in task.arrays().items())
    assert len(complaints) > 80
    assert all(str(path) in complaint and "\n" not in complaint for complaint in complaints)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"units": [{"shard": 3}]}, r"'manifest.units\[0\].shard' must be the path of a file inside the folder: 3"),
        ({"tasks": [{"task_id": 5, "params": {}}]}, r"'manifest.tasks\[0\].task_id' must be a text: 5"),
        ({"tasks": []}, "lists no task"),
        ({"horizon": "8"}, "'manifest.horizon' must be a whole number of at least 1: '8'"),
        ({"source": {}}, "'manifest.source' lacks 'kind'"),
        ({"source": {"kind": "merge", "parts": [3]}}, r"'manifest.source.parts\[0\]' must be a table: 3"),
        ({"format": "cccad-history/2"}, "'cccad-history/2'; .* 'cccad-history/1' only; a newer one wrote it"),
    ],
)
def test_a_manifest_that_is_not_one_is_refused_with_one_sentence(dataset, change, words):
    manifest = json.loads((dataset / "manifest.json").read_text())
    (dataset / "manifest.json").write_text(json.dumps({**manifest, **change}))
    for use in (verify, Histories.open):
        with pytest.raises(HistoryFileError, match=words):
            use(dataset)
