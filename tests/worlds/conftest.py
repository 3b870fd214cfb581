"""What the tests of other packages' environments share: they run where the specs do, and run those, only shorter."""

from pathlib import Path

import pytest
from cccad_data.by_name import thing_at
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "env.random_episodes": "2",
    "data.executor": '{ kind = "inline" }',
    "data.source.num_envs": "2",
    "pretrain.num_updates": "1",
    "train.num_updates": "2",
    "controls": "{}",
    "evaluate.num_episodes": "2",
    "evaluate.num_replicas": "1",
}


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def named():
    """Return what a file beside the specs calls by a name, as `reacher.py:expert`."""
    return lambda name: thing_at(f"experiments/gymnasium/{name}", "test")


@pytest.fixture
def report_of(tmp_path):
    """Run a spec with little of everything, and return what its run says."""
    cccad_run = pytest.importorskip("cccad_train.cli").run

    def run(spec, **settings):
        words = [f"--set={name}={value}" for name, value in (TINY | settings).items()]
        result = CliRunner().invoke(cccad_run, [f"experiments/gymnasium/{spec}", "--out", str(tmp_path), *words])
        assert result.exit_code == 0, result.output
        return result.output

    return run
