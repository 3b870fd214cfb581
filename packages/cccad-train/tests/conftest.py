"""A whole experiment so small that it runs in seconds, and the commands by which a person would run it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.memory.compressed import CompressedSpec
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

[policy.memory]
kind = "compressed"
window = 14
num_layers = 1
num_heads = 2
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

[controls.ad.policy.memory]
kind = "compressed"
window = 14
carry = 7
num_layers = 1
num_heads = 2
compressor = { kind = "window" }
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
    spec = PolicySpec(memory=CompressedSpec(window=14, compressor=compressor, num_heads=2), width=16)
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
        ended = [sys.executable, "-c", KILLER, pattern, str(count), "--device", "cpu", *map(str, arguments)]
        done = subprocess.run(ended, env=environment, capture_output=True, text=True, check=False)
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


NUM_TASKS, NUM_REPLICAS, HORIZON = 8, 16, 20
OPTIMAL = np.array([17.0, 16.0, 18.0, 15.0, 19.0, 16.0, 17.0, 14.0])
RANDOM = np.array([0.3, 0.2, 0.5, 0.1, 0.9, 0.2, 0.3, 0.1])


def learning(rng, num_episodes, end, pace):
    """Return plausible returns of something that learns, `task replica episode`."""
    slow = np.linspace(0.7, 1.3, NUM_TASKS)[:, None, None]
    share = end * (1 - np.exp(-np.arange(num_episodes) / (pace * slow)))
    noise = rng.normal(0, 0.08, size=(NUM_TASKS, NUM_REPLICAS, num_episodes))
    span = (OPTIMAL - RANDOM)[:, None, None]
    return np.clip(RANDOM[:, None, None] + span * (share + noise), 0, OPTIMAL[:, None, None]).round()


def make_results(seed=0, num_episodes=100):
    """Return results of the known format with an agent on trial and six controls."""
    rng = np.random.default_rng(seed)
    every = tuple(range(43, num_episodes * HORIZON, 43))
    agents = {
        "cad": ("CAD, gated-query", "agent", learning(rng, num_episodes, end=0.96, pace=9), every),
        "optimal": ("optimum", "control", np.ones((NUM_TASKS, 2, num_episodes)) * OPTIMAL[:, None, None], ()),
        "random": ("random policy", "control", learning(rng, num_episodes, end=0.01, pace=1), ()),
        "window": ("window of the same size", "control", learning(rng, num_episodes, end=0.8, pace=14), ()),
        "full": ("full history", "control", learning(rng, num_episodes, end=0.97, pace=8), ()),
        "zeroed": ("latents zeroed", "control", learning(rng, num_episodes, end=0.5, pace=20), ()),
        "swapped": ("latents of another task", "control", learning(rng, num_episodes, end=0.3, pace=25), ()),
    }
    entries = {
        name: {
            "label": label,
            "role": role,
            "description": f"What {name} does & why <it> is here.",
            "returns": returns.tolist(),
            "compressions": [list(writes)] * NUM_TASKS if writes else [],
            "compressions_per_history": float(len(writes)),
            "actions_per_s": 36_000.0,
        }
        for name, (label, role, returns, writes) in agents.items()
    }
    source = (0.95 * (1 - np.exp(-np.arange(50) / 12))).tolist()
    entries["source"] = {"label": "PPO, its own life", "role": "control", "description": "", "normalized_curve": source}
    tasks = [
        {
            "task_id": f"darkroom-9x9/goal-{index}-{8 - index}",
            "params": {"goal_x": index, "goal_y": 8 - index},
            "split": "held-out",
            "optimal_return": OPTIMAL[index],
            "random_return": RANDOM[index],
        }
        for index in range(NUM_TASKS)
    ]
    return {
        "format": "cccad-results/1",
        "agents": entries,
        "tasks": tasks,
        "horizon": HORIZON,
        "trained_episodes": 50.0,
        "training": {"writes_per_history": 9.0, "evaluation_writes_at_same_length": 9.3},
        "spec_digest": "0a1b2c3d",
    }


def make_metrics():
    """Return metrics of two stages, one of them with a value that is not finite."""
    rng = np.random.default_rng(0)
    lines = [{"stage": "collect", "env_step": 10_000, "time_s": 3.0, "return": 4.5}]
    for update in range(0, 2_000, 10):
        noise = rng.normal(0, 0.03)
        loss = 2 * np.exp(-update / 300) + 0.1 + noise
        lines.append({"stage": "pretrain", "update": update, "time_s": 1.0, "loss": loss})
        numbers = {"max_writes": min(9, update // 200), "action_loss": loss + 0.3, "lr": 3e-4 * (1 - update / 2_000)}
        lines.append({"stage": "train", "update": update, "time_s": 2.0, **numbers})
    lines.append({"stage": "train", "update": 2_000, "time_s": 2.0, "action_loss": float("nan")})
    return lines


def make_run(parent, name="cad_darkroom-0a1b2c3d-s0", *, seed=0, num_episodes=100):
    """Return a run folder that holds everything that a report may read."""
    run_dir = parent / name
    (run_dir / "evaluation").mkdir(parents=True)
    results = make_results(seed, num_episodes) | {"spec_digest": name.split("-")[-2]}
    (run_dir / "evaluation" / "results.json").write_text(json.dumps(results))
    card = {"tasks": 73, "histories": 1_168, "env_steps": 1_168_000, "return": {"early": 0.31, "late": 15.72}}
    (run_dir / "evaluation" / "data_card.json").write_text(json.dumps(card))
    versions = {"cccad-core": "0.1.0", "torch": "2.13.0"}
    meta = {"versions": versions, "git_commit": "c0ffee", "argv": ["cccad-run", "x.toml"]}
    (run_dir / "meta.json").write_text(json.dumps(meta))
    (run_dir / "spec.toml").write_text('name = "cad_darkroom"\nseed = 0\n\n[policy.compressor]\nkind = "gated-query"\n')
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in make_metrics()))
    return run_dir


@pytest.fixture(name="make_results")
def _make_results():
    return make_results


@pytest.fixture(name="make_metrics")
def _make_metrics():
    return make_metrics


@pytest.fixture(name="make_run")
def _make_run():
    return make_run
