"""Training targets per second: every decision of a history against its last one, on histories of 300 decisions.

Dense: stretches of 300 decisions, the loss on all of them. Last: the same stretches, the loss on the last decision
alone. Last of random lengths: prefixes of 1 to 300 decisions, one length for a batch (cheapest: nothing is padded),
which are 150 long on average. The policy, its window (60 slots, 8 latents, `gated-query`), the pass and the
optimizer are the same; the three alternate.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cccad_core.batch import HistoryBatch
from cccad_core.objectives.imitation import ImitationSpec
from cccad_core.policy import Policy, PolicySpec
from cccad_core.spaces import Spaces
from cccad_data import InlineSpec, NoisyOracleSpec, Sampler, SamplerSpec, collect
from cccad_data.histories.dataset import Histories
from cccad_envs.darkroom import DarkroomSpec
from cccad_train.fit.optimization import OptimizerSpec
from machine import machine

LENGTH = 300
BATCH = {"dense": 80, "last": 80, "last_random_length": 128}  # histories in an update; the last is the earlier code's
RESULTS = Path(__file__).parent / "results" / "train.json"


def histories(folder: Path) -> Sampler:
    """Collect 20 Darkroom tasks, 10 histories of 600 env steps each."""
    source = NoisyOracleSpec(num_envs=10, env_steps=600).build()
    split = {"seed": 0, "held_out_frac": 0.1}
    family = DarkroomSpec().build()
    collect(family, source, InlineSpec().build(), out=folder, split=split, seed=0, max_tasks=20)
    return SamplerSpec().build(Histories.open(folder), 0)


def dense_loss(policy: Policy) -> Callable[[HistoryBatch], tuple[torch.Tensor, int]]:
    """Return the project's own objective."""
    spec = ImitationSpec()
    objective, weights = spec.build(policy), spec.weights(0.0)

    def loss(batch: HistoryBatch) -> tuple[torch.Tensor, int]:
        targets = batch.size * batch.length
        return objective(batch, float(targets), weights)["loss"], targets

    return loss


def last_loss(policy: Policy) -> Callable[[HistoryBatch], tuple[torch.Tensor, int]]:
    """Return the objective that learns from the last decision of each prefix alone."""

    def loss(batch: HistoryBatch) -> tuple[torch.Tensor, int]:
        parameters = policy(batch).ask(policy.head)[:, -1:]
        return policy.head.nats(parameters, batch.actions[:, -1:]).mean(), batch.size

    return loss


def measure(seconds: float, rounds: int) -> dict[str, Any]:
    """Return targets per second of each way, the median of *rounds* turns of *seconds*."""
    rates: dict[str, list[float]] = {name: [] for name in BATCH}
    with tempfile.TemporaryDirectory() as folder:
        sampler = histories(Path(folder))
        spaces = Spaces.from_dict(DarkroomSpec().build().spaces)
        builders = {"dense": dense_loss, "last": last_loss, "last_random_length": last_loss}
        runs = {}
        for name, make in builders.items():
            policy = PolicySpec().build(spaces, 0)
            runs[name] = make(policy), OptimizerSpec().build(policy)
        lengths = np.random.default_rng(0)
        for turn in range(rounds + 1):  # the first turn warms up
            for name, (loss, optimizer) in runs.items():
                began, targets, update = time.perf_counter(), 0, 0
                while time.perf_counter() - began < (seconds if turn else seconds / 3):
                    length = int(lengths.integers(1, LENGTH + 1)) if name == "last_random_length" else LENGTH
                    arrays = sampler.batch(turn * 10_000 + update, length, BATCH[name])
                    value, done = loss(HistoryBatch.from_arrays(arrays))
                    value.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    targets, update = targets + done, update + 1
                if turn:
                    rates[name].append(targets / (time.perf_counter() - began))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "what": "training targets per second, histories of 300 decisions, window 60 with 8 latents",
        "histories_per_update": BATCH,
        "targets_per_s": {name: round(value, 1) for name, value in medians.items()},
        "targets_per_s_of_each_turn": {name: [round(v, 1) for v in values] for name, values in rates.items()},
        "ratio": round(medians["dense"] / medians["last"], 1),
        "ratio_to_random_length": round(medians["dense"] / medians["last_random_length"], 1),
        "machine": machine(),
    }


def main() -> None:
    """Measure, print, and write `benchmarks/results/train.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result = measure(arguments.seconds, arguments.rounds)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{result['targets_per_s']} targets/s, {result['ratio']} times as many; written to {arguments.out.name}")


if __name__ == "__main__":
    main()
