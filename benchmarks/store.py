"""The store: how fast shards are written, and sampling from a set on the disk against one in memory, in one process.

    python benchmarks/store.py --size-gb 5

Megabytes are those of the arrays as held in memory. The large set is the histories of noisy oracles in Darkroom, many
times over, uncompressed, in a temporary folder. Batches are drawn in turn from the disk and from a smaller set in
memory; the ratio is one of CPU seconds, which a busy machine distorts less than the clock's, and of the fastest quarter
of the batches by the clock. Resident memory is that of a process that has opened the large set alone: what is its own,
and what are pages of files, which the system drops when it needs room.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from cccad_data import Histories, NoisyOracleSpec, SamplerSpec
from cccad_data.histories.header import FORMAT
from cccad_data.histories.history import OFFSETS, TaskHistories
from cccad_data.histories.merging import write_dataset
from cccad_data.histories.shards import COMPRESSIONS, write_shard
from cccad_envs.darkroom import DarkroomSpec
from machine import machine

SIZE, LENGTH = 64, 1000
BARS = {"written_mb_per_s": 200.0, "in_memory_transitions_per_s": 1e6, "disk_to_memory": 0.5}


def num_bytes(tasks: Any) -> int:
    """Return how much the arrays of *tasks* take in memory."""
    return sum(array.nbytes for task in tasks for array in task.arrays().values())


def repeated(task: TaskHistories, times: int, task_id: str) -> TaskHistories:
    """Return the histories of *task*, *times* over, as those of another."""
    arrays: dict[str, Any] = {name: np.concatenate([array] * times) for name, array in task.arrays().items()}
    for name in OFFSETS:
        arrays[name] += np.repeat(np.arange(times) * task.num_env_steps, len(getattr(task, name)))
    return attrs.evolve(task, task_id=task_id, **arrays)


def written(folder: Path, header: dict[str, Any], tasks: list[TaskHistories], repeats: int) -> dict[str, Any]:
    """Write a shard with every compression; return the best speeds and the sizes."""
    size, result = num_bytes(tasks) / 1e6, {}
    for compression in COMPRESSIONS:
        walls, cpus = [], []
        for _ in range(repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            write_shard(folder / "shard.h5", header, tasks, compression)
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        file_size = (folder / "shard.h5").stat().st_size / 1e6
        result[compression] = {
            "mb": round(size, 1),
            "mb_per_s": round(size / min(walls), 1),
            "mb_per_cpu_s": round(size / min(cpus), 1),
            "file_frac": round(file_size / size, 3),
        }
        print(compression, result[compression], flush=True)
    return result


def sampled(disk: Any, memory: Any, batches: int) -> dict[str, Any]:
    """Draw *batches* from each sampler in turn; return their speeds, in transitions a CPU second and a second."""
    spent: dict[str, list[tuple[float, float]]] = {"disk": [], "memory": []}
    for index in range(batches):
        for name, sampler in (("disk", disk), ("memory", memory)):
            wall, cpu = time.perf_counter(), time.process_time()
            sampler.batch(index, LENGTH, SIZE)
            spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    result: dict[str, Any] = {}
    for name, pairs in spent.items():
        wall_s, cpu_s = np.array(pairs).T
        result[name] = {
            "transitions_per_s": round(SIZE * LENGTH / float(np.quantile(wall_s, 0.25))),
            "transitions_per_cpu_s": round(SIZE * LENGTH / float(cpu_s.mean())),
        }
    for unit in ("transitions_per_s", "transitions_per_cpu_s"):
        result[f"ratio_{unit}"] = round(result["disk"][unit] / result["memory"][unit], 3)
    return result


def resident() -> dict[str, float]:
    """Return the megabytes that are resident: the process's own, and pages of files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    measured = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
    return {name: round(int(measured[name].split()[0]) / 1e3, 1) for name in ("RssAnon", "RssFile")}


def prepare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the writing, and leave a large, a small and a packed set in *folder*."""
    family = DarkroomSpec().build()
    tasks = NoisyOracleSpec(num_envs=100, env_steps=10_000).build().collect(family, family.tasks[:8], seed=0)
    env = {"kind": "darkroom", **attrs.asdict(family.spec)}
    header: dict[str, Any] = {"format": FORMAT, "env": env, "spaces": family.spaces}
    header |= {"horizon": family.horizon, "held_out_task_ids": [], "split": {}, "versions": {}, "seed": 0}
    header |= {"source": {"kind": "noisy-oracle"}, "tasks": []}

    def many(size_gb: float) -> Iterator[TaskHistories]:
        times, count = 8, round(size_gb * 1e9 / (num_bytes(tasks[:1]) * 8))
        return (repeated(tasks[index % len(tasks)], times, f"task-{index}") for index in range(max(count, 1)))

    result: dict[str, Any] = {"written": written(folder, header, tasks, arguments.repeats)}
    started = time.process_time()
    large = write_dataset(folder / "large", header, many(arguments.size_gb), compression="none")
    result["writing_the_large_set_cpu_s"] = round(time.process_time() - started, 1)
    result["large_gb"] = round(sum(path.stat().st_size for path in large.rglob("*.h5")) / 1e9, 2)
    write_dataset(folder / "lzf", header, many(arguments.memory_gb), compression="lzf")
    write_dataset(folder / "gzip", header, many(arguments.memory_gb), compression="gzip")
    return result


def compare(folder: Path, batches: int) -> dict[str, Any]:
    """Sample from the sets in *folder*."""
    before, started = resident(), time.process_time()
    disk = SamplerSpec().build(Histories.open(folder / "large", lazy=True), 0)
    result: dict[str, Any] = {"opening_cpu_s": round(time.process_time() - started, 1)}
    measured = [resident()]
    for index in range(batches):
        disk.batch(batches + index, LENGTH, SIZE)
        measured.append(resident())
    result["resident_mb"] = {"before": before, "most": {name: max(part[name] for part in measured) for name in before}}
    memory = SamplerSpec().build(Histories.open(folder / "lzf", lazy=False), 0)
    result["sampled"] = sampled(disk, memory, batches)
    for name in ("lzf", "gzip"):
        slow = SamplerSpec().build(Histories.open(folder / name, lazy=True), 0)
        result[f"sampled_{name}"] = sampled(slow, memory, max(batches // 30, 2))
    return result


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-gb", type=float, default=5.0, help="of the set on the disk")
    parser.add_argument("--memory-gb", type=float, default=0.5, help="of the set in memory")
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5, help="shards written with each compression")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "store.json")
    arguments = parser.parse_args()
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    if free < 2 * arguments.size_gb + 2:
        raise SystemExit(f"{tempfile.gettempdir()} has {free:.1f} GB free, which is too little for this; see --size-gb")
    result: dict[str, Any] = {"machine": {**machine(), "load_before": os.getloadavg()[0]}, "bars": BARS}
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        result |= pool.submit(prepare, Path(name), arguments).result()
        result |= compare(Path(name), arguments.batches)
    result["machine"]["load_after"] = os.getloadavg()[0]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
