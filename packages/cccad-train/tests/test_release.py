"""Policies are released when they have been judged: their cards carry the scores, and follow an evaluation anew."""

import json
import shutil

import pytest
from cccad_core.artefact import load_artefact


def card(folder, agent="."):
    return (folder / agent / "policy" / "README.md").read_text(encoding="utf-8")


def scores(text):
    """Return the cells of the one row of the table of scores."""
    [row] = [line for line in text.splitlines() if line.startswith("| darkroom |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def forget_release(folder):
    """Make a run folder look as if the run had stopped, or an earlier version ended, before the release."""
    record = json.loads((folder / "stages.json").read_text())
    del record["release"]
    (folder / "stages.json").write_text(json.dumps(record))


@pytest.mark.parametrize(("agent", "name"), [(".", "cad"), ("controls/ad", "ad")])
def test_a_card_tells_what_was_measured_on_held_out_tasks(micro_run, results, agent, name):
    row, text = results["summary"][name], card(micro_run, agent)
    low, high = (f"{round(edge, 2) + 0.0:.2f}" for edge in row["ci95"])
    wanted = [f"{round(row[key], 2) + 0.0:.2f}" for key in ("normalized_last10_mean", "iqm", "worst_task_normalized")]
    wanted[1] += f" ({low} to {high})"
    assert scores(text) == ["darkroom", "2", "2", "12", *wanted]
    assert "## Scores, measured on held-out tasks" in text
    assert "split seed 0, 0.1 of all tasks held out" in text
    assert 'kind = "darkroom"\nsize = 4\nhorizon = 8' in text


def test_another_evaluation_refreshes_the_cards_and_nothing_else_of_a_policy(copied_run, cccad):
    before = {name: (copied_run / "policy" / name).read_bytes() for name in ("spec.toml", "model.safetensors")}
    ended = cccad("evaluate", copied_run, "--set", "evaluate.num_episodes=9", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert scores(card(copied_run))[3] == scores(card(copied_run, "controls/ad"))[3] == "9"
    assert {name: (copied_run / "policy" / name).read_bytes() for name in before} == before


def test_the_cards_of_a_run_without_its_histories_still_say_where_these_came_from(copied_run, cccad):
    shutil.rmtree(copied_run.parent / "data")
    assert cccad("evaluate", copied_run, "--device", "cpu").code == 0
    assert "the learning histories of source `noisy-oracle` on 14 tasks" in card(copied_run)


def test_a_run_of_an_earlier_version_is_released_anew_with_the_same_weights(copied_run, micro, cccad_run):
    forget_release(copied_run)
    weights = (copied_run / "policy" / "model.safetensors").read_bytes()
    (copied_run / "policy" / "README.md").write_text("# without scores\n")
    ended = cccad_run(micro, "--out", copied_run.parent, "--only", "release")
    assert ended.code == 0, ended.err
    assert "## Scores" in card(copied_run)
    assert (copied_run / "policy" / "model.safetensors").read_bytes() == weights
    again = cccad_run(micro, "--out", copied_run.parent, "--only", "release")
    assert "release: done before, nothing to do" in again.out


def test_a_policy_that_was_removed_is_released_again(copied_run, micro, cccad_run):
    shutil.rmtree(copied_run / "controls")
    assert cccad_run(micro, "--out", copied_run.parent).code == 0
    assert len(load_artefact(copied_run / "controls" / "ad" / "policy").spec.train_task_ids) == 14
