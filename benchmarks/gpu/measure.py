"""What a GPU makes of it: the tests marked `gpu`, then targets/s, decisions/s, memory and FLOPs by width and precision.

`make bench-gpu` runs it; `docs/testing.md` says how, also on a machine without a network. Training is the project's own
loop on Darkroom histories of 300 decisions (window 60, 8 latents). Decisions are timed one by one, all rows of a batch
together, and those before which memory is written apart from the others. Model FLOPs are torch's count of the matrix
products of one update; what share of the device's speed they are is told against a large matrix product measured here,
and against the maker's figure where it is known. Takes less than eight minutes; writes one JSON and one plot.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as ET

import torch
from cccad_core.agent import Agent
from cccad_core.memory.compressed import CompressedSpec, compressed
from cccad_core.policy import Policy, PolicySpec
from cccad_core.spaces import Spaces
from cccad_data import Histories, NoisyOracleSpec, Sampler, SamplerSpec
from cccad_envs.darkroom import DarkroomSpec
from cccad_train.fit.batches import Batches
from cccad_train.fit.checkpoints import Progress
from cccad_train.fit.curricula import NoneSpec
from cccad_train.fit.loop import fit
from cccad_train.fit.spec import TrainSpec
from cccad_train.launch import build_accelerator
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from machine import machine  # noqa: E402 - beside the other benchmarks

RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
TESTS = "packages/cccad-train/tests/test_gpu.py"
SHAPES = {32: (2, 4), 256: (4, 8), 1024: (8, 16)}
"""Layers and heads by width: about 50 thousand, 4 million and 130 million parameters."""
Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
MAKERS_FIGURES = {  # dense, in 10^12 per second; fp32 without the tensor cores, as torch multiplies unless told to
    "H100": {"fp32": 67.0, "bf16": 989.0},
    "H200": {"fp32": 67.0, "bf16": 989.0},
    "A100": {"fp32": 19.5, "bf16": 312.0},
    "L40S": {"fp32": 91.6, "bf16": 362.0},
}
FAMILY = DarkroomSpec().build()
SPACES = Spaces.from_dict(FAMILY.spaces)


def main() -> int:
    """Test, measure, print and write; returns 1 where a test fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small sizes and no tests: to try the script itself")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON; the plot lies beside it, as .svg")
    order = parser.parse_args()
    if order.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here; '--device cpu --quick' tries the script")
    result = measured(order.device, is_quick=order.quick)
    order.out.parent.mkdir(parents=True, exist_ok=True)
    order.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    draw(result, order.out.with_suffix(".svg"))
    print(f"written to {order.out} in {result['duration_s']:.0f} s")
    return int(any(ended["outcome"] == "failed" for ended in result["tests"]))


def measured(device: str, *, is_quick: bool) -> dict[str, Any]:
    """Return all that is measured, as plain data."""
    began = time.perf_counter()
    seconds, widths = (0.2, (32,)) if is_quick else (8.0, tuple(SHAPES))
    tests = [] if is_quick else list(run_tests())
    sampler, rows = histories(is_quick=is_quick), []
    for width in widths:
        for precision in PRECISIONS:
            row = {"width": width, "precision": precision, **train(sampler, width, precision, device, seconds)}
            rows.append(row | shares(row["flops_per_s"], precision, device, is_quick=is_quick))
            print({name: value for name, value in rows[-1].items() if not isinstance(value, dict)}, flush=True)
    return {
        "what": "training, and decisions of agents, on one device; agents decide in single precision",
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "tests": tests,
        "training": rows,
        "decisions": [decide(width, size, device, seconds) for width in widths for size in (1, 64, 1024)],
        "duration_s": round(time.perf_counter() - began, 1),
        "machine": machine(),
    }


def run_tests() -> Iterator[dict[str, str]]:
    """Run the tests marked `gpu` and yield their names and outcomes; a test's properties and reasons go with it."""
    place = ROOT / "runs" / "gpu-tests.xml"
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    pytest = [sys.executable, "-m", "pytest", "-m", "gpu", TESTS, "-q", f"--junitxml={place}"]
    try:
        done = subprocess.run(pytest, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
        print(done.stdout[-2000:], flush=True)
    except subprocess.TimeoutExpired:
        yield {"name": TESTS, "outcome": "failed", "why": "not done within 240 s"}
    for case in ET.parse(place).iter("testcase") if place.is_file() else ():
        marks = [mark for mark in case if mark.tag in ("failure", "error", "skipped")]
        outcome = "passed" if not marks else "skipped" if marks[0].tag == "skipped" else "failed"
        ended = {"name": case.get("name", ""), "outcome": outcome}
        ended |= {"why": marks[0].get("message", "")[:300]} if marks else {}
        yield ended | {p.get("name", ""): p.get("value", "") for p in case.iter("property")}


def histories(*, is_quick: bool) -> Sampler:
    """Return a sampler over 20 Darkroom tasks, 10 histories of 600 env steps each."""
    source = NoisyOracleSpec(num_envs=2 if is_quick else 10, env_steps=600).build()
    tasks = source.collect(FAMILY, FAMILY.tasks[: 4 if is_quick else 20], seed=0)
    return SamplerSpec().build(Histories(header={}, tasks=tuple(tasks)), 0)


def policy_of(width: int, device: str) -> Policy:
    """Return a fresh policy of that width on the device."""
    num_layers, num_heads = SHAPES[width]
    memory = CompressedSpec(num_layers=num_layers, num_heads=num_heads)
    return PolicySpec(memory=memory, width=width).build(SPACES, 0).to(device)


def train(sampler: Sampler, width: int, precision: Precision, device: str, seconds: float) -> dict[str, Any]:
    """Train for *seconds* after a warm-up, and count the FLOPs of one update more."""
    policy = policy_of(width, device)
    num_targets = 24_000 if seconds > 1 else 600
    spec = TrainSpec(num_updates=100_000, num_writes=5, targets_per_update=num_targets, precision=precision)
    accelerator = build_accelerator("cpu" if device == "cpu" else "auto")
    objective, optimizer = accelerator.prepare(
        spec.objective.build(policy), spec.optimizer.build(policy, compressed(policy.memory).compressor)
    )
    where = {"memory": policy.memory, "device": accelerator.device}
    batches = Batches(sampler=sampler, curriculum=NoneSpec(), spec=spec, **where)
    reset_peak(device)

    def go_on(progress: Progress, limit_s: float) -> tuple[int, float]:
        began, first = now(device), progress.update
        fit(objective, batches, optimizer, progress, accelerator, is_to_stop=lambda: now(device) - began > limit_s)
        return progress.update - first, now(device) - began

    progress = Progress()
    go_on(progress, seconds / 3)
    num_updates, took_s = go_on(progress, seconds)
    size, length = batches.shape(0)
    with FlopCounterMode(display=False) as counter:
        go_on(progress, 0.0)
    return {
        "parameters": sum(parameter.numel() for parameter in policy.parameters()),
        "targets_per_update": size * length,
        "targets_per_s": round(num_updates * size * length / took_s, 1),
        "updates_timed": num_updates,
        "flops_per_update": counter.get_total_flops(),
        "flops_per_s": counter.get_total_flops() * num_updates / took_s,
        "peak_bytes": peak(device),
    }


def shares(flops_per_s: float, precision: str, device: str, *, is_quick: bool) -> dict[str, Any]:
    """Return what part of the device's speed *flops_per_s* are: of a matrix product, and of the maker's figure."""
    product = product_flops_per_s(precision, device, size=256 if is_quick else 8192)
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    figure = next((figures[precision] for listed, figures in MAKERS_FIGURES.items() if listed in name), None)
    return {
        "product_flops_per_s": product,
        "share_of_product": round(flops_per_s / product, 4),
        "model_flops_utilisation": None if figure is None else round(flops_per_s / (1e12 * figure), 4),
    }


def product_flops_per_s(precision: str, device: str, size: int) -> float:
    """Return the speed of a product of two square matrices, the best of ten."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(2, size, size, device=device, dtype=dtype)
    durations = []
    for _ in range(10):
        began = now(device)
        left @ right
        durations.append(now(device) - began)
    return 2 * size**3 / min(durations)


def decide(width: int, num_envs: int, device: str, seconds: float) -> dict[str, Any]:
    """Let *num_envs* lives decide together for *seconds*; return milliseconds per decision, with and without writes."""
    agent = Agent(policy_of(width, device))
    generator = torch.Generator(device).manual_seed(0)
    worlds = FAMILY.make_vec([FAMILY.tasks[i % len(FAMILY.tasks)] for i in range(num_envs)])
    observations, _ = worlds.reset(seed=0)
    state = agent.begin(num_envs)
    took_ms: dict[str, list[float]] = {"without_write": [], "with_write": []}
    segment, began, number = compressed(agent.memory).context.segment, time.perf_counter(), 0
    reset_peak(device)
    while time.perf_counter() - began < seconds / 2 or number <= 4 * segment:
        writes_before, before = int(state.num_writes[0]), now(device)
        actions, state = agent.act(state, observations, generator=generator)
        acted = now(device) - before
        observations, rewards, terminations, truncations, infos = worlds.step(actions.cpu().numpy())
        true_next = infos["final_obs"] if (terminations | truncations).any() else observations  # all rows end together
        before = now(device)
        agent.observe(state, rewards, terminations, truncations, true_next)
        acted, number = acted + now(device) - before, number + 1
        if number > 2 * segment:  # the first writes warm up
            kind = "with_write" if int(state.num_writes[0]) > writes_before else "without_write"
            took_ms[kind].append(1e3 * acted)
    every = [ms for part in took_ms.values() for ms in part]
    return {
        "width": width,
        "rows": num_envs,
        "decisions_per_s": round(num_envs * len(every) / (sum(every) / 1e3), 1),
        "ms": {kind: quantiles(values) for kind, values in took_ms.items()},
        "bytes_per_life": state.num_bytes // num_envs,
        "peak_bytes": peak(device),
    }


def quantiles(values: list[float]) -> dict[str, float]:
    """Return the median and the 95th percentile."""
    return {"p50": round(statistics.median(values), 4), "p95": round(sorted(values)[int(0.95 * (len(values) - 1))], 4)}


def now(device: str) -> float:
    """Return the time, once the device has done what it was told to."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak(device: str) -> None:
    """Forget how much memory was held at most."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(device: str) -> int | None:
    """Return the bytes that tensors held at most; None where nobody counts them."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw targets/s, the share of a matrix product and milliseconds per decision, by width."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for precision in PRECISIONS:
        rows = [row for row in result["training"] if row["precision"] == precision]
        widths = [row["width"] for row in rows]
        axes[0].plot(widths, [row["targets_per_s"] for row in rows], "o-", label=precision)
        axes[1].plot(widths, [100 * row["share_of_product"] for row in rows], "o-", label=precision)
    for rows_of in sorted({row["rows"] for row in result["decisions"]}):
        rows = [row for row in result["decisions"] if row["rows"] == rows_of]
        for kind, style in (("without_write", "o-"), ("with_write", "x--")):
            label = f"{rows_of} rows, {kind.replace('_', ' ')}"
            axes[2].plot([row["width"] for row in rows], [row["ms"][kind]["p50"] for row in rows], style, label=label)
    titles = ("training targets per second", "FLOPs, % of a matrix product", "ms per decision of all rows (median)")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="width", xscale="log", xticks=list(SHAPES), xticklabels=list(map(str, SHAPES)))
        axis.legend(fontsize="small")
    for axis in (axes[0], axes[2]):
        axis.set_yscale("log")
    figure.suptitle(result["device"])
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
