"""Every benchmark that `make bench` runs still runs: with little to do, in a process of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
QUICK = {
    "act": ["--rounds", "1"],
    "collect": ["--tasks", "1", "--our-tasks", "2", "--env-steps", "16000", "--cores", "1"],
    "equality": ["--families", "darkroom", "--seeds", "2", "--max-tasks", "2", "--cores", "1"],
    "sources": ["--env-steps", "200", "--cores", "1"],
    "store": ["--size-gb", "0.02", "--memory-gb", "0.01", "--batches", "3", "--repeats", "1"],
    "train": ["--seconds", "0.2", "--rounds", "1"],
}


def test_make_bench_names_every_script_that_measures():
    [listed] = re.findall(r"^BENCHMARKS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    scripts = [path for path in (ROOT / "benchmarks").glob("*.py") if '"__main__"' in path.read_text(encoding="utf-8")]
    assert listed.split() == sorted(path.stem for path in scripts) == sorted(QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_benchmark_writes_what_it_measured(name, tmp_path):
    out = tmp_path / "result.json"
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", *QUICK[name], "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text(encoding="utf-8"))["machine"]
