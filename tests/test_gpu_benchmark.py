"""`make bench-gpu` where there is no GPU: its script, tried on the CPU in small sizes, and its refusal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu" / "measure.py"


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_the_script_measures_and_draws_what_it_promises(tmp_path):
    done = run("--device", "cpu", "--quick", "--out", tmp_path / "gpu.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [(row["width"], row["precision"]) for row in result["training"]] == [(32, "fp32"), (32, "bf16")]
    assert all(row["targets_per_s"] > 0 and row["flops_per_s"] > 0 for row in result["training"])
    assert [row["rows"] for row in result["decisions"]] == [1, 64, 1024]
    for row in result["decisions"]:
        assert 0 < row["ms"]["without_write"]["p50"] <= row["ms"]["without_write"]["p95"]
        assert row["ms"]["with_write"]["p50"] > 0
    assert (tmp_path / "gpu.svg").read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_in_a_sentence():
    done = run()
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "error: torch finds no CUDA device here; '--device cpu --quick' tries the script"
    )
