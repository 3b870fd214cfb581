"""A whole experiment so small that it runs in seconds, and the commands by which a person would run it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from attrs import evolve, frozen
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.context import ContextSpec
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Spaces
from cccad_train import cli
from click.testing import CliRunner

MICRO = """
name = "micro"
[env]
kind = "darkroom"
size = 4
horizon = 8
[data.source]
kind = "noisy-oracle"
num_envs = 4
env_steps = 200
tasks_per_unit = 4
[policy]
width = 16
num_layers = 1
num_heads = 2
context = { window = 14 }
compressor = { kind = "gated-query", num_latents = 2, num_heads = 2 }
[pretrain]
num_updates = 12
num_writes = 3
targets_per_update = 384
checkpoint_every_updates = 4
log_every_updates = 1
[train]
num_updates = 18
targets_per_update = 384
checkpoint_every_updates = 5
log_every_updates = 1
[train.curriculum]
kind = "staged"
stages = [{ at_update = 0, num_writes = 1 }, { at_update = 6, num_writes = 3 }, { at_update = 12, num_writes = 0 }]
[controls.ad.policy]
width = 16
num_layers = 1
num_heads = 2
compressor = { kind = "window" }
context = { window = 14, carry = 7 }
[controls.ad.train]
num_updates = 6
targets_per_update = 384
num_writes = 2
curriculum = { kind = "linear", num_updates = 5 }
checkpoint_every_updates = 4
log_every_updates = 1
[evaluate]
num_episodes = 12
num_replicas = 2
"""

KILLER = """
import os, signal, sys
from fnmatch import fnmatch

pattern, count = sys.argv[1], int(sys.argv[2])

def hook(event, arguments):
    global count
    if event == "os.rename" and fnmatch(os.fspath(arguments[1]), pattern):
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
from cccad_train.cli import run
run(sys.argv[3:])
"""


@frozen
class Outcome:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Sums are added up in one order: bits can be compared between processes."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def micro(tmp_path_factory):
    """The path of the micro spec."""
    path = tmp_path_factory.mktemp("spec") / "micro.toml"
    path.write_text(MICRO, encoding="utf-8")
    return path


@pytest.fixture
def policy():
    """Make the same small policy for a family, again and again; its windows take twelve decisions."""
    compressor = GatedQuerySpec(num_latents=2, num_heads=2)
    spec = PolicySpec(width=16, num_heads=2, context=ContextSpec(window=14), compressor=compressor)
    return lambda family, **changes: evolve(spec, **changes).build(Spaces.from_dict(family.spaces), seed=0)


def call(command, *arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def cccad_run():
    """`cccad-run`, in this process, on the CPU."""
    return lambda *arguments: call(cli.run, "--device", "cpu", *arguments)


@pytest.fixture(scope="session")
def cccad():
    """`cccad`, in this process."""
    return lambda *arguments: call(cli.main, *arguments)


@pytest.fixture(scope="session")
def cccad_run_killed():
    """`cccad-run` in a process that is killed just before it renames a file to a pattern for the n-th time."""

    def start(pattern, count, *arguments):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        told = [sys.executable, "-c", KILLER, pattern, str(count), "--device", "cpu", *map(str, arguments)]
        done = subprocess.run(told, env=environment, capture_output=True, text=True, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return start


@pytest.fixture(scope="session")
def micro_run(micro, cccad_run, tmp_path_factory):
    """The folder of a finished run of the micro spec; not to be changed."""
    out = tmp_path_factory.mktemp("runs")
    done = cccad_run(micro, "--out", out)
    assert done.code == 0, done.err
    return next(out.glob("micro-*"))


@pytest.fixture(scope="session")
def results(micro_run):
    """`results.json` of the finished run."""
    return json.loads((micro_run / "evaluation" / "results.json").read_text(encoding="utf-8"))


@pytest.fixture
def only_run():
    """The one run folder under an `out` folder."""

    def find(out: Path) -> Path:
        [folder] = out.glob("micro-*")
        return folder

    return find


@pytest.fixture
def copied_run(micro_run, tmp_path):
    """A copy of the finished run, with the data beside it, that a test may change."""
    shutil.copytree(micro_run.parent, tmp_path / "runs", symlinks=True)
    return tmp_path / "runs" / micro_run.name
