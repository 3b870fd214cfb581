"""The executor of docs/slurm.md, as the page has it, runs: in processes of this machine, if submitit is installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "slurm.md"
SPEC = """
name = "jobs"
imports = ["submitit_executor.py"]
env = { kind = "darkroom", size = 4, horizon = 8 }
[data]
source = { kind = "noisy-oracle", num_envs = 2, env_steps = 80, tasks_per_unit = 5 }
executor = { kind = "submitit", cluster = "local", poll_every_s = 0.2 }
"""
COMMAND = [sys.executable, "-c", "from cccad_train.cli import main; main()", "data", "collect", "spec.toml"]


def shards(folder):
    [data] = (folder / "data").iterdir()
    return {path.name: path.read_bytes() for path in (data / "shards").iterdir()}


def test_units_as_jobs_give_the_same_shards(tmp_path):
    pytest.importorskip("submitit")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "submitit_executor.py").write_text(code, encoding="utf-8")
    (tmp_path / "spec.toml").write_text(SPEC, encoding="utf-8")
    inline = ["--set", 'data.executor={ kind = "inline" }']
    subprocess.run([*COMMAND, "--out", "jobs"], cwd=tmp_path, check=True)
    subprocess.run([*COMMAND, "--out", "inline", *inline], cwd=tmp_path, check=True)
    assert len(shards(tmp_path / "jobs")) == 3
    assert shards(tmp_path / "jobs") == shards(tmp_path / "inline")
