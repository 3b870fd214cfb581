"""Collection speed: batched PPO against Stable-Baselines3's PPO, same settings, same worlds, same cores, same returns.

    python benchmarks/collect.py --tasks 8 --seeds 1 --env-steps 96000

Both use one thread per process and as many processes as there are cores. Stable-Baselines3 gets its environments from
the same batched world, which is faster than its usual list of single ones. Both stop before the last learning, which no
env step would show. Returns are compared over the last ten episodes of every environment, task by task. Besides the
clock's, CPU seconds are counted, which a busy machine distorts less.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from cccad_data import Histories, PPOSpec, ProcessesSpec, collect, learning_curve
from cccad_envs.darkroom import DarkroomSpec
from equality import SAME, paired

LAST_EPISODES = 10
BAR = 20.0
SPLIT: dict[str, Any] = {"seed": 0, "held_out_frac": 0.1}

Returns = dict[tuple[str, int], float]
"The late return of every (task id, seed)."


def settings(env_steps_per_task: int) -> PPOSpec:
    """Return the settings of the earlier code: 100 environments per learner, 80 env steps a round, 20 epochs of 40."""
    return PPOSpec(
        num_envs=100, env_steps=env_steps_per_task // 100, n_steps=80, batch_size=40, n_epochs=20, learning_rate=3e-4
    )


def ours(spec: PPOSpec, *, num_tasks: int, seeds: Sequence[int], cores: int) -> tuple[dict[str, Any], Returns]:
    """Collect *num_tasks* tasks per seed; return the speed, and the late return of every (task, seed)."""
    family = DarkroomSpec().build()
    spec = attrs.evolve(spec, tasks_per_unit=-(-num_tasks // cores))
    returns: Returns = {}
    cpu_s, wall_s = -children_cpu_s(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            before = time.perf_counter()
            out = collect(
                family,
                spec.build(),
                ProcessesSpec(num_workers=cores).build(),
                out=Path(folder) / str(seed),
                split=SPLIT,
                seed=seed,
                max_tasks=num_tasks,
                progress=progress("batched"),
            )
            wall_s += time.perf_counter() - before
            for task_id, curve in learning_curve(Histories.open(out)).items():
                returns[task_id, seed] = float(curve[-LAST_EPISODES:].mean())
    env_steps = num_tasks * len(seeds) * spec.num_envs * spec.env_steps
    return speed(env_steps, wall_s, cpu_s + children_cpu_s(), num_tasks), returns


def theirs(spec: PPOSpec, *, num_tasks: int, seeds: Sequence[int], cores: int) -> tuple[dict[str, Any], Returns]:
    """Train one Stable-Baselines3 learner per (task, seed), *cores* of them at a time; return the same as `ours`."""
    family = DarkroomSpec().build()
    ids = [task.task_id for task in family.split(**SPLIT).train[:num_tasks]]
    jobs = [(spec, task_id, seed) for seed in seeds for task_id in ids]
    returns: Returns = {}
    report = progress("stable-baselines3")
    cpu_s = -children_cpu_s()
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        imports_s = sum(pool.map(import_everything, range(cores), chunksize=1))
        before = time.perf_counter()
        for task_id, seed, late in pool.imap_unordered(their_learner, jobs):
            returns[task_id, seed] = late
            report(len(returns), len(jobs))
        wall_s = time.perf_counter() - before
        pool.close()
        pool.join()
    env_steps = len(jobs) * spec.num_envs * spec.env_steps
    return speed(env_steps, wall_s, cpu_s + children_cpu_s() - imports_s, num_tasks), returns


def children_cpu_s() -> float:
    """Return the CPU seconds of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def import_everything(_worker: int) -> float:
    """Import what a learner needs, so that no clock sees it; return the CPU seconds that took."""
    import stable_baselines3  # noqa: F401
    import torch

    torch.set_num_threads(1)
    time.sleep(0.5)  # leaves time for every worker to take one
    return time.process_time()


def their_learner(job: tuple[PPOSpec, str, int]) -> tuple[str, int, float]:
    """Train one learner and return its task id, its seed and its late return."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    spec, task_id, seed = job
    torch.set_num_threads(1)
    rewards: list[np.ndarray[Any, Any]] = []

    class Record(BaseCallback):
        """Writes the rewards down; stops when the histories are long enough, before the last round of learning."""

        def _on_step(self) -> bool:
            rewards.append(self.locals["rewards"].copy())
            return len(rewards) < spec.env_steps

    family = DarkroomSpec().build()
    env = stable_vec_env(family, family.task(task_id), spec.num_envs)
    fields = {name: getattr(spec, name) for name in SAME}
    model = PPO("MlpPolicy", env, seed=seed, device="cpu", verbose=0, **fields)
    model.learn(total_timesteps=10 * spec.env_steps * spec.num_envs, callback=Record())
    episodes = np.stack(rewards).reshape(-1, family.horizon, spec.num_envs).sum(1)  # episode environment
    return task_id, seed, float(episodes[-LAST_EPISODES:].mean())


def stable_vec_env(family: Any, task: Any, num_envs: int) -> Any:
    """Return the batched world of *task* as a Stable-Baselines3 VecEnv."""
    from stable_baselines3.common.vec_env import VecEnv

    class Batched(VecEnv):
        """One batched world behind the interface of many."""

        def __init__(self) -> None:
            self.world = family.make_vec([task] * num_envs)
            self.actions: Any = None
            super().__init__(num_envs, self.world.single_observation_space, self.world.single_action_space)

        def reset(self) -> Any:
            return self.world.reset(seed=0)[0]

        def step_async(self, actions: Any) -> None:
            self.actions = actions

        def step_wait(self) -> Any:
            observations, rewards, terminations, truncations, infos = self.world.step(self.actions)
            notes: list[dict[str, Any]] = [{} for _ in range(num_envs)]
            for row in np.flatnonzero(terminations | truncations):
                notes[row]["terminal_observation"] = infos["final_obs"][row]
                notes[row]["TimeLimit.truncated"] = bool(truncations[row] and not terminations[row])
            return observations, rewards, terminations | truncations, notes

        def close(self) -> None:
            pass

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [getattr(self.world, attr_name, None)] * num_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            raise NotImplementedError(f"{attr_name} is not to be set")

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
            raise NotImplementedError(f"{method_name} is not to be called")

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * num_envs

    return Batched()


def speed(env_steps: int, wall_s: float, cpu_s: float, num_tasks: int) -> dict[str, Any]:
    """Return a throughput as plain JSON."""
    return {
        "tasks": num_tasks,
        "env_steps": env_steps,
        "wall_s": round(wall_s, 2),
        "cpu_s": round(cpu_s, 2),
        "env_steps_per_s": round(env_steps / wall_s, 1),
        "env_steps_per_cpu_s": round(env_steps / cpu_s, 1),
    }


def compare(left: Mapping[tuple[str, int], float], right: Mapping[tuple[str, int], float]) -> dict[str, Any]:
    """Compare two sets of late returns: per task, over all tasks, with a sign-flip test and a bootstrap interval."""
    family = DarkroomSpec().build()
    ids = sorted({task_id for task_id, _ in left} & {task_id for task_id, _ in right})
    rows = []
    for task_id in ids:
        mine = float(np.mean([value for (name, _), value in left.items() if name == task_id]))
        other = float(np.mean([value for (name, _), value in right.items() if name == task_id]))
        optimal = family.optimal_return(family.task(task_id))
        rows.append({"task_id": task_id, "batched": mine, "stable_baselines3": other, "optimal": optimal})
    differences = np.array([row["batched"] - row["stable_baselines3"] for row in rows])  # type: ignore[operator]
    return {
        "episodes": f"mean return of the last {LAST_EPISODES} episodes",
        "batched_mean": float(np.mean([row["batched"] for row in rows])),
        "stable_baselines3_mean": float(np.mean([row["stable_baselines3"] for row in rows])),
        **paired(differences),
        "per_task": rows,
    }


def machine(cores: int) -> dict[str, Any]:
    """Say what this was measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    versions = {name: version(name) for name in ("cccad-data", "torch", "stable-baselines3", "numpy")}
    return {
        "system": platform.system(),
        "processor": model,
        "cores_used": cores,
        "load_before": load,
        "python": platform.python_version(),
        "versions": versions,
    }


def progress(label: str) -> Any:
    """Return a callback that prints a line every ten seconds or so."""
    last = [time.monotonic()]

    def show(done: int, total: int) -> None:
        if time.monotonic() - last[0] > 10:
            last[0] = time.monotonic()
            print(f"{label}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    return show


def main() -> None:
    """Measure both and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=8, help="tasks for Stable-Baselines3, and for the comparison")
    parser.add_argument("--our-tasks", type=int, default=73, help="tasks for batched PPO; its speed is per env step")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--env-steps", type=int, default=100_000, help="per task, over its 100 environments")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "collect.json")
    arguments = parser.parse_args()
    spec, seeds, cores = settings(arguments.env_steps), range(arguments.seeds), arguments.cores
    result: dict[str, Any] = {"machine": machine(cores), "settings": attrs.asdict(spec), "seeds": len(seeds)}
    num_ours = max(arguments.our_tasks, arguments.tasks)
    result["batched"], our_returns = ours(spec, num_tasks=num_ours, seeds=seeds, cores=cores)
    result["stable_baselines3"], their_returns = theirs(spec, num_tasks=arguments.tasks, seeds=seeds, cores=cores)
    by_clock, by_cpu = (
        result["batched"][unit] / result["stable_baselines3"][unit]
        for unit in ("env_steps_per_s", "env_steps_per_cpu_s")
    )
    result["ratio"] = {
        "env_steps_per_s": round(by_clock, 2),
        "env_steps_per_cpu_s": round(by_cpu, 2),
        "bar": BAR,
        "met": by_clock >= BAR,
    }
    all_tasks = len(DarkroomSpec().build().split(**SPLIT).train)
    result["extrapolated"] = {
        "note": f"seconds for all {all_tasks} train tasks at the measured env steps/s; only {arguments.tasks} were run "
        f"with stable-baselines3 and {num_ours} with batched PPO",
        **{
            name: round(all_tasks * arguments.env_steps / result[name]["env_steps_per_s"], 1)
            for name in ("batched", "stable_baselines3")
        },
    }
    result["returns"] = compare(our_returns, their_returns)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    shown = {key: value for key, value in result.items() if key in ("batched", "stable_baselines3", "ratio")}
    returns = {key: value for key, value in result["returns"].items() if key != "per_task"}
    print(json.dumps({**shown, "returns": returns}, indent=1))


if __name__ == "__main__":
    main()
