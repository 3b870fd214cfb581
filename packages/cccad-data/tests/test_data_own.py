"""`interchange/flat`, `in_memory` and `TaskHistories.from_episodes`; docs/bring-your-own-data.md, word for word."""

import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
from cccad_data import DataError, Histories, TaskHistories, verify
from cccad_data.cli import main
from cccad_data.families.toys import CorridorSpec
from cccad_data.interchange.in_memory import write_own

PAGE = Path(__file__).resolve().parents[3] / "docs" / "bring-your-own-data.md"
pytestmark = pytest.mark.usefixtures("corridor_installed")
ENV = ["--env", "corridor", "size=7", "ends_on_goal=true", "--split", "seed=1", "held_out_frac=0.2"]


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def two_tasks(**changes):
    """Two episodes of a corridor, one of each of two tasks, whose rows take turns."""
    arrays = {
        "observations": np.array([3, 3, 4, 2, 5, 1])[:, None],
        "next_observations": np.array([4, 2, 5, 1, 6, 0])[:, None],
        "actions": np.array([0, 1] * 3),
        "rewards": np.array([0, 0, 0, 0, 1, 1]),
        "terminals": np.array([0, 0, 0, 0, 1, 1]),
        "task": np.array(["goal-6", "goal-0"] * 3),
    }
    return {**arrays, **changes}


COLUMN = ["--task", "corridor-7/{}", "--task-column", "task"]


@pytest.mark.skipif(not PAGE.is_file(), reason="the page is not here: the package is tested alone")
def test_the_page_works_word_for_word():
    for language, text in re.findall(r"```(python|sh)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), {})
        else:
            assert [main(shlex.split(line)[1:]) for line in text.splitlines()] == [0] * len(text.splitlines())
    assert Histories.open("both").num_histories == 5


def write(form, name, arrays):
    if form == "npz":
        np.savez(name, **arrays)
    elif form == "arrays":
        Path(name).mkdir()
        for key, array in arrays.items():
            np.save(Path(name) / f"{key}.npy", array)
    else:
        with h5py.File(name, "w") as file:
            for key, array in arrays.items():
                file[key] = array.astype(h5py.string_dtype()) if array.dtype.kind == "U" else array


@pytest.mark.parametrize("form", ["npz", "hdf5", "d4rl", "arrays"])
def test_a_column_of_texts_says_the_task_of_rows_that_take_turns(form):
    write(form, "own", two_tasks()) if form != "npz" else write(form, "own.npz", two_tasks())
    name = "own.npz" if form == "npz" else "own"
    assert main(["import", name, "out", "--from", form, *ENV, *COLUMN]) == 0
    histories = Histories.open("out")
    assert [task.observations[:, 0].tolist() for task in histories] == [[3, 4, 5], [3, 2, 1]]
    assert histories.task_ids == ("corridor-7/goal-6", "corridor-7/goal-0")
    assert verify("out", CorridorSpec(size=7, ends_on_goal=True).build()) == []


def test_every_contradiction_is_named_at_once_with_its_file_and_row(capsys):
    wrong = two_tasks(rewards=np.array([0, 0, 1, 0, 1, 0]), actions=np.array([0, 1, 2, 1, 0, 1]))
    write("npz", "own.npz", wrong)
    assert main(["import", "own.npz", "out", "--from", "npz", *ENV, *COLUMN]) == 2
    error = capsys.readouterr().err
    assert "3 contradictions to the task family" in error
    assert "own.npz: row 2, task 'corridor-7/goal-6': the next observation is [5]" in error
    assert "own.npz: row 2, task 'corridor-7/goal-6': the reward is 1.0, but the task gives 0.0" in error
    assert "own.npz: row 5, task 'corridor-7/goal-0': the reward is 0.0, but the task gives 1.0" in error
    assert not Path("out").exists()
    assert main(["import", "own.npz", "out", "--from", "npz", *ENV, *COLUMN, "--set", "check=false"]) == 0


def test_two_files_have_a_task_each():
    rows = {name: array for name, array in two_tasks().items() if name != "task"}
    write("npz", "a.npz", {name: array[::2] for name, array in rows.items()})
    write("npz", "b.npz", {name: array[1::2] for name, array in rows.items()})
    named = ["--task", "corridor-7/goal-6", "--task", "corridor-7/goal-0"]
    assert main(["import", "a.npz", "b.npz", "out", "--from", "npz", *ENV, *named]) == 0
    assert Histories.open("out").task_ids == ("corridor-7/goal-6", "corridor-7/goal-0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task-column", "goal"], "the task_column 'goal' must be 6 whole numbers or texts, one a row"),
        (["--task-column", "task"], "'goal-6', 'goal-0' are no tasks of 'corridor'"),
        ([*COLUMN, "--set", "task_id=x"], "'task_id' is given twice"),
    ],
)
def test_a_column_that_says_no_task_is_refused(capsys, arguments, words):
    write("npz", "own.npz", two_tasks())
    assert main(["import", "own.npz", "out", "--from", "npz", *ENV, *arguments]) == 2
    assert words in capsys.readouterr().err


def test_episodes_whose_counts_do_not_fit_are_refused():
    episode = {"observations": [[3], [4]], "actions": [0], "rewards": [0.0]}
    assert TaskHistories.from_episodes("t", [[episode], [episode, episode]]).history_ends.tolist() == [1, 3]
    with pytest.raises(DataError, match="has 1 observations for 1 rewards"):
        TaskHistories.from_episodes("t", [[{**episode, "observations": [[3]]}]])
    wrong = TaskHistories.from_episodes("corridor-7/goal-6", [[{**episode, "rewards": [1.0]}]])
    with pytest.raises(DataError, match=r"python: history 0, env step 0, task .*: the reward is 1.0"):
        write_own([wrong], "out", env=CorridorSpec().build(), split={"seed": 1, "held_out_frac": 0.2})
