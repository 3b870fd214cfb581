"""Killed at any moment and resumed, a run on the CPU ends with the same bits as one that was left in peace."""

import json

import pytest
from cccad_train.fit.checkpoints import updates


def facts(path):
    return json.loads(path.read_text(encoding="utf-8"))


def without_clock(results):
    for agent in results["agents"].values():
        agent.pop("actions_per_s", None)
    return results


def metrics(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open(encoding="utf-8")]
    return [{name: value for name, value in row.items() if name != "time_s"} for row in rows]


KILLS = [  # before which file gets its name, for the how-many-th time; the newest checkpoint that is then there
    ("*/shards/unit-0002.h5", 1, None),
    ("*/pretrain-cad/latest", 2, "checkpoints/pretrain-cad/update_8"),
    ("*/train-cad/update_15", 1, "checkpoints/train-cad/update_10"),
    ("*/train-ad/update_6", 1, "checkpoints/train-ad/update_4"),
    ("*/evaluation/results.json", 1, "checkpoints/train-ad/update_6"),
]


@pytest.mark.timeout(900)  # six processes, one after another: half a minute of work
def test_a_run_that_is_killed_in_every_stage_ends_bit_identical(
    micro, micro_run, cccad_run, cccad_run_killed, tmp_path, only_run
):
    for pattern, count, newest in KILLS:
        killed = cccad_run_killed(pattern, count, micro, "--out", tmp_path, "--resume")
        assert killed.code == -9, killed.err
        folder = only_run(tmp_path)
        assert not (folder / "report.html").exists()
        if newest is not None:
            assert updates((folder / newest).parent)[-1] == folder / newest
        if count == 2:  # a begun stage: without --resume nothing is touched
            refused = cccad_run(micro, "--out", tmp_path)
            assert refused.code == 2
            assert "add --resume" in refused.err
    done = cccad_run(micro, "--out", tmp_path, "--resume")
    assert done.code == 0, done.err
    folder = only_run(tmp_path)
    for name in ("policy", "controls/ad/policy"):
        ours, theirs = (run / name / "model.safetensors" for run in (folder, micro_run))
        assert ours.read_bytes() == theirs.read_bytes()
    assert metrics(folder) == metrics(micro_run)
    ours, theirs = (without_clock(facts(run / "evaluation" / "results.json")) for run in (folder, micro_run))
    assert ours == theirs
    assert len(facts(folder / "meta.json")["continued"]) == len(KILLS)
    assert [path for path in tmp_path.rglob("*.partial") if path.is_file()] == []
