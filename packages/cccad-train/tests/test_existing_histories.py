"""Training on histories that are there already: the earlier code's file, imported, instead of a collection."""

import json
import shutil

import h5py
import numpy as np
import pytest
from cccad_core.specs import structure
from cccad_data import Histories, InlineSpec, NoisyOracleSpec, collect
from cccad_envs.darkroom import DarkroomSpec
from cccad_envs.large_darkroom import LargeDarkroomSpec
from cccad_train.experiment import ExperimentSpec
from cccad_train.run.graph import resolve

SMALL = DarkroomSpec(size=4, horizon=8)


def gather(out, env=SMALL):
    """Collect with another split than that of the micro spec, whose held-out tasks are therefore in it."""
    source = NoisyOracleSpec(num_envs=4, env_steps=200, tasks_per_unit=4).build()
    split = {"seed": 1, "held_out_frac": 0.1}
    return collect(env.build(), source, InlineSpec().build(), out=out, split=split, seed=3)


def write_legacy(out, histories):
    """Write histories as the earlier code did: no names, and ends followed by the next episode's first state."""
    with h5py.File(out, "w") as file:
        for name, task in enumerate(histories):
            lives = list(task)
            columns = {
                "states": [life.observations for life in lives],
                "actions": [life.actions for life in lives],
                "rewards": [life.rewards.astype(np.int32) for life in lives],
                "next_states": [np.roll(life.observations, -1, axis=0) for life in lives],
                "dones": [life.terminations | life.truncations for life in lives],
            }
            for column, arrays in columns.items():
                file[f"{name}/{column}"] = np.stack(arrays, axis=1)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Histories of 14 tasks that somebody else collected, in the earlier code's file."""
    folder = tmp_path_factory.mktemp("foreign")
    write_legacy(folder / "old.hdf5", Histories.open(gather(folder / "collected")))
    return folder / "old.hdf5"


@pytest.fixture(scope="module")
def imported(foreign, cccad):
    ended = cccad("data", "import", foreign, foreign.parent / "new", "--from", "legacy", "--env", "darkroom", "size=4",
                 "horizon=8", "--split", "seed=1", "held_out_frac=0.1")  # fmt: skip
    assert ended.code == 0, ended.err
    return foreign.parent / "new"


def at(path):
    return "--set", f'data.path="{path}"'


def test_the_earlier_codes_file_is_imported_trained_on_evaluated_and_reported(
    imported, micro, cccad_run, cccad, only_run, tmp_path
):
    split = SMALL.build().split(seed=0, held_out_frac=0.1)
    held_out, listed = {task.task_id for task in split.held_out}, set(Histories.open(imported).task_ids)
    assert held_out & listed, "no task that this spec holds out is in the file"
    ended = cccad_run(micro, "--out", tmp_path, *at(imported), "--set", "pretrain.num_updates=3")
    assert ended.code == 0, ended.err
    wanted = (
        f"the histories in {imported} are of {len(listed - held_out)} of 14 training tasks; "
        f"those of {len(listed & held_out)} held-out tasks are left out"
    )
    assert f"collect: {wanted}" in ended.out
    run = only_run(tmp_path)
    assert not (tmp_path / "data").exists()
    results = json.loads((run / "evaluation" / "results.json").read_text())
    assert {task["task_id"] for task in results["tasks"]} == held_out
    assert "source (import)" in json.dumps(results)
    card = (run / "policy" / "README.md").read_text()
    assert f"the learning histories of source `import` on {len(listed - held_out)} tasks" in card
    assert json.loads((run / "evaluation" / "data_card.json").read_text())["held_out_tasks"] == 2
    assert wanted in cccad_run(run / "spec.toml", "--out", tmp_path, "--dry-run").out
    again = cccad("evaluate", run, "--set", "evaluate.num_episodes=10", "--device", "cpu")
    assert again.code == 0, again.err


def test_what_is_done_depends_on_the_histories_and_not_on_where_they_lie(imported, tmp_path):
    def digests(path):
        plain = {"name": "x", "env": {"kind": "darkroom", "size": 4, "horizon": 8}, "data": {"path": str(path)}}
        spec = structure(plain, ExperimentSpec)
        return {stage.name: stage.inputs for stage in resolve(spec).stages if stage.kind != "report"}

    copy = shutil.copytree(imported, tmp_path / "copy")
    assert digests(copy) == digests(imported)
    other = digests(gather(tmp_path / "other"))
    assert not set(other.values()) & set(digests(imported).values())
    [shard] = (copy / "shards").iterdir()
    assert digests(shard) == digests(imported)
    before = digests(copy)
    with h5py.File(shard, "r+") as file:
        file["tasks/00000/actions"][0] ^= 1
    assert not set(digests(copy).values()) & set(before.values())


def test_histories_that_do_not_fit_are_refused_in_a_sentence_and_nothing_is_written(
    imported, foreign, micro, cccad_run, tmp_path
):
    out, family = tmp_path / "runs", SMALL.build()
    unfinished = shutil.copytree(gather(tmp_path / "whole"), tmp_path / "unfinished")
    manifest = json.loads((unfinished / "manifest.json").read_text())
    manifest["units"][1]["done"] = False
    (unfinished / "manifest.json").write_text(json.dumps(manifest))
    gather(tmp_path / "larger", DarkroomSpec(size=5, horizon=9))
    gather(tmp_path / "wide", LargeDarkroomSpec(width=4, height=4, horizon=8))
    cases = {
        tmp_path / "nothing": "there is no such history file",
        tmp_path: "there is no readable manifest.json, so this is no dataset folder",
        foreign: "the format is None; this version of cccad-data reads 'cccad-history/1' only",
        unfinished: "only 3 of 4 units are collected",
        tmp_path / "larger": "are of another env: size = 5, not 4, horizon = 9, not 8 @ data.path",
        tmp_path / "wide": "are of the env 'large-darkroom', not 'darkroom' @ data.path",
    }
    for path, sentence in cases.items():
        for more in ([], ["--dry-run"]):
            ended = cccad_run(micro, "--out", out, *at(path), *more)
            assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
            assert sentence in ended.err
            assert str(path) in ended.err
    missing = {task.task_id for task in family.tasks} - set(Histories.open(imported).task_ids)
    seed = next(n for n in range(100) if family.split(seed=n, held_out_frac=0.1).train[0].task_id in missing)
    changes = ("--set", f"split.seed={seed}", "--set", "split.max_train_tasks=1")
    ended = cccad_run(micro, "--out", out, *at(imported), *changes)
    assert ended.code == 2
    assert "are of no training task of this split, but of 'darkroom-4x4/goal-" in ended.err
    assert not out.exists()
