"""Hashes of what the code makes, so that a change that ought to change nothing can be shown to.

    .venv/bin/python tools/goldens.py before.json      # on the commit before
    .venv/bin/python tools/goldens.py after.json       # on the commit after, on the same machine
    diff before.json after.json

Histories of every source, weights and results of small runs, and the logits of a life of each compressor. Weights are
hashed as a bag of tensors, so that they may be renamed. Bits depend on the machine and on torch: only compare
files of one machine. Takes about five minutes on one core.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from cccad_core.agent import Agent
from safetensors.torch import load_file

COMPRESSORS = [
    "accumulate",
    "delta",
    "full",
    "gated-query",
    "gru",
    "mean-pool",
    "query",
    "retrieval",
    "rmt",
    "sink",
    "window",
]
SMALL = ("evaluate.num_episodes=20", "evaluate.num_replicas=2", "data.executor={ kind = 'inline' }")
UPDATES = ("train.num_updates=50", "controls={}", "evaluate.sliding=[]")
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "smoke": ("smoke", ("train.num_updates=50",)),
    "cad_darkroom": ("cad_darkroom", ("pretrain.num_updates=20", *UPDATES)),
    "key_to_door": ("memory/key_to_door", UPDATES),
    "transition layout": ("smoke", ("policy.tokens={ kind = 'transition' }", *UPDATES)),
    "switching": ("memory/switching_darkroom", UPDATES),
    "gradient rounds": ("smoke", ("train.max_gradient_rounds=2", *UPDATES)),
    "recall": ("memory/recall", UPDATES),
}
SOURCES = {
    "ppo": ("smoke", "{ kind = 'ppo', num_envs = 4, env_steps = 200, n_steps = 20, batch_size = 40 }"),
    "noisy-oracle": ("smoke", "{ kind = 'noisy-oracle', num_envs = 4, env_steps = 200 }"),
    "q-learning": ("smoke", "{ kind = 'q-learning', num_envs = 4, env_steps = 200 }"),
    "random": ("smoke", "{ kind = 'random', num_envs = 4, env_steps = 200 }"),
    "thompson": ("memory/bandit", "{ kind = 'thompson', num_envs = 4, env_steps = 200 }"),
    "ucb": ("memory/bandit", "{ kind = 'ucb', num_envs = 4, env_steps = 200 }"),
}


def sha(*parts: bytes) -> str:
    """Return the first hex digits of the SHA-256 of *parts*."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def run(spec: str, out: Path, *settings: str, only: str | None = None) -> Path:
    """Run an experiment of `experiments/` with other *settings*, and return its folder."""
    command = [sys.executable, "-m", "cccad_train", f"experiments/{spec}.toml", "--out", str(out)]
    for setting in (*SMALL, *settings):
        command += ["--set", setting]
    done = subprocess.run([*command, *(["--only", only] if only else [])], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{spec} {settings}: {done.stderr[-2000:]}")
    return next(iter(out.glob("*-s0")))


def of_histories(folder: Path) -> str:
    """Return a hash of all arrays of the shards below *folder*."""
    parts: list[bytes] = []

    def add(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            values = np.ascontiguousarray(node[()])
            parts.extend([name.encode(), values.dtype.str.encode(), values.tobytes()])

    for shard in sorted(folder.rglob("*.h5")) + sorted(folder.rglob("*.hdf5")):
        with h5py.File(shard) as file:
            file.visititems(add)
    assert parts, folder
    return sha(*parts)


def of_weights(folder: Path) -> str:
    """Return a hash of the tensors of a released policy, whatever their names."""
    weights = load_file(folder / "policy" / "model.safetensors")
    return sha(*sorted(sha(str(w.shape).encode(), w.numpy().tobytes()).encode() for w in weights.values()))


def of_results(folder: Path) -> str:
    """Return a hash of every return that was measured."""
    text = json.loads((folder / "evaluation" / "results.json").read_text())
    returns: list[bytes] = []

    def gather(node: Any) -> None:
        if isinstance(node, dict):
            for name in sorted(node):
                if name == "returns":
                    returns.append(json.dumps(node[name]).encode())
                else:
                    gather(node[name])
        elif isinstance(node, list):
            for each in node:
                gather(each)

    gather(text)
    assert returns
    return sha(*sorted(returns))


def of_life(folder: Path, num_decisions: int = 500) -> str:
    """Return a hash of the logits of three lives on random observations and rewards."""
    agent = Agent.load(folder / "policy")
    draws, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    state, parts = agent.begin(3), []
    observation: Any = agent.policy.spaces.observation
    for step in range(num_decisions):
        observations = np.stack([draws.integers(0, n, 3) for n in observation.sizes], 1)
        parts.append(agent.decide(state, observations).numpy().tobytes())  # `act` decides the same once more
        _, state = agent.act(state, observations, generator=generator)
        after = np.stack([draws.integers(0, n, 3) for n in observation.sizes], 1)
        ended = np.full(3, step % 10 == 9)
        state = agent.observe(state, draws.integers(0, 2, 3).astype(np.float32), np.zeros(3, bool), ended, after)
    return sha(*parts)


def goldens() -> dict[str, str]:
    """Return every hash by what it is of."""
    hashes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, (spec, source) in SOURCES.items():
            folder = run(spec, Path(temporary) / name, f"data.source={source}", only="collect")
            hashes[f"histories of {name}"] = of_histories(folder.parent)
        for name, (spec, settings) in RUNS.items():
            folder = run(spec, Path(temporary) / name, *settings)
            hashes |= {f"weights of {name}": of_weights(folder), f"returns of {name}": of_results(folder)}
        for name in COMPRESSORS:
            settings = (f"policy.memory.compressor={{ kind = '{name}' }}", "train.num_updates=20", *UPDATES[1:])
            folder = run("memory/switching_darkroom", Path(temporary) / f"c-{name}", *settings)
            hashes |= {f"weights of {name}": of_weights(folder), f"a life of {name}": of_life(folder)}
    return hashes


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(goldens(), indent=1) + "\n", encoding="utf-8")
