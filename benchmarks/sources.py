"""Env steps per second of the sources that need no network, on Darkroom 9x9, and what q-learning learns meanwhile.

    python benchmarks/sources.py --cores 2

Each source collects the train tasks, all at once per process, with no file written: as many processes as cores, each
with another seed. Every process measures from when all have imported what they need, and the slowest one counts. CPU
seconds are counted as well, which a busy machine distorts less.
"""

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from cccad_data import NoisyOracleSpec, QLearningSpec, RandomSpec, learning_curve
from cccad_envs.darkroom import DarkroomSpec
from machine import machine

BAR = 3e6  # env steps per second of q-learning on two cores
SPLIT = {"seed": 0, "held_out_frac": 0.1}
SOURCES = {
    "q-learning": QLearningSpec(),
    "q-learning, epsilon": QLearningSpec(exploration="epsilon"),
    "random": RandomSpec(num_envs=100),
    "noisy-oracle": NoisyOracleSpec(num_envs=100),
}
RESULTS = Path(__file__).parent / "results" / "sources.json"


def collect(name: str, seed: int, start: Any) -> dict[str, Any]:
    """Collect once when every process is ready; return the speed and the normalised returns by tenth of the life."""
    family, spec = DarkroomSpec().build(), SOURCES[name]
    tasks = family.split(**SPLIT).train
    warm_up = attrs.evolve(spec, num_envs=1, env_steps=family.horizon).build()
    warm_up.collect(family, tasks, seed=seed)
    start.wait()
    clock, cpu = time.perf_counter(), time.process_time()
    histories = spec.build().collect(family, tasks, seed=seed)
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    curves = np.stack(list(learning_curve(histories).values()))
    random, optimal = (ask(tasks)[:, None] for ask in (family.random_returns, family.optimal_returns))
    normalised = (curves - random) / (optimal - random)
    return {
        "env_steps": sum(task.num_env_steps for task in histories),
        "wall_s": clock,
        "cpu_s": cpu,
        "curve": [float(part.mean()) for part in np.array_split(normalised, 10, axis=1)],
        "worst_task": float(np.array_split(normalised, 10, axis=1)[-1].mean(1).min()),
    }


def measure(name: str, cores: int) -> dict[str, Any]:
    """Return the speed of *cores* processes together, and what their learners learned."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(cores) as pool:
        start = manager.Barrier(cores)
        runs = pool.starmap(collect, [(name, seed, start) for seed in range(cores)], chunksize=1)
    env_steps = sum(run["env_steps"] for run in runs)
    return {
        "processes": cores,
        "env_steps": env_steps,
        "env_steps_per_s": round(env_steps / max(run["wall_s"] for run in runs)),
        "env_steps_per_cpu_s": round(env_steps / sum(run["cpu_s"] for run in runs)),
        "normalised_return_by_tenth_of_life": np.mean([run["curve"] for run in runs], axis=0).round(3).tolist(),
        "worst_task_at_the_end": round(min(run["worst_task"] for run in runs), 3),
    }


def main() -> None:
    """Measure every source and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "sources": {}}
    for name in SOURCES:
        result["sources"][name] = measure(name, arguments.cores)
        print(name, json.dumps(result["sources"][name]), flush=True)
    speed = result["sources"]["q-learning"]["env_steps_per_s"]
    result["bar"] = {"q-learning env_steps_per_s": BAR, "met": speed >= BAR}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
