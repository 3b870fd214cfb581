"""`interchange`: what is exported comes back, and what others wrote is read."""

import json
import os
import random

import h5py
import numpy as np
import pytest
from cccad_data import DataError, Histories, NoisyOracleSpec, verify
from cccad_data.families.toys import CorridorSpec
from cccad_data.interchange import Wishes, export_histories, import_histories

CORRIDOR = {"kind": "corridor", "size": 7}
SPLIT = {"seed": 0, "held_out_frac": 0.2}
WISHES = Wishes(env=CORRIDOR, split=SPLIT)


@pytest.mark.parametrize(("form", "name"), [("npz", "set.npz"), ("minari", "corridor-v0")])
def test_what_is_exported_comes_back_bit_by_bit(dataset, tmp_path, form, name, assert_same):
    if form == "minari":
        pytest.importorskip("minari")
    export_histories(dataset, tmp_path / name, form=form)
    assert import_histories(tmp_path / name, tmp_path / "back", form=form) == []
    assert_same(dataset, tmp_path / "back")


def test_an_archive_is_read_by_numpy_alone(dataset, tmp_path):
    export_histories(dataset, tmp_path / "set.npz", form="npz")
    first = Histories.open(dataset).tasks[0]
    with np.load(tmp_path / "set.npz", allow_pickle=False) as archive:
        assert json.loads(bytes(archive["header"]))["tasks"][0]["task_id"] == first.task_id
        assert (archive["00000/rewards"] == first.rewards).all()


def test_minari_itself_reads_our_export(dataset, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    export_histories(dataset, tmp_path / "corridor-v0", form="minari")
    assert "MINARI_DATASETS_PATH" not in os.environ
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    theirs = minari.load_dataset("corridor-v0")
    ours = Histories.open(dataset)
    assert theirs.total_steps == ours.num_env_steps
    assert theirs.total_episodes == sum(task.num_episodes for task in ours)
    task = ours.tasks[0]
    episode = theirs[1]
    assert (episode.observations == np.append(task.observations[8:16], task.final_observations[1:2], axis=0)).all()
    assert (episode.rewards == task.rewards[8:16]).all()
    assert episode.truncations.tolist() == [False] * 7 + [True]
    assert theirs.observation_space.contains(episode.observations[0])
    assert theirs.action_space.contains(episode.actions[0])


def test_a_minari_dataset_of_others_becomes_one_history(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    from gymnasium import spaces

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    episodes = [
        minari.data_collector.EpisodeBuffer(
            observations=rng.normal(size=(length + 1, 2, 2)), actions=rng.normal(size=(length, 3)).clip(-1, 1),
            rewards=rng.normal(size=length), terminations=np.arange(length) == length - 1,
            truncations=np.zeros(length, bool),
        )
        for length in (5, 9, 4)
    ]  # fmt: skip
    minari.create_dataset_from_buffers(
        "walk/other-v3", episodes, jpeg_encoding=False,
        observation_space=spaces.Box(-np.inf, np.inf, (2, 2)), action_space=spaces.Box(-1.0, 1.0, (3,)),
    )  # fmt: skip
    import_histories(tmp_path / "walk" / "other-v3", tmp_path / "out", form="minari")
    (task,) = Histories.open(tmp_path / "out")
    assert task.task_id == "walk/other-v3"
    assert task.episode_ends.tolist() == [5, 14, 18]
    assert task.history_ends.tolist() == [18]
    assert np.allclose(task.final_observations[1], episodes[1].observations[-1].reshape(-1))
    assert verify(tmp_path / "out") == []


def legacy_file(path, order, *, env_steps=100, silent=()):
    """Three streams per task as the earlier code wrote them: no attributes, and next states that are wrong at ends."""
    family = CorridorSpec(size=7).build()
    tasks = NoisyOracleSpec(num_envs=3, env_steps=env_steps).build().collect(family, family.tasks, seed=1)
    with h5py.File(path, "w") as file:
        for index, place in enumerate(order):
            task = tasks[place]
            columns = {
                "states": task.observations.astype(np.int32),
                "actions": task.actions.astype(np.int64),
                "rewards": task.rewards.astype(np.int32) * (place not in silent),
                "next_states": np.roll(task.observations, -1, axis=0).astype(np.int32),
                "dones": task.truncations,
            }
            columns["next_states"][task.history_ends - 1] = 3
            for name, column in columns.items():
                streams = np.stack(np.split(column, task.history_ends[:-1]))
                file.create_dataset(f"{index}/{name}", data=np.swapaxes(streams, 0, 1))
    return tasks


@pytest.mark.usefixtures("corridor_installed")
def test_the_goals_of_the_earlier_code_are_inferred_and_its_last_states_rebuilt(tmp_path, corridor):
    order = [4, 0, 6, 2, 5, 1, 3]
    tasks = legacy_file(tmp_path / "old.hdf5", order)
    notes = import_histories(tmp_path / "old.hdf5", tmp_path / "out", form="legacy", wishes=WISHES)
    assert verify(tmp_path / "out", corridor) == []
    held_out = corridor.split(**SPLIT).held_out[0].task_id
    histories = Histories.open(tmp_path / "out")
    expected = [tasks[place] for place in order if tasks[place].task_id != held_out]
    assert histories.task_ids == tuple(task.task_id for task in expected)
    for task, right in zip(histories, expected, strict=True):
        for name in ("observations", "actions", "rewards", "truncations", "final_observations", "history_ends"):
            assert (getattr(task, name) == getattr(right, name)).all()
    assert [note for note in notes if "is held out by the split" in note and held_out in note]


@pytest.mark.usefixtures("corridor_installed")
def test_leaks_between_the_two_lists_of_the_earlier_code_are_reported(tmp_path):
    legacy_file(tmp_path / "old.hdf5", [0, 1, 2, 3, 4, 5, 6])  # in canonical order: train and test are what they say
    settings = {"env_split_seed": 0, "train_env_ratio": 0.7}
    wishes = Wishes(env=CORRIDOR, split=SPLIT, settings=settings)
    notes = import_histories(tmp_path / "old.hdf5", tmp_path / "sound", form="legacy", wishes=wishes)
    assert "trains on 0 of the 2 tasks that it evaluates" in notes[-1]
    order = list(range(7))
    random.Random(0).shuffle(order)  # as it collected: group i holds the i-th of the shuffled goals
    legacy_file(tmp_path / "old2.hdf5", order)
    leaks = [f"corridor-7/goal-{order[group]}" for group in (5, 6) if group in order[:5]]
    notes = import_histories(tmp_path / "old2.hdf5", tmp_path / "leaky", form="legacy", wishes=wishes)
    assert f"trains on {len(leaks)} of the 2 tasks that it evaluates: {', '.join(leaks)}" in notes[-1]


@pytest.mark.usefixtures("corridor_installed")
def test_a_group_whose_goal_cannot_be_inferred_is_named_and_never_guessed(tmp_path):
    legacy_file(tmp_path / "old.hdf5", [0, 1, 2, 3, 4, 5], silent=[2])
    with h5py.File(tmp_path / "old.hdf5", "r+") as file:
        file["4/rewards"][50] = 1 - file["4/rewards"][50]
    notes = import_histories(tmp_path / "old.hdf5", tmp_path / "out", form="legacy", wishes=WISHES)
    assert any("group '2' is left out: it never earned a reward" in note for note in notes)
    assert any("group '4' is left out: no task of corridor gives its rewards" in note for note in notes)
    assert not {"corridor-7/goal-2", "corridor-7/goal-4"} & set(Histories.open(tmp_path / "out").task_ids)


@pytest.mark.usefixtures("corridor_installed")
def test_two_groups_of_one_goal_and_files_of_another_kind_are_refused(tmp_path):
    legacy_file(tmp_path / "old.hdf5", [0, 1, 1])
    with pytest.raises(DataError, match="groups '1' and '2' are both 'corridor-7/goal-1'"):
        import_histories(tmp_path / "old.hdf5", tmp_path / "out", form="legacy", wishes=WISHES)
    assert not (tmp_path / "out").exists()
    with h5py.File(tmp_path / "old.hdf5", "r+") as file:
        del file["1/dones"]
    with pytest.raises(DataError, match="group '1' lacks 'dones'"):
        import_histories(tmp_path / "old.hdf5", tmp_path / "out", form="legacy", wishes=WISHES)


def test_histories_of_xland_are_told_from_their_flags(tmp_path):
    rng = np.random.default_rng(0)
    states = rng.integers(0, 200, (2, 30, 3, 3), np.uint8)
    dones, rewards = np.zeros((2, 30), bool), np.zeros((2, 30), np.float16)
    dones[0, [4, 9, 24]] = dones[1, [19, 29]] = True
    rewards[0, [9, 24]] = 0.5
    with h5py.File(tmp_path / "xland.hdf5", "w") as file:
        group = file.create_group("0")
        group.attrs.update({"ruleset-id": 17, "benchmark-id": "trivial-1m", "env-id": "XLand-MiniGrid-R1-9x9"})
        for name, array in {"states": states, "dones": dones, "rewards": rewards}.items():
            group[name] = array
        group["actions"] = group["expert_actions"] = rng.integers(0, 6, (2, 30), np.uint8)
    notes = import_histories(tmp_path / "xland.hdf5", tmp_path / "out", form="xland")
    (task,) = Histories.open(tmp_path / "out")
    assert task.task_id == "XLand-MiniGrid-R1-9x9/trivial-1m/ruleset-17"
    assert task.episode_ends.tolist() == [5, 10, 25, 45, 55]
    assert task.history_ends.tolist() == [25, 55]
    assert task.terminations.nonzero()[0].tolist() == [9, 24]
    assert task.truncations.nonzero()[0].tolist() == [4, 44, 54]
    assert (task.observations[:25] == states[0, :25].reshape(25, 9)).all()
    assert task.optimal_actions is not None
    assert any("5 env steps of unfinished episodes" in note for note in notes)
    assert any("no true last observations" in note for note in notes)
    assert verify(tmp_path / "out") == []


def flat_file(path, **changes):
    rng = np.random.default_rng(1)
    walk = rng.normal(size=(21, 3)).astype(np.float32)
    arrays = {
        "observations": walk[:-1], "next_observations": walk[1:], "actions": rng.normal(size=(20, 2)),
        "rewards": rng.normal(size=20), "terminals": np.arange(20) == 6, "timeouts": np.isin(np.arange(20), [11, 16]),
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for name, array in {**arrays, **changes}.items():
            if array is not None:
                file[name] = array
    return arrays


@pytest.mark.parametrize("is_told", [True, False])
def test_flat_arrays_become_one_history(tmp_path, is_told):
    arrays = flat_file(tmp_path / "walker.hdf5", **({} if is_told else {"next_observations": None}))
    notes = import_histories(tmp_path / "walker.hdf5", tmp_path / "out", form="d4rl")
    (task,) = Histories.open(tmp_path / "out")
    assert task.episode_ends.tolist() == [7, 12, 17]
    assert task.terminations.nonzero()[0].tolist() == [6]
    last = arrays["next_observations" if is_told else "observations"][[6, 11, 16]]
    assert (task.final_observations == last).all()
    assert any("is a copy of the one before it" in note for note in notes) is not is_told
    assert any("3 env steps at the end, of unfinished episodes, are left out" in note for note in notes)
    assert Histories.open(tmp_path / "out").header["horizon"] == 7
    assert verify(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"terminals": None, "timeouts": None}, "lacks 'terminals'"),
        ({"rewards": np.full(20, np.nan)}, "walker.hdf5: 'rewards', env step 0: nan, which is not finite"),
        ({"actions": np.zeros((19, 2))}, "'actions' has 19 env steps, but 'rewards' has 20"),
        ({"next_observations": np.zeros((20, 3))}, "env step 0: the next observation is not the one that follows"),
        ({"terminals": np.zeros(20), "timeouts": None}, "has no whole episode"),
    ],
)
def test_flat_arrays_that_contradict_each_other_are_refused(tmp_path, changes, words):
    flat_file(tmp_path / "walker.hdf5", **changes)
    with pytest.raises(DataError, match=words):
        import_histories(tmp_path / "walker.hdf5", tmp_path / "out", form="d4rl")
    assert [path.name for path in tmp_path.iterdir()] == ["walker.hdf5"]


def test_a_format_that_is_not_there_is_named(dataset, tmp_path):
    with pytest.raises(DataError, match="there is no format 'csv' here; known: npz, minari"):
        export_histories(dataset, tmp_path / "x", form="csv")
