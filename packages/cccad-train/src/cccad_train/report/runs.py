"""What a run folder holds, read and checked once: results, agents with their statistics, seeds pooled into one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from cccad_train.files import (
    COUNT,
    NUMBER,
    TEXT,
    Json,
    Misfit,
    RunFileError,
    each,
    leaf,
    maybe,
    other_format,
    read_json,
    read_metrics,
    read_text,
    table,
)
from cccad_train.report import statistics
from cccad_train.report.statistics import Floats, StatisticsError

RESULTS_FORMAT = "cccad-results/1"
_RUN_NAME = re.compile(r"(?P<experiment>(?P<name>.+)-[0-9a-f]{8})-s(?P<seed>\d+)")

_TASK = table(
    {"task_id": TEXT, "optimal_return": NUMBER, "random_return": NUMBER},
    {"params": table(), "split": TEXT, "optimal_error": NUMBER, "random_error": NUMBER},
)
_SUMMARY = table(
    optional={"ci95": maybe(each(NUMBER, 2, 2)), "normalized_by_decade": maybe(each(maybe(NUMBER)))},
    others=maybe(NUMBER),
)
_AGENT = table(
    optional={
        **dict.fromkeys(("label", "role", "description"), TEXT),
        "returns": each(each(each(NUMBER, 1), 1), 1),
        "normalized_curve": each(NUMBER, 1),
        "compressions": each(each(COUNT)),
        "num_weights": COUNT,
        **dict.fromkeys(("compressions_per_history", "actions_per_s", "worst_task_normalized"), maybe(NUMBER)),
    }
)
_RESULTS = table(
    {"tasks": each(_TASK), "agents": table(others=_AGENT)},
    {
        "summary": table(others=_SUMMARY),
        "worlds": table(others=leaf("a table", lambda value: type(value) is dict)),
        "horizon": leaf("a whole number > 0", lambda value: type(value) is int and 0 < value < 1 << 63),
        "trained_episodes": maybe(NUMBER),
        "training": table(others=NUMBER),
        "seed": leaf("a seed from 0 to 2**64 - 1", lambda value: type(value) is int and 0 <= value < 1 << 64),
        "warnings": each(TEXT),
        "best_return": TEXT,
        "spec_digest": TEXT,
    },
)
_TABLE = table()
_DATA_CARD = table(optional={"source": table(optional={"kind": TEXT})})


class ReportError(RunFileError):
    """A run folder cannot be reported on; the sentence says which file and why."""


@frozen(kw_only=True, eq=False)
class AgentRecord:
    """One row of the table and one curve: an agent or a control, over the tasks that it played."""

    name: str
    label: str
    role: str = "control"
    description: str = ""
    row: Json  # the statistics of `summarise`, by the same names; absent ones are None
    curve: Floats  # mean return by episode
    band: tuple[Floats, Floats] | None = None  # 95 % interval of the same
    by_task: tuple[float, ...] = ()  # normalised mean of the last episodes of each task
    scores: Floats | None = None  # the same by life, `task replica`
    task_ids: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None  # the training seed of each replica, where several are pooled
    num_weights: int | None = None
    compressions: tuple[tuple[int, ...], ...] = ()  # env steps of the writes, per task, of the first replica
    compressions_per_history: float | None = None
    actions_per_s: float | None = None

    @property
    def num_last(self) -> int:
        """How many last episodes its statistics are of."""
        return min(statistics.NUM_LAST_EPISODES, len(self.curve))


@frozen(kw_only=True)
class RunRecord:
    """What a run folder holds, read and checked once."""

    name: str
    experiment: str  # the same for all seeds of one spec
    folder: str
    path: Path
    seed: int | None
    results: Json
    meta: Json = field(factory=dict)
    spec: str = ""
    data_card: Json = field(factory=dict)
    metrics: tuple[Json, ...] = ()


def read_run(run_dir: Path) -> RunRecord:
    """Return everything that the report needs from the run folder *run_dir*.

    Raises:
        RunFileError: names a file that cannot be read, or is not of its form.
        ReportError: when the results are missing, of an unknown format, or contradict themselves.
    """
    path = run_dir / "evaluation" / "results.json"
    results = read_json(path, lambda _: None)  # `check_results` looks at its form
    if results is None:
        raise ReportError(f"{run_dir.name}: there is no evaluation/results.json; evaluate the run first")
    check_results(results, str(path))
    spec, folder = read_text(run_dir / "spec.toml") or "", run_dir.resolve().name
    matched = _RUN_NAME.fullmatch(folder)
    name = matched["name"] if matched else _name_in(spec) or folder
    digest = results.get("spec_digest")
    return RunRecord(
        name=name,
        experiment=f"{name}-{digest}" if digest else matched["experiment"] if matched else folder,
        folder=folder,
        path=run_dir,
        seed=results.get("seed", int(matched["seed"]) if matched else None),
        results=results,
        meta=read_json(run_dir / "meta.json", _TABLE) or {},
        spec=spec,
        data_card=read_json(run_dir / "evaluation" / "data_card.json", _DATA_CARD) or {},
        metrics=tuple(read_metrics(run_dir / "metrics.jsonl")),
    )


def _name_in(spec: str) -> str:
    match = re.search(r'^name = "([A-Za-z0-9_.-]+)"$', spec, re.MULTILINE)
    return match[1] if match else ""


def check_results(results: Any, where: str = "results.json") -> Json:
    """Return *results* when it is of the known format and complete.

    Raises:
        ReportError: names the first thing that is wrong.
    """
    form = results.get("format") if isinstance(results, dict) else None
    if form != RESULTS_FORMAT:
        raise ReportError(f"{where}: the results are {other_format(form, RESULTS_FORMAT)}")
    try:
        _RESULTS(results)
    except Misfit as misfit:
        raise ReportError(f"{where}: {misfit}") from None
    for key in ("agents", "tasks"):
        if not results[key]:
            raise ReportError(f"{where}: the results hold no {key}")
    for name, agent in results["agents"].items():
        if not {"returns", "normalized_curve"} & agent.keys():
            raise ReportError(f"{where}: agent {name!r} has neither 'returns' nor 'normalized_curve'")
    for name, inner in results.get("worlds", {}).items():
        check_results(inner, f"{where}, environment {name!r}")
    return results  # type: ignore[no-any-return]


def read_agents(results: Json, seeds: Mapping[str, Sequence[int]] | None = None) -> list[AgentRecord]:
    """Return every agent of *results*: those on trial first, then the controls, in the order of the file.

    Args:
        results: of format `cccad-results/1`.
        seeds: the training seed of each replica by agent, where several runs were pooled; statistics are then
            computed anew instead of taken from `results["summary"]`.
    """
    agents = []
    for name, entry in results["agents"].items():
        summary = {} if seeds is not None else results.get("summary", {}).get(name, {})
        about = AgentRecord(
            name=name,
            label=entry.get("label") or name,
            role=entry.get("role", "control"),
            description=entry.get("description", ""),
            row=summary,
            curve=np.zeros(0),
            compressions=tuple(tuple(steps) for steps in entry.get("compressions") or ()),
            compressions_per_history=entry.get("compressions_per_history"),
            actions_per_s=entry.get("actions_per_s"),
            task_ids=tuple(task["task_id"] for task in results["tasks"]),
            num_weights=entry.get("num_weights"),
        )
        try:
            played = bool(entry.get("returns"))
            agents.append(_played(about, results, (seeds or {}).get(name)) if played else _curve_only(about, results))
        except StatisticsError as error:
            raise ReportError(f"agent {name!r}: {error}") from error
        if not np.isfinite(agents[-1].curve).all() or not np.isfinite(agents[-1].by_task).all():
            raise ReportError(f"agent {name!r}: its returns are too large beside what lies between optimum and random")
    return sorted(agents, key=lambda agent: agent.role != "agent")


def warnings_of(results: Json) -> list[str]:
    """Return what an evaluation warns of, environment by environment."""
    others = [f"in {name}: {text}" for name, inner in results.get("worlds", {}).items() for text in warnings_of(inner)]
    return [*results.get("warnings", []), *others]


def references(results: Json) -> tuple[Floats, Floats]:
    """Return the optimal and the random return of every task, `task` and `task`."""
    pairs = [(task["optimal_return"], task["random_return"]) for task in results["tasks"]]
    optimal, random = np.array(pairs, dtype=np.float64).T
    return optimal, random


def name_of_best(results: Json) -> str:
    """Return what a normalised return of 1 is: the optimum, or a reference where nobody knows the optimum."""
    return str(results.get("best_return", "optimum"))


def estimates_of(results: Json) -> str:
    """Return a sentence on the returns that are estimates, or nothing."""
    names = {"optimal_error": f"the {name_of_best(results)}", "random_error": "the random return"}
    errors = {what: [task[name] for task in results["tasks"] if name in task] for name, what in names.items()}
    said = [
        f"{what} (standard error {np.mean(values):.2g} in the mean task)" for what, values in errors.items() if values
    ]
    return f"Estimates: {' and '.join(said)}." if said else ""


def _played(about: AgentRecord, results: Json, seeds: Sequence[int] | None) -> AgentRecord:
    """Complete an agent whose returns are known, task by task."""
    optimal, random = references(results)
    returns = results["agents"][about.name]["returns"]
    normalised = statistics.normalise(returns, optimal, random)
    values = np.asarray(returns, dtype=np.float64)
    scores = statistics.last_episodes_mean(normalised)
    return evolve(
        about,
        scores=scores,
        seeds=None if seeds is None else tuple(seeds),
        row=about.row or statistics.summarise(returns, optimal, random, seeds=seeds),
        curve=values.mean(axis=(0, 1)),
        band=statistics.curve_interval(values, np.random.default_rng(0)) if values.shape[1] > 1 else None,
        by_task=tuple(scores.mean(axis=1).tolist()),
    )


def _curve_only(about: AgentRecord, results: Json) -> AgentRecord:
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


def within(run: RunRecord, environment: str) -> RunRecord:
    """Return *run* as if it had been judged in another of its environments."""
    return evolve(run, results=run.results["worlds"][environment])


def distinct(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """Return *runs* without those that are there already, under whatever name, and a sentence on each of these.

    A run is known by the digest of its spec and its seed, not by its folder: a copy or a link is no second seed.

    Raises:
        ReportError: for two runs of one spec and one seed whose results differ; one of them must be chosen.
    """
    kept: dict[tuple[str, int | str], RunRecord] = {}
    notes = []
    for run in runs:
        first = kept.setdefault((run.experiment, run.folder if run.seed is None else run.seed), run)
        if first is run:
            continue
        if _played_in(first) != _played_in(run):
            clash = f"{first.folder} and {run.folder} are both seed {run.seed} of {run.experiment}, with other results"
            raise ReportError(f"{clash}; name one of them")
        notes.append(f"{run.folder} is the same run as {first.folder}, named twice or copied: it counts once.")
    return list(kept.values()), notes


def _played_in(run: RunRecord) -> Json:
    """Return what was played, by agent, without the clock."""
    return {
        name: [agent.get(key) for key in ("returns", "normalized_curve")]
        for name, agent in run.results["agents"].items()
    }


def notes_on_lengths(titled: Mapping[str, Sequence[RunRecord]]) -> list[str]:
    """Return sentences on lives of different lengths, within an experiment and from one to the other."""
    lengths = {title: sorted({_num_episodes(run) for run in runs}) for title, runs in titled.items()}
    notes = [
        f"{title}: lives of {numbers[0]:,} to {numbers[-1]:,} episodes, cut to the shortest."
        for title, numbers in lengths.items()
        if len(numbers) > 1
    ]
    if len({numbers[0] for numbers in lengths.values()}) > 1:
        listed = ", ".join(f"{title} {numbers[0]:,}" for title, numbers in lengths.items())
        notes.append(f"Lives differ in length, and the last episodes of each are those before its own end: {listed}.")
    return notes


def _num_episodes(run: RunRecord) -> int:
    """Return how many episodes the lives of *run* have, the shortest of them."""
    lives = [agent["returns"][0][0] for agent in run.results["agents"].values() if "returns" in agent]
    return min(map(len, lives), default=0)


def pool(runs: Sequence[RunRecord]) -> tuple[Json, dict[str, list[int]]]:
    """Return normalised results with the replicas of all *runs* side by side, and the seed of each replica by agent.

    Lives of different lengths are cut to the shortest. An agent that only some of the runs have is left out, and so is
    a run that is there already (see `distinct`).
    """
    runs, _ = distinct(runs)
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
    plain = ({name: value for name, value in task.items() if not name.endswith("_error")} for task in first["tasks"])
    tasks = [{**task, "optimal_return": 1.0, "random_return": 0.0} for task in plain]
    return {**first, "agents": agents, "tasks": tasks, "summary": {}}, seeds


def _normalised_lives(name: str, entry: Json, run: RunRecord) -> Floats:
    """Return the normalised returns of one agent, `task replica episode`; a bare curve is one task and one replica."""
    if not entry.get("returns"):
        return np.asarray(entry["normalized_curve"], dtype=np.float64)[None, None]
    try:
        return statistics.normalise(entry["returns"], *references(run.results))
    except StatisticsError as error:
        raise ReportError(f"{run.folder}: agent {name!r}: {error}") from error
