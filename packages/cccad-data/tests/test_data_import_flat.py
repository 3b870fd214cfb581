"""Flat arrays of others, D4RL's and NumPy's: shapes, flags, spaces and tasks are checked; what is assumed is said."""

import json

import h5py
import numpy as np
import pytest
from cccad_data import Histories, verify
from cccad_data.cli import main

LENGTH = 12


def flat(**changes):
    """Three episodes of four env steps with a terminal at each end."""
    rng = np.random.default_rng(0)
    arrays = {
        "observations": rng.normal(size=(LENGTH, 3)).astype("f4"),
        "actions": rng.uniform(-1, 1, (LENGTH, 2)).astype("f4"),
        "rewards": np.arange(LENGTH, dtype="f4"),
        "terminals": np.isin(np.arange(LENGTH), [3, 7, 11]),
    }
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


def write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return path
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


@pytest.fixture(params=["d4rl", "npz"])
def run(request, tmp_path, monkeypatch, capsys):
    """Import flat arrays from the command line, with relative names in another folder; return code, output, error."""
    monkeypatch.chdir(tmp_path)
    suffix = {"d4rl": "hdf5", "npz": "npz"}[request.param]

    def command(arrays, *arguments, name="walk", out="out"):
        write(tmp_path / f"{name}.{suffix}", arrays)
        code = main(["import", f"{name}.{suffix}", out, "--from", request.param, *arguments])
        captured = capsys.readouterr()
        if code:
            assert captured.err.count("\n") == 1
            assert f"{name}.{suffix}" in captured.err or "setting" in captured.err
            assert "partial" not in captured.err
            assert not (tmp_path / out).exists()
            assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
        return code, captured.out, captured.err

    return command


def imported(out="out"):
    histories = Histories.open(out)
    assert verify(out) == []
    return histories, histories.tasks[0]


@pytest.mark.parametrize("name", ["rewards", "terminals"])
def test_a_column_is_read_as_one_number_for_each_env_step(run, name):
    arrays = flat()
    assert run({**arrays, name: arrays[name][:, None]})[0] == 0
    _, task = imported()
    assert task.episode_ends.tolist() == [4, 8, 12]
    assert task.rewards.tolist() == arrays["rewards"].tolist()


def test_columns_everywhere_are_read(run):
    arrays = flat(actions=np.arange(LENGTH)[:, None] % 3, timeouts=np.zeros((LENGTH, 1)))
    for name in ("rewards", "terminals"):
        arrays[name] = arrays[name][:, None]
    assert run(arrays)[0] == 0
    histories, task = imported()
    assert histories.spaces["action"] == {"kind": "discrete", "n": 3}
    assert task.actions.shape == (LENGTH,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rewards": np.zeros((LENGTH, 2))}, "'rewards' must have one number for each env step, not the shape [12, 2]"),
        ({"terminals": np.zeros((LENGTH, LENGTH))}, "'terminals' must have one number for each env step"),
        ({"terminals": np.r_[0, 2, np.ones(10)]}, "'terminals', env step 1: 2.0 is no flag, 0 or 1"),
        ({"terminals": np.full(LENGTH, np.nan)}, "'terminals', env step 0: nan is no flag, 0 or 1"),
        ({"terminals": np.zeros(LENGTH)}, "has no whole episode"),
        ({"terminals": None}, "lacks 'terminals'"),
        ({"actions": None}, "lacks 'actions'"),
        ({"actions": np.zeros((LENGTH - 1, 2))}, "'actions' has 11 env steps, but 'rewards' has 12"),
        ({"rewards": np.r_[np.nan, np.zeros(11)]}, "'rewards', env step 0: nan, which is not finite"),
        ({"observations": np.full((LENGTH, 1), np.inf)}, "'observations' holds numbers that are not finite"),
        ({"observations": np.arange(LENGTH)[:, None] + 2**24}, "env step 1: 16777217, which float32 cannot hold"),
        ({"observations": 1e9 + np.arange(LENGTH)[:, None]}, "'observations', env step 11: 1000000011.0"),
        ({"rewards": np.arange(LENGTH) + 2**24}, "'rewards', env step 1: 16777217"),
        ({"observations": np.full((LENGTH, 2), 1e39)}, "'observations', env step 0: 1e+39"),
        ({"next_observations": np.zeros((LENGTH, 2), "f4")}, "'next_observations' has the shape [12, 2]"),
        ({"actions": np.array(["a"] * LENGTH, "S1")}, "'actions'"),
        ({"rewards": np.float32(3)}, "'rewards'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_anything_is_written(run, changes, words):
    code, _, error = run(flat(**changes))
    assert code == 2
    assert words in error


def test_a_feature_that_never_changes_is_a_box_that_policies_take(run):
    assert run(flat(observations=np.zeros((LENGTH, 2), "f4")))[0] == 0
    histories, _ = imported()
    assert histories.spaces["observation"] == {"kind": "box", "shape": [2], "low": [0.0, 0.0], "high": [0.0, 0.0]}


def test_images_and_single_numbers_are_observations(run):
    images = np.random.default_rng(0).integers(0, 256, (LENGTH, 2, 2, 3), np.uint8)
    assert run(flat(observations=images))[0] == 0
    histories, task = imported()
    assert histories.spaces["observation"]["shape"] == [2, 2, 3]
    assert (task.observations == images.reshape(LENGTH, 12)).all()
    assert run(flat(observations=np.arange(LENGTH)), out="numbers")[0] == 0
    assert imported("numbers")[1].observations.shape == (LENGTH, 1)


def test_bounds_of_more_digits_than_are_kept_are_rounded_outward(run):
    assert run(flat(observations=np.linspace(-0.1, 0.1, LENGTH)[:, None]))[0] == 0
    imported()


class TestActions:
    def test_whole_numbers_in_one_column_are_discrete_and_the_note_says_so(self, run):
        _, out, _ = run(flat(actions=np.arange(LENGTH) % 3 + 1))
        assert "taken from the data: the box 'observation' of shape [3], 'n' = 4 discrete actions" in out
        assert "0 never occurs: set 'start'?" in out
        assert imported()[0].spaces["action"] == {"kind": "discrete", "n": 4}

    def test_they_may_count_from_another_start(self, run):
        code, out, _ = run(flat(actions=np.arange(LENGTH) % 3 + 1), "--set", "start=1")
        assert code == 0
        assert "actions count from 0 here, and from 1 in the file" in out
        histories, task = imported()
        assert histories.spaces["action"] == {"kind": "discrete", "n": 3}
        assert task.actions.tolist() == [0, 1, 2] * 4

    def test_real_numbers_that_are_all_whole_stay_a_box_unless_it_is_said(self, run):
        arrays = flat(actions=np.arange(LENGTH, dtype="f4") % 3)
        _, out, _ = run(arrays)
        assert "the box 'action' of shape [] (all of them whole: 'n' would make them discrete)" in out
        assert imported()[0].spaces["action"]["kind"] == "box"
        assert run(arrays, "--set", "n=5", out="discrete")[0] == 0
        assert imported("discrete")[0].spaces["action"] == {"kind": "discrete", "n": 5}

    def test_what_is_outside_of_what_was_said_is_refused(self, run):
        code, _, error = run(flat(actions=np.arange(LENGTH) % 3), "--set", "n=2")
        assert code == 2
        assert "'actions', env step 2: 2, which is not in the space {'kind': 'discrete', 'n': 2}" in error
        code, _, error = run(flat(actions=np.arange(LENGTH) % 3), "--set", "start=1")
        assert code == 2
        assert "'actions' begin at 0, not at 1" in error

    def test_boxes_are_clipped_only_if_it_is_asked_for(self, run):
        arrays = flat(actions=np.linspace(-1.2, 1.1, LENGTH)[:, None])
        box = 'action={"kind": "box", "shape": [1], "low": -1, "high": 1}'
        code, _, error = run(arrays, "--set", box)
        assert code == 2
        assert "'actions', env step 0: -1.2, which is not in the space" in error
        assert error.endswith("; the setting clip=true puts it on the bound\n")
        code, out, _ = run(arrays, "--set", box, "clip=true")
        assert code == 0
        assert "2 numbers of actions, up to 0.2 outside, are put on the bounds of their box" in out
        assert np.abs(imported()[1].actions).max() == 1.0

    def test_a_wrong_space_in_the_settings_is_refused(self, run):
        code, _, error = run(flat(), "--set", 'action={"kind": "box", "shape": [2], "low": 1, "high": -1}')
        assert code == 2
        assert "the setting 'action': 'low' of a box is not above 'high' anywhere" in error


class TestEnds:
    walks = np.random.default_rng(1).normal(size=(3, 5, 2)).astype("f4")
    shown, following = walks[:, :-1].reshape(LENGTH, 2), walks[:, 1:].reshape(LENGTH, 2)

    def arrays(self, *ends, name="terminals", **changes):
        flags = {"terminals": np.zeros(LENGTH), name: np.isin(np.arange(LENGTH), ends)}
        return flat(observations=self.shown, next_observations=self.following, **flags, **changes)

    def test_without_time_limits_the_note_says_so_and_a_horizon_cuts(self, run):
        arrays = flat(terminals=np.arange(LENGTH) == 10)
        _, out, _ = run(arrays)
        assert "no 'timeouts' mark time limits, so that an episode may be several" in out
        assert "'horizon' = 11, the longest episode" in out
        code, out, _ = run(arrays, "--set", "horizon=4", out="cut")
        assert code == 0
        assert "an episode is cut off at the horizon 4 (2 times)" in out
        histories, task = imported("cut")
        assert task.episode_ends.tolist() == [4, 8, 11]
        assert task.truncations.nonzero()[0].tolist() == [3, 7]
        assert histories.header["horizon"] == 4

    def test_an_episode_over_the_horizon_is_refused_where_time_limits_are_marked(self, run):
        arrays = flat(timeouts=np.arange(LENGTH) == 11, terminals=np.zeros(LENGTH))
        code, _, error = run(arrays, "--set", "horizon=4")
        assert code == 2
        assert "an episode has 12 env steps, but the horizon in the settings is 4" in error

    def test_a_jump_without_a_flag_is_counted_and_refused_or_made_an_end(self, run):
        arrays = self.arrays(11)
        code, _, error = run(arrays)
        assert code == 2
        assert "after 2 env steps, the first of them env step 3: the next observation is not the one" in error
        assert "ends=jumps ends episodes there" in error
        assert run(arrays, "--set", "ends=terminals,jumps")[0] == 0
        _, task = imported()
        assert task.episode_ends.tolist() == [4, 8, 12]
        assert task.truncations.nonzero()[0].tolist() == [3, 7]
        assert (task.final_observations == self.following[[3, 7, 11]]).all()

    def test_flags_that_stand_one_env_step_late_are_seen_in_both_directions(self, run):
        code, _, error = run(self.arrays(4, 8, 11, name="timeouts"))
        assert code == 2
        assert "after 2 env steps, the first of them env step 3" in error
        assert "2 ends of episodes, the first at env step 4, are followed by the observation that was" in error

    def test_a_flag_without_a_jump_is_noted_and_may_be_left_aside(self, run):
        arrays = self.arrays(1, 5, 9, timeouts=np.isin(np.arange(LENGTH), [3, 7, 11]))
        code, out, _ = run(arrays)
        assert code == 0
        assert "an end of an episode is followed by the observation that was announced, as if it went on" in out
        assert "says which flags count (3 times)\n" in out
        assert run(arrays, "--set", "ends=timeouts", out="whole")[0] == 0
        assert imported("whole")[1].episode_ends.tolist() == [4, 8, 12]

    def test_flags_beside_the_jumps_are_noted_where_nothing_announces_observations(self, run):
        clock = (np.arange(LENGTH) % 4)[:, None] * 0.1
        for place, word in ((4, "late"), (2, "early")):
            flags = np.isin(np.arange(LENGTH), [place, place + 4, 11])
            _, out, _ = run(flat(observations=clock, terminals=None, timeouts=flags), out=word)
            assert f"seem to stand one env step too {word}: observations jump beside them" in out
        _, out, _ = run(flat(observations=clock), out="right")
        assert "seem to stand" not in out

    @pytest.mark.parametrize("flags", [{}, {"timeouts": np.zeros(LENGTH)}])
    def test_time_limits_that_are_never_marked_are_noted_and_cut(self, run, flags):
        code, out, _ = run(flat(terminals=np.zeros(LENGTH), **flags), "--set", "horizon=4")
        assert code == 0
        assert "no 'terminals' end episodes, so that none terminates\n" in out
        assert "an episode is cut off at the horizon 4 (3 times)" in out

    @pytest.mark.parametrize("ends", ["dones", "timeouts", "terminals,nonsense", ""])
    def test_flags_that_are_not_there_cannot_end_episodes(self, run, ends):
        code, _, error = run(flat(), "--set", f"ends={ends}") if ends else run(flat(), "--set", "ends=jumps")
        assert code == 2
        assert "'ends' may list terminals, jumps" in error or "which it lacks" in error


def test_a_text_stays_a_text(run):
    for index, text in enumerate(["1.10", "1e5", "true", "null", '"a"']):
        assert run(flat(), "--set", f"task_id={text}", out=f"out{index}")[0] == 0
        assert Histories.open(f"out{index}").task_ids == (text,)


def test_parts_of_one_environment_are_given_one_space_and_merge(run):
    box = {"kind": "box", "shape": [3], "low": -9, "high": 9}
    settings = [
        f"observation={json.dumps(box)}",
        f"action={json.dumps({**box, 'shape': [2]})}",
        "horizon=8",
        "name=walker",
    ]
    arrays = flat(terminals=np.isin(np.arange(LENGTH), [7, 11]))
    assert run(flat(), "--set", *settings, "task_id=walk", name="a", out="one")[0] == 0
    other = {**arrays, "rewards": arrays["rewards"] * 2, "observations": arrays["observations"] * 1.5}
    assert run(other, "--set", *settings, "task_id=walk", name="b", out="two")[0] == 0
    assert main(["merge", "both", "one", "two"]) == 0
    assert main(["verify", "both"]) == 0
    (task,) = Histories.open("both")
    assert (task.num_histories, task.num_episodes) == (2, 5)


class TestSeveralFiles:
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for index in range(3):
            write(tmp_path / f"{index}.hdf5", flat(rewards=np.full(LENGTH, index)))

    def names(self, *arguments):
        return main(["import", "0.hdf5", "1.hdf5", "2.hdf5", "out", "--from", "d4rl", *arguments])

    def test_they_are_tasks_of_their_own(self):
        assert self.names() == 0
        assert imported()[0].task_ids == ("d4rl/0", "d4rl/1", "d4rl/2")

    def test_or_histories_of_one_task(self):
        assert self.names("--set", "task_id=walk") == 0
        histories, task = imported()
        assert (len(histories), task.num_histories) == (1, 3)
        assert histories.header["env"] == {"kind": "d4rl", "name": "0, 1, 2"}

    def test_or_whatever_is_said_of_each(self, capsys):
        assert self.names("--set", 'task_ids=["a", "b", "a"]') == 0
        assert [(task.task_id, task.num_histories) for task in Histories.open("out")] == [("a", 2), ("b", 1)]
        assert main(["import", "0.hdf5", "out2", "--from", "d4rl", "--set", 'task_ids=["a", "b"]']) == 2
        assert "it has 2 for 1" in capsys.readouterr().err

    @pytest.mark.parametrize("twin", ["0.hdf5", "./0.hdf5", "copy.hdf5"])
    def test_one_history_is_not_counted_twice(self, tmp_path, twin, capsys):
        (tmp_path / "copy.hdf5").write_bytes((tmp_path / "0.hdf5").read_bytes())
        arguments = ["import", "0.hdf5", twin, "out", "--from", "d4rl", "--set", "task_id=walk"]
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert "is named twice" in error or "holds the very history of 'walk' that 0.hdf5 holds" in error
        assert not (tmp_path / "out").exists()

    def test_elements_of_other_shapes_are_refused(self, tmp_path, capsys):
        write(tmp_path / "1.hdf5", flat(observations=np.zeros((LENGTH, 2))))
        assert self.names("--set", "task_id=walk") == 2
        assert "1.hdf5: an element of 'observations' has the shape [2], and elsewhere [3]" in capsys.readouterr().err
