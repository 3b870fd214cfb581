"""Checkpoints: whole or not at all, the newest and the best are kept, and a kill costs nothing that was saved."""

import subprocess
import sys

import pytest
import torch
from cccad_train.checkpoints import Progress, load_latest, save

KILLED_BEFORE_RENAME = """
import os, signal, sys
from pathlib import Path
from cccad_train.checkpoints import save

folder, name = Path(sys.argv[1]), sys.argv[2]
save(folder, 1, {"value": 1}, is_best=True)

def hook(event, arguments):
    if event == "os.rename" and os.fspath(arguments[1]).endswith(name):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
save(folder, 2, {"value": 2}, is_best=False)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_loaded_where_nothing_was_saved(tmp_path):
    assert load_latest(tmp_path / "none") is None


def test_the_newest_state_comes_back_as_it_was(tmp_path):
    for update in (5, 10):
        save(tmp_path, update, {"weights": torch.full((3,), float(update)), "n": update}, is_best=False)
    state = load_latest(tmp_path)
    assert state["n"] == 10
    assert torch.equal(state["weights"], torch.full((3,), 10.0))


def test_old_checkpoints_go_but_the_best_stays(tmp_path):
    for update in (5, 10, 15, 20):
        save(tmp_path, update, {"n": update}, is_best=update == 5)
    assert names(tmp_path) == ["best", "latest", "update_15", "update_20", "update_5"]
    assert [(tmp_path / name).read_text() for name in ("best", "latest")] == ["update_5\n", "update_20\n"]


@pytest.mark.parametrize(("name", "newest"), [("update_2", 1), ("latest", 2)])
def test_a_kill_between_writing_and_renaming_leaves_the_last_whole_one(name, newest, tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED_BEFORE_RENAME, str(tmp_path), name], check=False)
    assert killed.returncode == -9
    assert load_latest(tmp_path) == {"value": newest}
    save(tmp_path, 2, {"value": 2}, is_best=False)
    assert load_latest(tmp_path) == {"value": 2}
    assert names(tmp_path) == ["best", "latest", "update_1", "update_2"]


def test_a_disk_that_refuses_leaves_the_last_whole_one(tmp_path, monkeypatch):
    save(tmp_path, 1, {"value": 1}, is_best=True)

    def refuse(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2, {"value": 2}, is_best=False)
    assert names(tmp_path) == ["best", "latest", "update_1"]


def test_progress_smooths_the_loss_over_about_a_hundred_updates():
    progress = Progress()
    progress.advance([2.0])
    assert progress.smoothed_loss == 2.0
    progress.advance([0.0] * 100)
    assert progress.smoothed_loss == pytest.approx(2.0 * 0.99**100)
