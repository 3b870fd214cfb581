"""Arrays of one's own become histories of one's own task family, and what does not fit it is refused."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from cccad_data import Histories, NoisyOracleSpec, verify
from cccad_data.cli import main
from cccad_data.families.toys import CorridorSpec
from cccad_data.interchange import Wishes, import_histories

LENGTH = 12


def flat(**changes):
    """Three episodes of four env steps with a terminal at each end."""
    arrays = {
        "observations": np.zeros((LENGTH, 3)),
        "actions": np.zeros((LENGTH, 2)),
        "rewards": np.arange(LENGTH),
        "terminals": np.isin(np.arange(LENGTH), [3, 7, 11]),
    }
    return {**arrays, **changes}


SPLIT = {"seed": 0, "held_out_frac": 0.2}


def corridor_arrays(tasks):
    """Flat arrays of the corridor, a history after the other for each task, as its user may have recorded them."""
    family = CorridorSpec().build()
    source = NoisyOracleSpec(num_envs=3, env_steps=40, store_optimal_actions=False).build()
    collected = source.collect(family, [family.tasks[index] for index in tasks], seed=1)
    return family, collected


GOAL = ["task_id=corridor-7/goal-1"]


@pytest.mark.usefixtures("corridor_installed")
class TestOwnData:
    def test_an_archive_of_ones_own_becomes_histories_of_ones_own_family(self, tmp_path, corridor):
        _, collected = corridor_arrays(range(7))
        names = ("observations", "actions", "rewards", "truncations", "history_ends", "episode_ends")
        own = {f"{task.task_id}/{name}": getattr(task, name) for task in collected for name in names}
        own |= {f"{task.task_id}/final_observations": task.final_observations for task in collected}
        np.savez(tmp_path / "own.npz", **own)
        wishes = Wishes(env={"kind": "corridor", "size": 7}, split=SPLIT)
        notes = import_histories(tmp_path / "own.npz", tmp_path / "out", form="npz", wishes=wishes)
        histories = Histories.open(tmp_path / "out")
        held_out = [task.task_id for task in corridor.split(**SPLIT).held_out]
        assert verify(tmp_path / "out", corridor) == []
        assert histories.held_out_task_ids == tuple(held_out)
        assert histories.header["env"]["kind"] == "corridor"
        assert [f"task {held_out[0]!r} is left out: it is held out by the split"] == [n for n in notes if "held" in n]
        expected = {task.task_id: task for task in collected if task.task_id not in held_out}
        assert set(histories.task_ids) == set(expected)
        for task in histories:
            for name, array in task.arrays().items():
                assert np.array_equal(array, getattr(expected[task.task_id], name))

    def test_a_family_itself_may_be_handed_in(self, tmp_path, corridor):
        _, (task,) = corridor_arrays([1])
        task = task.history(0)
        arrays = {
            "observations": task.observations, "next_observations": task.next_observations(), "actions": task.actions,
            "rewards": task.rewards, "terminals": task.terminations, "timeouts": task.truncations,
        }  # fmt: skip
        with h5py.File(tmp_path / "own.hdf5", "w") as file:
            for name, array in arrays.items():
                file[name] = array
        wishes = Wishes(env=corridor, split=SPLIT, settings={"task_id": task.task_id})
        import_histories(tmp_path / "own.hdf5", tmp_path / "out", form="d4rl", wishes=wishes)
        assert verify(tmp_path / "out", corridor) == []

    def test_fields_of_the_family_that_are_texts_stay_texts(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        fits = {"observations": np.arange(LENGTH)[:, None] % 7, "actions": np.arange(LENGTH) % 3}
        np.savez("own.npz", **flat(**fits))
        family = ["--env", "corridor", "size=7", "breaks_on=1.10", "--set", "check=false", *GOAL]
        assert main(["import", "own.npz", "out", "--from", "npz", *family]) == 0
        assert Histories.open("out").header["env"]["breaks_on"] == "1.10"

    @pytest.mark.parametrize(
        ("changes", "settings", "words"),
        [
            ({}, [], "own.npz: 'npz/own' is no task of 'corridor', as 'corridor-7/goal-0' is; the setting 'task_id'"),
            ({"observations": np.full((LENGTH, 1), 7)}, GOAL, "env step 0: 7, which is not in"),
            ({"observations": np.zeros((LENGTH, 2), int)}, GOAL, "values of shape [2] are none"),
            ({"actions": np.full(LENGTH, 3)}, GOAL, "'actions', env step 0: 3, which is not"),
            ({"terminals": np.arange(LENGTH) == 11}, GOAL, "but the horizon of 'corridor' is 8"),
            ({}, [*GOAL, "n=3", "name=x"], "the family 'corridor' says what 'name', 'n' would say; leave it out"),
            ({}, ["task_id=corridor-7/goal-5"], "own.npz: all of its tasks are held out by the split"),
        ],
    )
    def test_what_does_not_fit_the_family_is_refused(self, tmp_path, monkeypatch, capsys, changes, settings, words):
        monkeypatch.chdir(tmp_path)
        fits = {"observations": np.arange(LENGTH)[:, None] % 7, "actions": np.arange(LENGTH) % 3}
        np.savez("own.npz", **flat(**{**fits, **changes}))
        held_out = CorridorSpec().build().split(**SPLIT).held_out[0].task_id
        settings = ["--set", *(text.replace("goal-5", held_out.split("/")[1]) for text in settings)] if settings else []
        arguments = ["--env", "corridor", "size=7", "--split", "seed=0", "held_out_frac=0.2", *settings]
        assert main(["import", "own.npz", "out", "--from", "npz", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()


FILE = """
from attrs import frozen
from cccad_core.registry import register
from cccad_data.families.toys import CorridorSpec

@register("env", "hall")
@frozen(kw_only=True)
class Spec(CorridorSpec):
    pass
"""


def test_own_data_become_histories_of_a_family_that_a_file_registers(tmp_path):
    pytest.importorskip("cccad_core", reason="a file registers its family with cccad-core")
    (tmp_path / "halls.py").write_text(FILE)
    np.savez(tmp_path / "own.npz", **flat(observations=np.arange(LENGTH) % 7, actions=np.arange(LENGTH) % 3))
    code = "import sys; from cccad_data.cli import main; sys.exit(main(sys.argv[1:]))"
    family = ["--imports", "halls.py", "--env", "hall", "size=7", "breaks_on=1.10", "--set", "check=false", *GOAL]
    arguments = [sys.executable, "-c", code, "import", "own.npz", "out", "--from", "npz", *family]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Histories.open(tmp_path / "out").header["env"]["breaks_on"] == "1.10"
