"""Two processes do what one does, and processes that do not know of one another are refused."""

import os
import subprocess
import sys

import pytest
from cccad_train.launch import LaunchError, build_accelerator
from safetensors.numpy import load_file

SHORT = [  # global batches of 8 rows in pre-training, and of 11, which does not divide into two, in training
    *("--set", 'train.curriculum={ kind = "none" }', "--set", "train.num_writes=2", "--set", "train.num_updates=6"),
    *("--set", "pretrain.num_updates=4", "--set", "train.checkpoint_every_updates=3", "--set", "controls={}"),
    *("--set", "evaluate.memory_controls=false"),
]


@pytest.mark.timeout(900)
def test_two_processes_end_with_the_weights_of_one(micro, cccad_run, tmp_path, only_run):
    alone = cccad_run(micro, "--out", tmp_path / "one", *SHORT)
    assert alone.code == 0, alone.err
    together = subprocess.run(
        [sys.executable, "-m", "cccad_train.cli", micro, "--out", tmp_path / "two", "--processes", "2", *SHORT],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("run: ") == 1
    one, two = (load_file(only_run(tmp_path / name) / "policy" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert max(abs(one[name] - two[name]).max() for name in one) < 1e-5


def test_processes_that_are_not_connected_refuse_to_start(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="2 processes were started but 1 are connected"):
        build_accelerator("cpu")
