"""Env steps per second of the sources that need no network, on Darkroom 9x9, and what q-learning learns meanwhile.

    python benchmarks/sources.py --cores 2

Each source collects all train tasks the way any user does: `collect` with one worker process per core, and everything
counts by the clock, from the start of the processes to the last byte on the disk. What a collection of next to nothing
takes (starting, importing) and what writing alone takes are shown apart. CPU seconds are counted as well, which a busy
machine distorts less.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from cccad_data import Histories, NoisyOracleSpec, ProcessesSpec, QLearningSpec, RandomSpec, learning_curve
from cccad_data import collect as collect_tasks
from cccad_data.histories import shards
from cccad_data.histories.dataset import MANIFEST
from cccad_data.histories.header import HEADER_KEYS
from cccad_envs.darkroom import DarkroomSpec
from collect import SPLIT, children_cpu_s

BAR = 3e6  # env steps per second of q-learning on two cores
SOURCES = {
    "q-learning": QLearningSpec(),
    "q-learning, epsilon": QLearningSpec(exploration="epsilon"),
    "random": RandomSpec(num_envs=100),
    "noisy-oracle": NoisyOracleSpec(num_envs=100),
}
RESULTS = Path(__file__).parent / "results" / "sources.json"


def timed(spec: Any, cores: int, out: Path) -> tuple[float, float]:
    """Collect into the folder *out*; return the seconds that the clock shows, and the CPU seconds of the workers."""
    family, clock, cpu_s = DarkroomSpec().build(), time.perf_counter(), children_cpu_s()
    collect_tasks(family, spec.build(), ProcessesSpec(num_workers=cores).build(), out=out, split=SPLIT, seed=0)
    return time.perf_counter() - clock, children_cpu_s() - cpu_s


def written(histories: Histories, out: Path) -> tuple[float, int]:
    """Write *histories* again as one shard; return the seconds that took, and the bytes that went in."""
    arrays = [array for task in histories for array in task.arrays().values()]
    header, clock = json.loads((out / MANIFEST).read_text(encoding="utf-8")), time.perf_counter()
    shards.write_shard(out / "again.h5", {key: header[key] for key in HEADER_KEYS}, list(histories))
    return time.perf_counter() - clock, sum(array.nbytes for array in arrays)


def measure(name: str, cores: int, env_steps: int) -> dict[str, Any]:
    """Return the speed of *cores* processes together, and what their learners learned in lives of *env_steps*."""
    family = DarkroomSpec().build()
    tasks = family.split(**SPLIT).train
    spec = attrs.evolve(SOURCES[name], env_steps=env_steps, tasks_per_unit=-(-len(tasks) // cores))
    with tempfile.TemporaryDirectory() as folder:
        start_s, _ = timed(attrs.evolve(spec, num_envs=1, env_steps=family.horizon), cores, Path(folder) / "start")
        out = Path(folder) / "set"
        wall_s, cpu_s = timed(spec, cores, out)
        histories = Histories.open(out)
        total = sum(task.num_env_steps for task in histories)
        curves = np.stack(list(learning_curve(histories).values()))
        write_s, num_bytes = written(histories, out)
    random, optimal = (ask(tasks)[:, None] for ask in (family.random_returns, family.optimal_returns))
    parts = np.array_split((curves - random) / (optimal - random), 10, axis=1)
    return {
        "processes": cores,
        "env_steps": total,
        "wall_s": round(wall_s, 2),
        "of_which_start_s": round(start_s, 2),
        "env_steps_per_s": round(total / wall_s),
        "env_steps_per_cpu_s": round(total / cpu_s),
        "written_again_in_one_process_s": round(write_s, 2),
        "written_mb_per_s": round(num_bytes / write_s / 1e6),
        "normalised_return_by_tenth_of_life": [round(float(part.mean()), 3) for part in parts],
        "worst_task_at_the_end": round(float(parts[-1].mean(1).min()), 3),
    }


def main() -> None:
    """Measure every source and write the result."""
    from machine import machine  # not above: it imports torch, and every worker process imports this file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--env-steps", type=int, default=4000, help="length of each history")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": {**machine(), "load_before": os.getloadavg()[0]}, "sources": {}}
    for name in SOURCES:
        result["sources"][name] = measure(name, arguments.cores, arguments.env_steps)
        print(name, json.dumps(result["sources"][name]), flush=True)
    speed = result["sources"]["q-learning"]["env_steps_per_s"]
    result["bar"] = {"q-learning env_steps_per_s": BAR, "met": speed >= BAR}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
