"""Minari datasets of others: every space on either side, contradictions in both directions, exports that come back."""

import json
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from cccad_data import Histories, InlineSpec, NoisyOracleSpec, collect, spaces, verify
from cccad_data.cli import main
from cccad_data.families.toys import CorridorSpec

minari = pytest.importorskip("minari")
from gymnasium import spaces as gym  # noqa: E402
from minari.data_collector import EpisodeBuffer  # noqa: E402

BOX, THREE = gym.Box(-1, 1, (2,), np.float32), gym.Discrete(3)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """A folder of one's own, by relative names, and Minari's place in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))


@pytest.fixture
def dataset(tmp_path):
    """Two corridors, two histories of two episodes each: an episode costs Minari some milliseconds."""
    family, source = CorridorSpec().build(), NoisyOracleSpec(num_envs=2, env_steps=16).build()
    return collect(family, source, InlineSpec().build(), out=tmp_path / "set", split={"seed": 0}, seed=4, max_tasks=2)


def values(space, count, seed=0):
    space.seed(seed)
    drawn = [space.sample() for _ in range(count)]
    return drawn if isinstance(space, gym.Text) else np.stack([np.asarray(value) for value in drawn])


def episode(length, observation=BOX, action=THREE, last="terminations", **changes):
    arrays = {
        "observations": values(observation, length + 1, length),
        "actions": values(action, length, length),
        "rewards": np.arange(length, dtype="f8"),
        "terminations": np.zeros(length, bool),
        "truncations": np.zeros(length, bool),
    }
    if last:
        arrays[last][-1] = True
    return EpisodeBuffer(**{**arrays, **changes})


def make(name, episodes, observation=BOX, action=THREE):
    with warnings.catch_warnings(action="ignore"):
        minari.create_dataset_from_buffers(
            name, episodes, observation_space=observation, action_space=action, jpeg_encoding=False
        )
    return f"sets/{name}"


def refused(capsys, *arguments):
    """Return the one sentence of an import that fails and leaves nothing behind."""
    assert main(["import", *arguments, "out", "--from", "minari"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "partial" not in error
    assert not Path("out").exists()
    return error


SPACES = [
    gym.Discrete(16),
    gym.Discrete(3, start=1),
    gym.Discrete(300),
    gym.MultiDiscrete([3, 3], start=[1, 1]),
    gym.MultiDiscrete([5, 5], start=[-2, -2]),
    gym.MultiDiscrete([[3, 3], [3, 4]]),
    gym.MultiDiscrete([3, 200], dtype=np.uint8),
    gym.MultiBinary(3),
    gym.Box(-1, 1, (2,), np.float32),
    gym.Box(-0.1, 0.1, (2,), np.float64),
    gym.Box(0, 255, (8, 8, 3), np.uint8),
    gym.Box(-np.inf, np.inf, (2,), np.float64),
    gym.Box(np.array([0, -1], "f4"), np.array([0, 1], "f4")),
    gym.Box(0.0, 1.0, ()),
    gym.Box(-5, 5, (2,), np.int64),
]


@pytest.mark.parametrize("side", ["observation", "action"])
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_every_space_is_imported_on_either_side_and_exported_as_it_was(space, side, capsys):
    others = {"observation": BOX, "action": THREE, side: space}
    source = make("any-v0", [episode(length, **others) for length in (4, 5)], **others)
    assert main(["import", source, "out", "--from", "minari"]) == 0
    output = capsys.readouterr().out
    assert ("count from 0 here" in output) == (np.any(getattr(space, "start", 0)))
    assert verify("out") == []
    for text in json.loads(Path("out/manifest.json").read_text(), parse_constant=pytest.fail)["spaces"].values():
        spaces.check(text, "the manifest")
    assert main(["export", "out", "sets/back-v0", "--to", "minari"]) == 0
    theirs, back = minari.load_dataset("any-v0"), minari.load_dataset("back-v0")
    assert (back.observation_space, back.action_space) == (theirs.observation_space, theirs.action_space)
    for one, other in zip(theirs, back, strict=True):
        for name in ("observations", "actions"):
            assert getattr(one, name).dtype == getattr(other, name).dtype
            assert np.allclose(getattr(one, name), getattr(other, name), rtol=1e-6)
        assert back.observation_space.contains(other.observations[0])
    assert main(["import", "sets/back-v0", "again", "--from", "minari"]) == 0
    for one, other in zip(Histories.open("out"), Histories.open("again"), strict=True):
        assert all(np.array_equal(array, other.arrays()[name]) for name, array in one.arrays().items())
    assert Histories.open("out").header == Histories.open("again").header


def test_a_start_is_never_read_from_the_values(capsys):
    start = gym.MultiDiscrete([3, 3], start=[1, 1])
    rare = [episode(4, action=start, actions=np.full((4, 2), 1 + k)) for k in range(2)]
    assert main(["import", make("start-v0", rare, action=start), "out", "--from", "minari"]) == 0
    (task,) = Histories.open("out")
    assert task.actions.tolist() == [[0, 0]] * 4 + [[1, 1]] * 4
    assert "actions count from 0 here, and from [1, 1] in the file" in capsys.readouterr().out


def test_a_start_outlives_a_merge():
    start = gym.Discrete(3, start=1)
    for name in ("one", "two"):
        source = make(f"{name}-v0", [episode(5, action=start)], action=start)
        settings = ["task_id=walk", "name=walk", "horizon=9"]
        assert main(["import", source, name, "--from", "minari", "--set", *settings]) == 0
    assert main(["merge", "both", "one", "two"]) == 0
    assert main(["export", "both", "both-v1", "--to", "minari"]) == 0
    assert minari.MinariDataset("both-v1/data").action_space == start


REFUSED = {
    "Text": (gym.Text(3), lambda n: ["a"] * n),
    "Dict": (gym.Dict(a=BOX), lambda n: {"a": values(BOX, n)}),
    "Tuple": (gym.Tuple((BOX, THREE)), lambda n: (values(BOX, n), values(THREE, n))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_space_without_counterpart_is_refused_by_its_class(name, capsys):
    space, some = REFUSED[name]
    source = make("other-v0", [episode(4, observations=some(5))], observation=space)
    assert f"{source}: observations: a space of class {name} has no counterpart here" in refused(capsys, source)


CASES = {
    "too few observations": ([episode(4, observations=values(BOX, 4))], "episode 0 has 4 observations for 4 actions"),
    "a flag within": (
        [episode(6, terminations=np.isin(np.arange(6), [2, 5]))],
        "episode 0 is flagged as over after 3 of its 6 env steps; 'ends' says whether 'episodes' or 'flags' count",
    ),
    "no flag": ([episode(4, last=""), episode(4)], "episode 0 neither terminates nor is truncated; ends=episodes"),
    "nan reward": (
        [episode(3), episode(4, rewards=np.array([0, 1, np.nan, 0]))],
        "'rewards' of episode 1, env step 2: nan, which is not finite",
    ),
    "nan observation": (
        [episode(3), episode(4, observations=np.full((5, 2), np.nan, "f4"))],
        "'observations' of episode 1, env step 0: nan",
    ),
    "an outsider": (
        [episode(4, actions=np.array([0, 1, 2, 3]))],
        "'actions' of episode 0, env step 3: 3, which is not in the space {'kind': 'discrete', 'n': 3}",
    ),
    "large rewards": ([episode(4, rewards=np.arange(4) + 2**24)], "'rewards' of episode 0, env step 1: 16777217"),
    "other shape": ([episode(4, observations=np.zeros((5, 3), "f4"))], "'observations' of episode 0, env step 0: "),
}


@pytest.mark.parametrize("name", CASES)
def test_contradictions_are_refused_with_episode_and_env_step(name, capsys):
    episodes, words = CASES[name]
    source = make("odd-v0", episodes)
    error = refused(capsys, source)
    assert f"cccad-data: {source}: " in error
    assert words in error


def test_large_whole_numbers_of_a_box_are_refused_where_float32_cannot_hold_them(capsys):
    wide = gym.Box(0, 2**31, (1,), np.int64)
    shown = 2**24 + np.arange(5)[:, None]
    source = make("wide-v0", [episode(4, wide, observations=shown)], wide)
    assert "env step 1: 16777217, which float32 cannot hold" in refused(capsys, source)


def test_what_ends_an_episode_may_be_said():
    ends = [episode(6, terminations=np.isin(np.arange(6), [2])), episode(3)]
    source = make("ends-v0", ends)
    assert main(["import", source, "out", "--from", "minari", "--set", "ends=episodes"]) == 0
    (task,) = Histories.open("out")
    assert (task.episode_ends.tolist(), task.truncations.nonzero()[0].tolist()) == ([6, 9], [5])
    ends[0].terminations[-1] = True
    source = make("flags-v0", ends)
    assert main(["import", source, "flags", "--from", "minari", "--set", "ends=flags"]) == 0
    assert Histories.open("flags").tasks[0].episode_ends.tolist() == [3, 6, 9]


def test_an_unfinished_last_episode_is_left_out_with_a_note(capsys):
    source = make("last-v0", [episode(4), episode(5, last="")])
    assert main(["import", source, "out", "--from", "minari"]) == 0
    assert "5 env steps at the end, of unfinished episodes, are left out" in capsys.readouterr().out


def test_actions_outside_their_box_are_clipped_only_if_it_is_asked_for(capsys):
    unit = gym.Box(-1, 1, (1,), np.float32)
    source = make("outbox-v0", [episode(4, action=unit, actions=np.float32([[1.09], [0], [0], [-1]]))], action=unit)
    assert refused(capsys, source).endswith("; the setting clip=true puts it on the bound\n")
    assert main(["import", source, "out", "--from", "minari", "--set", "clip=true"]) == 0
    assert "1 numbers of actions, up to 0.09 outside, are put on the bounds" in capsys.readouterr().out
    assert Histories.open("out").tasks[0].actions[:, 0].tolist() == [1, 0, 0, -1]


@pytest.mark.usefixtures("corridor_installed")
def test_a_dataset_becomes_histories_of_ones_own_family(capsys):
    cells, moves = gym.MultiDiscrete([7]), gym.Discrete(3, start=1)
    source = make("own-v0", [episode(4, cells, moves), episode(8, cells, moves)], cells, moves)
    family = ["--env", "corridor", "size=7", "--set", "check=false", "task_id=corridor-7/goal-3"]
    assert main(["import", source, "out", "--from", "minari", *family]) == 0
    histories = Histories.open("out")
    assert histories.header["env"]["kind"] == "corridor"
    assert histories.task_ids == ("corridor-7/goal-3",)
    assert spaces.all_alike(histories.spaces, CorridorSpec().build().spaces)
    assert histories.tasks[0].actions.tolist() == (np.r_[values(moves, 4, 4), values(moves, 8, 8)] - 1).tolist()
    assert "actions count from 0 here, and from [1] in the file" in capsys.readouterr().out


def damaged(name):
    """Return the name of a dataset that is not whole in the way that *name* says."""
    source = make("damaged-v0", [episode(4), episode(5)])
    data, metadata = f"{source}/data/main_data.hdf5", f"{source}/data/metadata.json"
    metadata_of_it = json.loads(Path(metadata).read_text())
    changes = {"total_steps": 8, "total_episodes": 0, "observation_space": None, "action_space": "{}", "data_format": 3}
    if name in changes:
        metadata_of_it[name] = changes[name]
        Path(metadata).write_text(json.dumps(metadata_of_it))
    elif name == "no episodes":
        Path(data).write_bytes(b"")
        Path(metadata).write_text(json.dumps({**metadata_of_it, "total_episodes": 0, "total_steps": 0}))
    elif name in {"metadata cut", "data cut"}:
        file = metadata if name == "metadata cut" else data
        Path(file).write_bytes(Path(file).read_bytes()[: Path(file).stat().st_size // 2])
    elif name in {"no metadata", "no data"}:
        Path(metadata if name == "no metadata" else data).unlink()
    else:
        with h5py.File(data, "r+") as file:
            if name == "no rewards":
                del file["episode_1/rewards"]
            elif name == "a text":
                del file["episode_1/actions"]
                file["episode_1/actions"] = "left"
            elif name == "a link":
                del file["episode_1/actions"]
                file["episode_1/actions"] = h5py.ExternalLink("other.h5", "actions")
            elif name == "a huge array":
                del file["episode_1/rewards"]
                file["episode_1"].create_dataset("rewards", (10**12,), "f4", chunks=(1024,))
            else:
                del file["episode_1"]
    return source


@pytest.mark.parametrize(
    "name",
    ["total_steps", "total_episodes", "observation_space", "action_space", "data_format", "no episodes", "metadata cut",
     "data cut", "no metadata", "no data", "no rewards", "a text", "a link", "a huge array", "an episode gone"],
)  # fmt: skip
def test_a_damaged_dataset_is_refused_in_one_sentence_that_names_it(name, capsys):
    assert damaged(name) in refused(capsys, "sets/damaged-v0")


def test_a_folder_without_episodes_says_so(capsys):
    damaged("no episodes")
    assert refused(capsys, "sets/damaged-v0") == "cccad-data: sets/damaged-v0: this Minari dataset has no episodes\n"


def test_environments_are_not_made_to_learn_their_spaces(capsys):
    source = damaged("observation_space")
    assert "the metadata of this Minari dataset lack 'observation_space'" in refused(capsys, source)


@pytest.mark.parametrize("out", ["mine-v0", "sub/folder/mine-v0"])
def test_an_export_takes_a_relative_name(dataset, out, assert_same):
    assert main(["export", str(dataset), out, "--to", "minari"]) == 0
    assert main(["import", out, "back", "--from", "minari"]) == 0
    assert_same(dataset, "back")
    assert [path.name for path in Path(out).parent.iterdir() if "v0" in path.name] == ["mine-v0"]


def test_an_export_that_cannot_be_written_leaves_nothing(dataset, capsys):
    Path("file").touch()
    assert main(["export", str(dataset), "file/mine-v0", "--to", "minari"]) == 1
    assert "file/mine-v0 cannot be written: " in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["file", "set"]


def two_exports():
    """Two seeds of two corridors, two histories each, exported."""
    family = CorridorSpec().build()
    source = NoisyOracleSpec(num_envs=2, env_steps=24).build()
    for seed in (0, 1):
        collect(family, source, InlineSpec().build(), out=f"seed{seed}", split={"seed": 0}, seed=seed, max_tasks=2)
        assert main(["export", f"seed{seed}", f"sets/dark-s{seed}-v0", "--to", "minari"]) == 0
    return [minari.load_dataset(f"dark-s{seed}-v0") for seed in (0, 1)]


@pytest.mark.usefixtures("corridor_installed")
def test_exports_that_minari_combined_keep_their_tasks_and_histories_apart(capsys):
    with warnings.catch_warnings(action="ignore"):
        minari.combine_datasets(two_exports(), "both-v0")
    assert main(["import", "sets/both-v0", "out", "--from", "minari", "--env", "corridor", "size=7"]) == 0
    output = capsys.readouterr().out
    assert "tasks and histories are those that the episodes name, as our export wrote them" in output
    parts = [Histories.open(f"seed{seed}") for seed in (0, 1)]
    for index, task in enumerate(Histories.open("out")):
        assert task.task_id == parts[0].tasks[index].task_id
        assert task.num_histories == 4
        for name in ("observations", "actions", "rewards", "final_observations"):
            assert np.array_equal(getattr(task, name), np.concatenate([getattr(p.tasks[index], name) for p in parts]))
    assert [fault for fault in verify("out", CorridorSpec().build()) if "improve" not in str(fault)] == []


def test_older_exports_that_minari_combined_are_refused(capsys):
    with warnings.catch_warnings(action="ignore"):
        minari.combine_datasets(two_exports(), "both-v0")
    with h5py.File("sets/both-v0/data/main_data.hdf5", "r+") as file:
        for name in file:
            del file[name]["infos/cccad_place"]
    assert "Minari combined dark-s0-v0, dark-s1-v0, and nothing says where a history ends" in refused(
        capsys, "sets/both-v0"
    )
    assert main(["import", "sets/both-v0", "out", "--from", "minari", "--set", "task_id=one"]) == 0
    assert Histories.open("out").num_histories == 1


@pytest.mark.parametrize("change", ["less", "more", "another task", "no options", "header"])
def test_an_export_of_ours_that_was_changed_is_refused(dataset, change, capsys):
    assert main(["export", str(dataset), "sets/mine-v0", "--to", "minari"]) == 0
    capsys.readouterr()
    metadata = "sets/mine-v0/data/metadata.json"
    metadata_of_it = json.loads(Path(metadata).read_text())
    header = json.loads(metadata_of_it["cccad_history_header"])
    if change == "less":
        header["tasks"].append({"task_id": "corridor-7/goal-9", "params": {}})
    elif change == "more":
        header["tasks"].pop()
    elif change == "another task":
        header["tasks"][0]["task_id"] = "x"
    elif change == "header":
        header["spaces"]["action"] = {"kind": "discrete"}
    else:
        with h5py.File("sets/mine-v0/data/main_data.hdf5", "r+") as file:
            del file["episode_3/infos/cccad_place"]
            for name in [name for name in file["episode_3"].attrs if "options" in name]:
                del file["episode_3"].attrs[name]
    Path(metadata).write_text(json.dumps({**metadata_of_it, "cccad_history_header": json.dumps(header)}))
    assert "sets/mine-v0" in refused(capsys, "sets/mine-v0")
