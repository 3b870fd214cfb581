"""Decisions per second: cached against recomputing the window, and what a decision costs as a life grows old.

First a `window` policy of 240 tokens acts in 64 Darkroom 9x9 environments, with keys and values cached and without, in
turns. Then a `gated-query` policy (60 slots, 8 latents) lives 1, 10 and 100 windows long: time and bytes per agent.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from cccad_core.agent import Agent, AgentState
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.compressors.window import WindowSpec
from cccad_core.memory.compressed import CompressedSpec, compressed
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Spaces
from cccad_envs.darkroom import DarkroomSpec
from machine import machine

NUM_ENVS = 64
WINDOW = PolicySpec(memory=CompressedSpec(window=240, carry=120, compressor=WindowSpec()))
GATED = PolicySpec(memory=CompressedSpec(window=60, compressor=GatedQuerySpec(num_latents=8)))
CYCLES = 9  # from write to write, of which the median counts
RESULTS = Path(__file__).parent / "results" / "act.json"


class Life:
    """A fresh policy in its environments; `go_on` lives some decisions more and returns the seconds they took."""

    def __init__(self, spec: PolicySpec, *, is_cached: bool = True) -> None:
        family = DarkroomSpec().build()
        tasks = [family.tasks[i % len(family.tasks)] for i in range(NUM_ENVS)]
        self.worlds = family.make_vec(tasks)
        policy = spec.build(Spaces.from_dict(family.spaces), 0)
        memory = compressed(policy.memory)
        self.context = memory.context
        self.agent = Agent(policy, memory if is_cached else memory.uncached())
        self.generator = torch.Generator().manual_seed(0)
        self.observations, _ = self.worlds.reset(seed=0)
        self.state: AgentState = self.agent.begin(NUM_ENVS)

    def go_on(self, num_decisions: int) -> float:
        """Act in every environment *num_decisions* times."""
        began = time.perf_counter()
        for _ in range(num_decisions):
            actions, self.state = self.agent.act(self.state, self.observations, generator=self.generator)
            self.observations, rewards, terminations, truncations, infos = self.worlds.step(actions.numpy())
            is_end = bool((terminations | truncations).any())
            true_next = infos["final_obs"] if is_end else self.observations  # all rows end together
            self.agent.observe(self.state, rewards, terminations, truncations, true_next)
        return time.perf_counter() - began


def cached_against_uncached(rounds: int) -> dict[str, Any]:
    """Return decisions per second of both, the median of *rounds* stretches that begin with a write."""
    lives = {"cached": Life(WINDOW), "uncached": Life(WINDOW, is_cached=False)}
    rates: dict[str, list[float]] = {name: [] for name in lives}
    context = lives["cached"].context
    for life in lives.values():
        life.go_on(context.first_segment)
    for _ in range(rounds):
        for name, life in lives.items():
            rates[name].append(NUM_ENVS * context.segment / life.go_on(context.segment))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "what": "decisions per second of 64 environments together, 'window' of 240 tokens, environments included",
        "decisions_per_s": {name: round(value, 1) for name, value in medians.items()},
        "ratio": round(medians["cached"] / medians["uncached"], 1),
    }


def growing_old() -> dict[str, Any]:
    """Return time per decision and bytes per agent at 1, 10 and 100 windows of life."""
    life, ages = Life(GATED), []
    context = life.context
    for windows in (1, 10, 100):
        life.go_on(windows * context.window - int(life.state.num_decisions[0]))
        seconds = statistics.median(life.go_on(context.segment) for _ in range(CYCLES))
        ages.append(
            {
                "life_in_windows": windows,
                "writes": int(life.state.num_writes[0]),
                "us_per_decision": round(1e6 * seconds / (context.segment * NUM_ENVS), 2),
                "bytes_per_agent": life.state.num_bytes // NUM_ENVS,
            }
        )
    return {"what": "'gated-query', 60 slots and 8 latents, 64 environments", "ages": ages}


def main() -> None:
    """Measure, print, and write `benchmarks/results/act.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result = {"cache": cached_against_uncached(arguments.rounds), "age": growing_old(), "machine": machine()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{result['cache']['decisions_per_s']} decisions/s, {result['cache']['ratio']} times as many with the cache")
    for age in result["age"]["ages"]:
        print(age)
    print(f"written to {arguments.out.name}")


if __name__ == "__main__":
    main()
