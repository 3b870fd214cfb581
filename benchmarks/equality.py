"""Batched PPO learns as Stable-Baselines3's PPO does: same worlds, settings and tasks, learning curves side by side.

    python benchmarks/equality.py --families darkroom cart-pole --cores 2

Three families: Darkroom, dark key-to-door, and CartPole with poles of many lengths. Per family the mean return of the
episodes that end in each third of a life, of both; their difference, paired by task; its 95 % interval (bootstrap over
tasks) and p (sign flips). The curves count as equal when no p is below 5 % after Holm's correction for all of them.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from cartpole import CartPole
from cccad_data import PPOSpec, SB3Spec, TaskHistories
from cccad_envs.dark_key_to_door import DarkKeyToDoorSpec
from cccad_envs.darkroom import DarkroomSpec
from numpy.typing import NDArray

PARTS = ("early", "middle", "late")
LEVEL = 0.05
SAME = (
    *("n_steps", "batch_size", "n_epochs", "learning_rate", "gamma", "gae_lambda", "normalize_advantage"),
    *("clip_range", "ent_coef", "vf_coef", "max_grad_norm"),
)
RESULTS = Path(__file__).parent / "results" / "equality.json"


@frozen(kw_only=True)
class Case:
    """A family, how many of its tasks are learnt, and with which settings."""

    family: Any
    num_tasks: int
    spec: PPOSpec

    def tasks(self, number: int) -> Sequence[Any]:
        """Return *number* tasks from all over the list."""
        every = self.family.tasks
        return [every[i] for i in np.linspace(0, len(every) - 1, number).astype(int)]


def cases() -> dict[str, Case]:
    """Return the families that are compared."""
    return {
        "darkroom": Case(
            family=DarkroomSpec().build(), num_tasks=20,
            spec=PPOSpec(num_envs=16, env_steps=800, n_steps=50, batch_size=50, n_epochs=6, learning_rate=1e-3),
        ),
        "dark-key-to-door": Case(
            family=DarkKeyToDoorSpec(size=5).build(), num_tasks=24,
            spec=PPOSpec(
                num_envs=16, env_steps=800, n_steps=50, batch_size=50, n_epochs=6, learning_rate=1e-3, ent_coef=0.01
            ),
        ),
        "cart-pole": Case(
            family=CartPole(range(40, 200, 8), horizon=500), num_tasks=20,
            spec=PPOSpec(
                num_envs=8, env_steps=1800, n_steps=64, batch_size=64, n_epochs=8, learning_rate=1e-3, gamma=0.98,
                gae_lambda=0.8,
            ),
        ),
    }  # fmt: skip


Job = tuple[str, str, int, list[str]]
"Case, who learns, seed, and the ids of the tasks."


def learn(job: Job) -> tuple[Job, dict[str, list[float]], float]:
    """Let one of the two learn; return the mean return in each part of life per task, and the CPU seconds it took."""
    name, who, seed, ids = job
    case = cases()[name]
    tasks = [task for task in case.family.tasks if task.task_id in ids]
    spec: Any = case.spec
    if who == "stable_baselines3":
        same = {key: getattr(case.spec, key) for key in SAME}
        spec = SB3Spec(num_envs=spec.num_envs, env_steps=spec.env_steps, algorithm="PPO", hyperparameters=same)
    source, before = spec.build(), time.process_time()
    histories = source.collect(case.family, tasks, seed=seed)
    return job, {task.task_id: by_part(task, spec.env_steps) for task in histories}, time.process_time() - before


def by_part(task: TaskHistories, env_steps: int) -> list[float]:
    """Return the mean return of the episodes that end in each part of the lives, which last *env_steps*."""
    begins = np.repeat(np.append(0, task.history_ends[:-1]), task.num_episodes_per_history())
    part = (task.episode_ends - 1 - begins) * len(PARTS) // env_steps
    return [float(task.episode_returns()[part == i].mean()) for i in range(len(PARTS))]


def paired(differences: NDArray[np.float64]) -> dict[str, Any]:
    """Return the mean of *differences*, its 95 % bootstrap interval, and p of a sign-flip test of zero."""
    rng = np.random.Generator(np.random.Philox(0))
    flips = rng.choice([-1.0, 1.0], size=(20_000, len(differences)))
    extreme = np.abs((flips * differences).mean(1)) >= abs(differences.mean()) - 1e-12
    samples = rng.choice(differences, size=(20_000, len(differences))).mean(1)
    return {
        "difference": float(differences.mean()),
        "difference_ci95": [float(edge) for edge in np.quantile(samples, (0.025, 0.975))],
        "p_sign_flip": float(extreme.mean()),
    }


def compare(name: str, seeds: range, max_tasks: int, pool: Any) -> dict[str, Any]:
    """Let both learn the tasks of a case with every seed; return returns, differences, and the time it took."""
    case, clock = cases()[name], time.perf_counter()
    ids = [task.task_id for task in case.tasks(min(case.num_tasks, max_tasks))]
    jobs: list[Job] = [(name, "batched", seed, ids) for seed in seeds]
    jobs += [(name, "stable_baselines3", seed, [task_id]) for seed in seeds for task_id in ids]
    cpu_s = {"batched": 0.0, "stable_baselines3": 0.0}
    returns = {who: np.zeros((len(ids), len(PARTS))) for who in cpu_s}  # means over seeds
    for (_, who, *_), learnt, spent_s in pool.imap_unordered(learn, jobs):
        cpu_s[who] += spent_s
        for task_id, parts in learnt.items():
            returns[who][ids.index(task_id)] += np.array(parts) / len(seeds)
    batched, theirs = returns["batched"], returns["stable_baselines3"]
    result = {
        part: {
            "batched": float(batched[:, i].mean()),
            "stable_baselines3": float(theirs[:, i].mean()),
            **paired(batched[:, i] - theirs[:, i]),
        }
        for i, part in enumerate(PARTS)
    }
    per_task = {
        task_id: {"batched": mine.round(3).tolist(), "stable_baselines3": other.round(3).tolist()}
        for task_id, mine, other in zip(ids, batched, theirs, strict=True)
    }
    settings = {key: getattr(case.spec, key) for key in ("num_envs", "env_steps", *SAME)}
    return {
        "tasks": len(ids), "seeds": list(seeds), "settings": settings, "horizon": case.family.horizon,
        "wall_s": round(time.perf_counter() - clock, 1), "cpu_s": {who: round(s, 1) for who, s in cpu_s.items()},
        "returns": result, "per_task": per_task,
    }  # fmt: skip


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Return *p_values* after Holm's correction (1979) for asking so many questions."""
    order = np.argsort(p_values)
    scaled = np.array(p_values)[order] * np.arange(len(p_values), 0, -1)
    return [float(p) for p in np.minimum(1.0, np.maximum.accumulate(scaled))[np.argsort(order)]]


def main() -> None:
    """Compare every family that is asked for, and write the result after each; what is there of others stays."""
    from machine import machine  # not above: it imports torch, which workers that only count do without

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=list(cases()), default=list(cases()))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0, help="to ask again with learners that nobody has seen")
    parser.add_argument("--max-tasks", type=int, default=100, help="of a family, for a quick look")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    earlier = json.loads(arguments.out.read_text(encoding="utf-8"))["families"] if arguments.out.exists() else {}
    result: dict[str, Any] = {"machine": machine(), "families": earlier}
    with multiprocessing.get_context("spawn").Pool(arguments.cores) as pool:
        for name in arguments.families:
            result["families"][name] = compare(name, seeds, arguments.max_tasks, pool)
            print(name, json.dumps(result["families"][name]["returns"]), flush=True)
            asked = [(name, part) for name in result["families"] for part in PARTS]
            measured = adjusted([result["families"][name]["returns"][part]["p_sign_flip"] for name, part in asked])
            result["p_holm"] = {f"{name}, {part}": p for (name, part), p in zip(asked, measured, strict=True)}
            result["equal"] = min(measured) >= LEVEL
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
