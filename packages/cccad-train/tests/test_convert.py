"""Policies of the first format are written in the newest; what is of the newest is left alone."""

import shutil
from pathlib import Path

import pytest
import torch
from cccad_core.artefact import FORMAT, load_artefact

FIRST_FORMAT = Path(__file__).resolve().parents[2] / "cccad-core" / "tests" / "first_format"
needs_first_format = pytest.mark.skipif(not FIRST_FORMAT.exists(), reason="it lies beside the tests of cccad-core")


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@needs_first_format
@pytest.mark.parametrize("name", ["every", "random"])
def test_a_policy_of_the_first_format_becomes_one_of_the_newest_with_the_same_weights(cccad, tmp_path, name):
    old, new = FIRST_FORMAT / name, tmp_path / "policy"
    before = files(old)
    done = cccad("convert", old, new)
    assert done.code == 0, done.err
    assert done.out == f"{new}: the policy in {old}, of format cccad-policy/1, is written in the newest, {FORMAT}\n"
    assert files(old) == before
    theirs, ours = load_artefact(old), load_artefact(new)
    assert ours.spec.format == FORMAT
    assert ours.spec.policy == theirs.spec.policy
    assert ours.spec.train_task_ids == theirs.spec.train_task_ids
    assert (new / "README.md").read_bytes() == (old / "README.md").read_bytes()
    weights = ours.policy.state_dict()
    assert weights.keys() == theirs.policy.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in theirs.policy.state_dict().items())


@needs_first_format
def test_nothing_is_written_over(cccad, tmp_path):
    (tmp_path / "policy").mkdir()
    refused = cccad("convert", FIRST_FORMAT / "every", tmp_path / "policy")
    assert refused.code == 2
    assert "is there already, and is not written over" in refused.err
    assert list(tmp_path.rglob("*")) == [tmp_path / "policy"]


def test_what_is_of_the_newest_format_is_left_alone(cccad, micro_run, tmp_path):
    [dataset] = (micro_run.parent / "data").iterdir()
    shard = next(dataset.rglob("*.h5"))
    for old in (micro_run / "policy", micro_run / "evaluation" / "results.json", dataset, shard):
        done = cccad("convert", old, tmp_path / "new")
        assert done.code == 0, done.err
        assert "of the newest format, cccad-" in done.out
        assert "nothing is written" in done.out
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_of_ours_or_damaged_is_refused(cccad, micro_run, tmp_path):
    (tmp_path / "note.json").write_text("{}")
    shutil.copytree(micro_run / "policy", tmp_path / "policy")
    (tmp_path / "policy" / "model.safetensors").write_bytes(b"no weights")
    for old, message in {
        tmp_path / "nowhere": "there is nothing here",
        micro_run: "this can be converted: the folder of a policy",
        tmp_path / "note.json": "the results are of format None",
        tmp_path / "policy": "the file is damaged or cut off",
    }.items():
        refused = cccad("convert", old, tmp_path / "new")
        assert refused.code == 2
        assert message in refused.err
    assert not (tmp_path / "new").exists()
