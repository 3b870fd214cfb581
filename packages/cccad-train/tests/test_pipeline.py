"""A whole run: the folder that every tool reads, what is done again and what is not, and no leak of held-out tasks."""

import json
import subprocess
import tomllib

import h5py
import numpy as np
import pytest
import torch
from cccad_core.agent import Agent
from cccad_core.specs import load
from cccad_data import Histories
from cccad_train.experiment import ExperimentSpec
from cccad_train.run.folder import RunFolder, git_commit
from cccad_train.run.graph import resolve


def stages(folder):
    return json.loads((folder / "stages.json").read_text())


def weights(folder):
    return [path.read_bytes() for path in sorted(folder.rglob("model.safetensors"))]


def dataset(folder):
    [data] = (folder.parent / "data").iterdir()
    return data


def exchange_task(data, old, new):
    """Make a collection look as if it held the task *new* instead of *old*."""
    manifest = data / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"{old}"', f'"{new}"'))
    for shard in (data / "shards").glob("*.h5"):
        with h5py.File(shard, "r+") as file:
            header = bytes(file["header"][...]).replace(f'"{old}"'.encode(), f'"{new}"'.encode())
            del file["header"]
            file.create_dataset("header", data=np.frombuffer(header, np.uint8))
            for group in file["tasks"].values():
                if group.attrs["task_id"] == old:
                    group.attrs["task_id"] = new


def test_a_run_folder_holds_all_that_tools_read(micro_run):
    names = {str(path.relative_to(micro_run)) for path in micro_run.rglob("*")}
    wanted = {
        *("spec.toml", "meta.json", "metrics.jsonl", "stages.json", "report.html", "tensorboard"),
        *("evaluation/results.json", "evaluation/data_card.json"),
        *(f"policy/{name}" for name in ("model.safetensors", "spec.toml", "README.md")),
        *(f"controls/ad/policy/{name}" for name in ("model.safetensors", "spec.toml", "README.md")),
        *(f"checkpoints/pretrain-cad/{name}" for name in ("update_8", "update_12/state.pt", "latest", "best")),
        *(f"checkpoints/train-cad/{name}" for name in ("update_15", "update_18/state.pt", "latest", "best")),
        *(f"checkpoints/train-ad/{name}" for name in ("update_6/state.pt", "latest", "best")),
    }
    assert wanted - names == set()
    assert [name for name in names if "partial" in name] == []
    assert len(list((micro_run / "tensorboard" / "train-cad").glob("events.*"))) == 1


def test_meta_says_what_ran_where(micro_run):
    meta = json.loads((micro_run / "meta.json").read_text())
    assert set(meta["seconds"]) == {
        "collect",
        "pretrain-cad",
        "train-cad",
        "train-ad",
        "train-blind",
        "evaluate",
        "release",
    }
    assert min(meta["seconds"].values()) >= 0
    assert "Seconds of each stage" in (micro_run / "report.html").read_text()
    assert {"created", "versions", "parts", "git_commit", "host", "argv", "seed"} <= set(meta)
    assert meta["parts"]["cccad-core"] == meta["versions"]["cccad-core"]


def test_the_resolved_spec_of_a_run_gives_the_same_run(micro_run, cccad_run):
    ended = cccad_run(micro_run / "spec.toml", "--out", micro_run.parent, "--dry-run")
    assert str(micro_run) in ended.out


def test_results_have_the_promised_form(results):
    assert results["format"] == "cccad-results/1"
    tasks = results["tasks"]
    assert [sorted(task) for task in tasks] == [["optimal_return", "params", "random_return", "split", "task_id"]] * 2
    assert {task["split"] for task in tasks} == {"held-out"}
    expected = ["ad", "blind", "cad", "cad-swapped", "cad-zeroed", "optimal", "random"]
    assert sorted(results["summary"]) == expected
    assert sorted(results["agents"]) == sorted([*expected, "source"])
    for name in expected:
        agent, row = results["agents"][name], results["summary"][name]
        assert np.array(agent["returns"]).shape == (2, 2, 12)
        assert len(agent["compressions"]) == len(tasks)
        assert {"normalized_last10_mean", "iqm", "ci95", "episodes_to_90pct", "worst_task_normalized"} <= set(row)
    assert results["agents"]["cad"]["actions_per_s"] > 0
    assert results["summary"]["optimal"]["normalized_last10_mean"] == 1.0


def test_a_life_writes_as_often_as_a_trained_stretch_of_its_length(results):
    facts = results["training"]
    assert facts["stretch_env_steps"] == 84
    assert facts["writes_per_history"] == facts["evaluation_writes_at_same_length"] == 6


def test_held_out_tasks_are_neither_in_the_data_nor_in_the_policy(micro_run, results):
    held_out = {task["task_id"] for task in results["tasks"]}
    histories = Histories.open(dataset(micro_run))
    artefact = tomllib.loads((micro_run / "policy" / "spec.toml").read_text())
    assert len(held_out) == 2
    assert held_out & set(histories.task_ids) == set()
    assert artefact["train_task_ids"] == list(histories.task_ids)
    assert held_out == set(histories.held_out_task_ids)


def test_the_released_policy_acts(micro_run):
    agent = Agent.load(micro_run / "policy")
    actions, _ = agent.act(agent.begin(3), torch.zeros(3, 2), generator=torch.Generator().manual_seed(0))
    assert actions.shape == (3,)


def test_the_report_is_of_the_finished_run(micro_run, results):
    page = (micro_run / "report.html").read_text()
    assert micro_run.name in page
    assert [task["task_id"] for task in results["tasks"] if task["task_id"] not in page] == []
    assert (micro_run / "report.html").stat().st_mtime >= (micro_run / "evaluation" / "results.json").stat().st_mtime


@pytest.mark.parametrize("option", [[], ["--resume"]])
def test_a_second_identical_run_says_what_it_skips_and_changes_nothing(option, copied_run, micro, cccad_run):
    before = {path: path.read_bytes() for path in copied_run.rglob("*") if path.is_file()}
    again = cccad_run(micro, "--out", copied_run.parent, *option)
    assert again.code == 0
    assert f"collect: found in {dataset(copied_run)}" in again.out
    for stage in ("pretrain-cad", "train-cad", "train-ad", "evaluate", "release"):
        assert f"{stage}: done before, nothing to do" in again.out
    assert {path: path.read_bytes() for path in copied_run.rglob("*") if path.is_file()} == before


def test_stages_can_be_done_one_by_one(copied_run, micro, cccad_run, tmp_path):
    (copied_run.parent / "data").rename(tmp_path / "data")
    out = tmp_path
    for stage in ("collect", "pretrain", "train", "evaluate", "release", "report"):
        done = cccad_run(micro, "--out", out, "--only", stage)
        assert done.code == 0, done.err
    [folder] = out.glob("micro-*")
    assert weights(folder) == weights(copied_run)


def test_what_another_run_has_done_on_the_same_inputs_is_taken_from_it(copied_run, micro, cccad_run):
    override = "controls.ad.train.num_updates=4"
    done = cccad_run(micro, "--out", copied_run.parent, "--set", override)
    assert done.code == 0, done.err
    for stage in ("pretrain-cad", "train-cad"):
        assert f"{stage}: taken from {copied_run}" in done.out
    assert "train-ad" not in done.out
    [other] = [folder for folder in copied_run.parent.glob("micro-*") if folder != copied_run]
    assert weights(other)[1] == weights(copied_run)[1]
    rows, twins = ([json.loads(line) for line in (run / "metrics.jsonl").open()] for run in (other, copied_run))
    assert [row for row in rows if row["stage"] == "train-cad"] == [row for row in twins if row["stage"] == "train-cad"]
    assert "writes_per_history" in json.loads((other / "evaluation" / "results.json").read_text())["training"]


def test_an_unfinished_stage_of_another_run_is_not_taken(copied_run, micro, cccad_run):
    record = {name: inputs for name, inputs in stages(copied_run).items() if name == "collect"}
    (copied_run / "stages.json").write_text(json.dumps(record))
    done = cccad_run(micro, "--out", copied_run.parent, "--set", "controls={}", "--only", "pretrain")
    assert done.code == 0
    assert "taken from" not in done.out


def test_a_released_policy_is_evaluated_again_with_other_settings(copied_run, cccad):
    changes = ["--set", "evaluate.num_episodes=10", "--set", 'evaluate.sliding=["ad"]']
    done = cccad("evaluate", copied_run, *changes, "--device", "cpu")
    assert done.code == 0, done.err
    assert "ad, emptied window" in done.out
    assert "ad, sliding window" in done.out
    ended = json.loads((copied_run / "evaluation" / "results.json").read_text())
    assert np.array(ended["agents"]["cad"]["returns"]).shape == (2, 2, 10)
    assert ended["evaluate"]["num_episodes"] == 10
    assert "evaluation_writes_at_same_length" not in ended["training"]  # 80 env steps are shorter than a stretch of 84


def test_only_the_evaluation_may_change_after_training(copied_run, cccad):
    ended = cccad("evaluate", copied_run, "--set", "policy.width=32", "--device", "cpu")
    assert ended.code == 2
    assert "only evaluate.* and split.max_held_out_tasks may change" in ended.err
    assert cccad("evaluate", copied_run / "nowhere", "--device", "cpu").code == 2


def test_fewer_held_out_tasks_need_no_new_training(copied_run, micro, cccad_run):
    done = cccad_run(micro, "--out", copied_run.parent, "--set", "split.max_held_out_tasks=1")
    assert done.code == 0, done.err
    assert done.out.count("taken from") == 4


def test_data_that_hold_a_held_out_task_are_refused_by_name(copied_run, micro, cccad, cccad_run, results):
    leaked = results["tasks"][1]["task_id"]
    data = dataset(copied_run)
    exchange_task(data, Histories.open(data).task_ids[3], leaked)
    before = {path: path.read_bytes() for path in copied_run.rglob("*") if path.is_file()}
    ended = cccad("evaluate", copied_run, "--device", "cpu")
    assert ended.code == 2
    assert f"task '{leaked}' is to be held out, but the data in {data} holds it" in ended.err
    assert {path: path.read_bytes() for path in copied_run.rglob("*") if path.is_file()} == before
    fresh = cccad_run(micro, "--out", copied_run.parent, "--set", "seed=9")
    assert fresh.code == 2
    assert leaked in fresh.err
    assert list(copied_run.parent.glob("micro-*-s9/checkpoints")) == []


def test_a_leak_found_after_training_leaves_no_policy_behind(copied_run, micro, cccad_run, results, tmp_path):
    leaked, data = results["tasks"][0]["task_id"], dataset(copied_run)
    record = stages(copied_run)
    del record["evaluate"]
    (copied_run / "stages.json").write_text(json.dumps(record))
    for name in ("policy", "controls", "evaluation"):
        (copied_run / name).rename(tmp_path / name)
    exchange_task(data, Histories.open(data).task_ids[0], leaked)
    ended = cccad_run(micro, "--out", copied_run.parent, "--only", "evaluate")
    assert ended.code == 2
    assert leaked in ended.err
    assert not any((copied_run / name).exists() for name in ("policy", "controls", "evaluation"))


def test_a_policy_that_was_trained_on_a_held_out_task_is_refused_by_name(copied_run, cccad, results):
    leaked, spec = results["tasks"][0]["task_id"], copied_run / "policy" / "spec.toml"
    spec.write_text(spec.read_text().replace("train_task_ids = [", f'train_task_ids = ["{leaked}", '))
    ended = cccad("evaluate", copied_run, "--device", "cpu")
    assert ended.code == 2
    assert f"task '{leaked}' is to be held out, but the training of the policy" in ended.err


def test_runs_are_reported_on_alone_and_side_by_side(copied_run, micro, cccad, cccad_run):
    assert cccad_run(micro, "--out", copied_run.parent, "--set", "seed=1").code == 0
    both = sorted(copied_run.parent.glob("micro-*"))
    assert len(both) == 2
    alone = cccad("report", both[1])
    assert alone.out == f"report: {both[1] / 'report.html'}\n"
    together = cccad("report", *both)
    assert together.code == 0
    assert "2 seeds" in next(copied_run.parent.glob("comparison-*.html")).read_text()
    assert cccad("report", copied_run / "policy").code == 2


def test_the_commit_of_the_working_directory_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert git_commit() == head.strip()


def test_a_run_folder_is_made_with_the_folders_above_it(micro, tmp_path):
    folder = RunFolder(path=tmp_path / "a" / "b" / "run-s0")
    graph = resolve(load(micro, ExperimentSpec))
    folder.prepare(graph.plain, graph.suppliers)
    assert {file.name for file in folder.path.iterdir()} == {"spec.toml", "meta.json"}
