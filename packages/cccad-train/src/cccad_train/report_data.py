"""What a run folder holds, read and checked once: results, agents with their statistics, seeds pooled into one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from cccad_train import statistics
from cccad_train.statistics import Floats, StatisticsError

Json = dict[str, Any]

RESULTS_FORMAT = "cccad-results/1"
_RUN_NAME = re.compile(r"(?P<experiment>(?P<name>.+)-[0-9a-f]{8})-s\d+")


class ReportError(ValueError):
    """A run folder cannot be reported on; the sentence says which file and why."""


@frozen(kw_only=True, eq=False)
class Agent:
    """One row of the table and one curve: an agent or a control, over the tasks that it played."""

    name: str
    label: str
    role: str = "control"
    description: str = ""
    row: Json  # the statistics of `summarise`, by the same names; absent ones are None
    curve: Floats  # mean return by episode
    band: tuple[Floats, Floats] | None = None  # 95 % interval of the same
    by_task: tuple[float, ...] = ()  # normalised mean of the last episodes of each task
    compressions: tuple[tuple[int, ...], ...] = ()  # env steps of the writes, per task, of the first replica
    compressions_per_history: float | None = None
    actions_per_s: float | None = None

    @property
    def num_last(self) -> int:
        """How many last episodes its statistics are of."""
        return min(statistics.NUM_LAST_EPISODES, len(self.curve))


@frozen(kw_only=True)
class Run:
    """What a run folder holds, read and checked once."""

    name: str
    experiment: str  # the same for all seeds of one spec
    folder: str
    results: Json
    meta: Json = field(factory=dict)
    spec: str = ""
    data_card: Json = field(factory=dict)
    metrics: tuple[Json, ...] = ()


def read_run(run_dir: Path) -> Run:
    """Return everything that the report needs from the run folder *run_dir*.

    Raises:
        ReportError: when the results are missing, broken or of an unknown format, or another file cannot be read.
    """
    path = run_dir / "evaluation" / "results.json"
    if not path.is_file():
        raise ReportError(f"{run_dir.name}: there is no evaluation/results.json; evaluate the run first")
    results = check_results(_read_json(path), run_dir.name)
    meta, data_card = (_read_json(run_dir / name, {}) for name in ("meta.json", "evaluation/data_card.json"))
    spec_path = run_dir / "spec.toml"
    folder = run_dir.resolve().name
    matched = _RUN_NAME.fullmatch(folder)
    return Run(
        name=matched["name"] if matched else folder,
        experiment=matched["experiment"] if matched else folder,
        folder=folder,
        results=results,
        meta=meta,
        spec=spec_path.read_text(encoding="utf-8") if spec_path.is_file() else "",
        data_card=data_card,
        metrics=tuple(_read_metrics(run_dir / "metrics.jsonl")),
    )


def _read_json(path: Path, default: Json | None = None) -> Json:
    if default is not None and not path.is_file():
        return default
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # broken JSON, or not even text
        raise ReportError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ReportError(f"{path.name} must hold one JSON object: {type(content).__name__}")
    return content


def _read_metrics(path: Path) -> Iterable[Json]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            if number == len(lines):
                return  # the run was stopped in the middle of its last line
            raise ReportError(f"{path.name}:{number} is not valid JSON: {error}") from error


def check_results(results: Json, where: str = "results.json") -> Json:
    """Return *results* when it is of the known format and complete.

    Raises:
        ReportError: names the first thing that is wrong.
    """
    found = results.get("format")
    if found != RESULTS_FORMAT:
        raise ReportError(f"{where}: the results are of format {found!r}; this version reads {RESULTS_FORMAT!r}")
    for key in ("agents", "tasks"):
        if not results.get(key):
            raise ReportError(f"{where}: the results hold no {key}")
    for task in results["tasks"]:
        missing = {"task_id", "optimal_return", "random_return"} - set(task)
        if missing:
            raise ReportError(f"{where}: task {task.get('task_id', '?')!r} lacks {', '.join(sorted(missing))}")
    for name, agent in results["agents"].items():
        if not (agent.get("returns") or agent.get("normalized_curve")):
            raise ReportError(f"{where}: agent {name!r} has neither 'returns' nor 'normalized_curve'")
    for name, inner in results.get("worlds", {}).items():
        check_results(inner, f"{where}, world {name!r}")
    return results


def read_agents(results: Json, seeds: Mapping[str, Sequence[int]] | None = None) -> list[Agent]:
    """Return every agent of *results*: those on trial first, then the controls, in the order of the file.

    Args:
        results: of format `cccad-results/1`.
        seeds: the training seed of each replica by agent, where several runs were pooled; statistics are then
            computed anew instead of taken from `results["summary"]`.
    """
    agents = []
    for name, entry in results["agents"].items():
        given = {} if seeds is not None else results.get("summary", {}).get(name, {})
        about = Agent(
            name=name,
            label=entry.get("label") or name,
            role=entry.get("role", "control"),
            description=entry.get("description", ""),
            row=given,
            curve=np.zeros(0),
            compressions=tuple(tuple(steps) for steps in entry.get("compressions") or ()),
            compressions_per_history=entry.get("compressions_per_history"),
            actions_per_s=entry.get("actions_per_s"),
        )
        try:
            played = bool(entry.get("returns"))
            agents.append(_played(about, results, (seeds or {}).get(name)) if played else _curve_only(about, results))
        except StatisticsError as error:
            raise ReportError(f"agent {name!r}: {error}") from error
    return sorted(agents, key=lambda agent: agent.role != "agent")


def references(results: Json) -> tuple[Floats, Floats]:
    """Return the optimal and the random return of every task, `task` and `task`."""
    pairs = [(task["optimal_return"], task["random_return"]) for task in results["tasks"]]
    optimal, random = np.array(pairs, dtype=np.float64).T
    return optimal, random


def _played(about: Agent, results: Json, seeds: Sequence[int] | None) -> Agent:
    """Complete an agent whose returns are known, task by task."""
    optimal, random = references(results)
    returns = results["agents"][about.name]["returns"]
    normalised = statistics.normalise(returns, optimal, random)
    values = np.asarray(returns, dtype=np.float64)
    return evolve(
        about,
        row=about.row or statistics.summarise(returns, optimal, random, seeds=seeds),
        curve=values.mean(axis=(0, 1)),
        band=statistics.curve_interval(values, np.random.default_rng(0)) if values.shape[1] > 1 else None,
        by_task=tuple(statistics.last_episodes_mean(normalised).mean(axis=1).tolist()),
    )


def _curve_only(about: Agent, results: Json) -> Agent:
    """Complete an agent of which only a normalised curve is known, such as the source on its training tasks."""
    optimal, random = (values.mean() for values in references(results))
    entry = results["agents"][about.name]
    curve = np.asarray(entry["normalized_curve"], dtype=np.float64)
    row = about.row or {
        "normalized_last10_mean": float(curve[-statistics.NUM_LAST_EPISODES :].mean()),
        "episodes_to_90pct": statistics.episodes_to_solve(curve),
        "worst_task_normalized": entry.get("worst_task_normalized"),
        "normalized_by_decade": statistics.decade_means(curve),
    }
    return evolve(about, row=row, curve=random + curve * (optimal - random))


def within(run: Run, world: str) -> Run:
    """Return *run* as if it had been judged in another of its worlds."""
    return evolve(run, results=run.results["worlds"][world])


def pool(runs: Sequence[Run]) -> tuple[Json, dict[str, list[int]]]:
    """Return normalised results with the replicas of all *runs* side by side, and the seed of each replica by agent.

    Lives of different lengths are cut to the shortest. An agent that only some of the runs have is left out.
    """
    first = runs[0].results
    task_ids = [task["task_id"] for task in first["tasks"]]
    for run in runs[1:]:
        if [task["task_id"] for task in run.results["tasks"]] != task_ids:
            raise ReportError(f"{run.folder} and {runs[0].folder} are seeds of one experiment but have different tasks")
    agents, seeds = {}, {}
    for name in first["agents"]:
        entries = [run.results["agents"].get(name) for run in runs]
        if not all(entries):
            continue
        key = "returns" if entries[0].get("returns") else "normalized_curve"
        lives = [_normalised_lives(name, entry, run) for entry, run in zip(entries, runs, strict=True)]
        num_episodes = min(life.shape[-1] for life in lives)
        pooled = np.concatenate([life[..., :num_episodes] for life in lives], axis=1)
        seeds[name] = [index for index, life in enumerate(lives) for _ in range(life.shape[1])]
        values = pooled if key == "returns" else pooled.mean(axis=(0, 1))
        agents[name] = {**entries[0], key: values.tolist()}
    tasks = [{**task, "optimal_return": 1.0, "random_return": 0.0} for task in first["tasks"]]
    return {**first, "agents": agents, "tasks": tasks, "summary": {}}, seeds


def _normalised_lives(name: str, entry: Json, run: Run) -> Floats:
    """Return the normalised returns of one agent, `task replica episode`; a bare curve is one task and one replica."""
    if not entry.get("returns"):
        return np.asarray(entry["normalized_curve"], dtype=np.float64)[None, None]
    try:
        return statistics.normalise(entry["returns"], *references(run.results))
    except StatisticsError as error:
        raise ReportError(f"{run.folder}: agent {name!r}: {error}") from error
