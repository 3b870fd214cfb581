"""Checkpoints: whole or not at all, the newest and the best are kept, and a kill costs nothing that was saved."""

import subprocess
import sys

import pytest
import torch
from cccad_train.fit.checkpoints import Progress, fitting, load_latest, save

KILLED_BEFORE_RENAME = """
import os, signal, sys
from pathlib import Path
from cccad_train.fit.checkpoints import save

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


def newest(*arguments):
    state = load_latest(*arguments)
    assert state is not None
    return state


def test_nothing_is_loaded_where_nothing_was_saved(tmp_path):
    assert load_latest(tmp_path / "none") is None


def test_the_newest_state_comes_back_as_it_was(tmp_path):
    for update in (5, 10):
        save(tmp_path, update, {"weights": torch.full((3,), float(update)), "n": update}, is_best=False)
    state = newest(tmp_path)
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


def _change_group(name, value):
    return lambda state: state["optimizer"]["param_groups"][0].update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        _change_group("weight_decay", 0.5),
        _change_group("params", [0, 5]),
        lambda state: state["optimizer"]["param_groups"][0].pop("weight_decay"),
        lambda state: state["optimizer"]["param_groups"][0].pop("lr"),
        lambda state: state["optimizer"]["param_groups"].append(dict(state["optimizer"]["param_groups"][0])),
        lambda state: state["optimizer"]["param_groups"].pop(),
        lambda state: state["progress"].update(update=3),
        lambda state: state["progress"].update(update="2"),
    ],
)
def test_a_state_of_another_optimizer_or_update_is_passed_over(change, tmp_path):
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.01)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    fit = fitting(layer.state_dict(), optimizer)
    warnings: list[str] = []
    for update in (1, 2):
        progress = {"update": update, "smoothed_loss": 0.5, "best": 0.5}
        state = {"inputs": "x", "policy": layer.state_dict(), "optimizer": optimizer.state_dict(), "progress": progress}
        if update == 2:
            save(tmp_path, update, state, is_best=False)
            assert newest(tmp_path, fit)["progress"]["update"] == 2
            change(state)
        save(tmp_path, update, state, is_best=False)
    assert newest(tmp_path, fit, warnings.append)["progress"]["update"] == 1
    assert len(warnings) == 1


def test_a_later_learning_rate_is_no_other_optimizer(tmp_path):
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    fit = fitting(layer.state_dict(), optimizer)
    optimizer.param_groups[0]["lr"] = 0.01
    progress = {"update": 1, "smoothed_loss": None, "best": 0.5}
    state = {"inputs": "x", "policy": layer.state_dict(), "optimizer": optimizer.state_dict(), "progress": progress}
    save(tmp_path, 1, state, is_best=False)
    assert newest(tmp_path, fit)["inputs"] == "x"


def test_what_is_no_checkpoint_is_passed_over_with_its_reason(tmp_path):
    save(tmp_path, 1, {"n": 1}, is_best=False)
    place = save(tmp_path, 2, {"n": 2}, is_best=False)
    (place / "state.pt").write_bytes(b"")
    warnings: list[str] = []
    assert load_latest(tmp_path, tell=warnings.append) == {"n": 1}
    assert warnings == [f"{place / 'state.pt'}: it is damaged: File is not a zip file; this checkpoint is passed over"]
