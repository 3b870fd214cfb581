"""A run tells its own story: run folder in, one self-contained HTML page (or a table for the terminal) out.

Reads what the run folder promises (`evaluation/results.json`, and where present `meta.json`, `spec.toml`,
`metrics.jsonl`, `evaluation/data_card.json`) and nothing else. The page needs no network and no script.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import quote

import numpy as np
from attrs import evolve
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cccad_train.console import table, warn
from cccad_train.files import Json, write_text
from cccad_train.report import statistics
from cccad_train.report.charts import Chart, Line, line_charts, metric_charts
from cccad_train.report.runs import (
    AgentRecord,
    ReportError,
    RunRecord,
    check_results,
    distinct,
    estimates_of,
    name_of_best,
    notes_on_lengths,
    pool,
    read_agents,
    read_run,
    references,
    warnings_of,
    within,
)

REFERENCES = ("optimal", "random")  # drawn as level lines: their returns are known exactly
MEMORY_PAGE = "memory.html"
LEAST_ABOVE_BLIND, LEAST_SHARE_ABOVE_BLIND = 0.05, 0.2
"""What an agent must be above a task-blind policy to have shown anything: so much, and this share of its own score."""
NUM_COLOURS = 8  # classes c0 to c7 of the style sheet
MAX_RUG = 400  # ticks; more would be a solid bar


def two_digits(value: float | None) -> str:
    """Return *value* as text, a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{round(value, 2) + 0.0:.2f}"  # + 0.0: never -0.00


def _cells(agent: AgentRecord, last: str = "last 10") -> dict[str, str]:
    """Return the row of *agent* as text, by column title; *last* is that of its last episodes."""
    row = agent.row
    interval = row.get("ci95")
    solved, writes, speed = row.get("episodes_to_90pct"), agent.compressions_per_history, agent.actions_per_s
    return {
        last: two_digits(row.get("normalized_last10_mean")),
        "IQM": two_digits(row.get("iqm")),
        "95 %": " – ".join(map(two_digits, interval)) if interval else "–",
        "worst task": two_digits(row.get("worst_task_normalized")),
        "episodes to 0.9": "–" if solved is None else f"{solved:,}",
        "compressions": "–" if writes is None else f"{writes:,.0f}",
        "actions/s": "–" if not speed else f"{speed:,.0f}",
    }


def _rows(agents: Sequence[AgentRecord]) -> list[tuple[AgentRecord, dict[str, str]]]:
    """Return the table of *agents*; its titles say how many last episodes it is about."""
    last = "last " + " or ".join(map(str, sorted({agent.num_last for agent in agents})))
    return [(agent, _cells(agent, last)) for agent in agents]


def summary_table(results: Json) -> str:
    """Return the tables of agents and their statistics as text that fits the terminal, environment by environment.

    Raises:
        ReportError: see `check_results`.
    """
    agents = read_agents(check_results(results))
    rows = _rows(agents)
    shown = table([("", *rows[0][1]), *((agent.label, *cells.values()) for agent, cells in rows)])
    others = (f"in {name}:\n{summary_table(inner)}" for name, inner in results.get("worlds", {}).items())
    warnings = (f"warning: {text}" for text in results.get("warnings", []))
    return "\n\n".join(filter(None, [shown, _blindness(agents), *warnings, *others]))


def _headline(agents: Sequence[AgentRecord], results: Json) -> str:
    """Return what a reader takes home: how the first of *agents* ends, and how a task-blind one does."""
    agent, tasks, row = agents[0], results["tasks"], agents[0].row
    is_held_out = all(task.get("split") == "held-out" for task in tasks)
    kind = "held-out tasks that it never saw" if is_held_out else "tasks"
    cells = _cells(agent)
    spread = f" (interquartile mean {cells['IQM']}, 95 % interval {cells['95 %']})" if row.get("ci95") else ""
    score = two_digits(row.get("normalized_last10_mean"))
    ending = (
        f"{agent.label} ends at {score} of the {name_of_best(results)}{spread} on {len(tasks)} {kind}, "
        f"with frozen weights, after {len(agent.curve):,} episodes; "
        f"{two_digits(row.get('worst_task_normalized'))} on its worst task."
    )
    return " ".join(filter(None, [ending, _blindness(agents)]))


def _blindness(agents: Sequence[AgentRecord]) -> str:
    """Return a sentence on how a task-blind policy ends beside the first of *agents*; nothing where there is none.

    Where it is near, tasks need not be told apart, and the return of the first shows nothing of in-context learning.
    """
    score = agents[0].row.get("normalized_last10_mean")
    ends = [agent.row.get("normalized_last10_mean") for agent in agents[1:] if agent.role == "blind"]
    reached = next((end for end in ends if end is not None), None)
    if score is None or reached is None:
        return ""
    sentence = f"task-blind policy, which sees the current observation alone, ends at {two_digits(reached)}."
    is_near = score - reached < max(LEAST_ABOVE_BLIND, LEAST_SHARE_ABOVE_BLIND * score)
    return f"This shows no in-context learning: a {sentence}" if is_near else f"A {sentence}"


def _differences(agents: Sequence[AgentRecord]) -> list[tuple[str, str, str, str]]:
    """Return by how much the first of *agents* is above each other that played the same tasks: four texts each."""
    first, rows = agents[0], []
    for other in agents[1:]:
        if first.scores is None or other.scores is None or other.task_ids != first.task_ids or other.name in REFERENCES:
            continue
        seeds = (first.seeds, other.seeds)
        mean, interval = statistics.paired_difference(first.scores, other.scores, np.random.default_rng(0), seeds=seeds)
        better = sum(ours > theirs for ours, theirs in zip(first.by_task, other.by_task, strict=True))
        spread = " – ".join(map(_signed, interval)) if interval else "–"
        rows.append((other.label, _signed(mean), spread, f"{better} of {len(first.by_task)}"))
    return rows


def _signed(value: float) -> str:
    text = two_digits(value)
    return text if text.startswith("-") or float(text) == 0 else f"+{text}"


def _lengths(curves: Sequence[AgentRecord]) -> str:
    """Return a sentence on lives of different lengths that are laid over each other; nothing where all are the same."""
    lengths = Counter(len(agent.curve) for agent in curves)
    [(usual, _)] = lengths.most_common(1)
    others = [f"{agent.label} has {len(agent.curve):,}" for agent in curves if len(agent.curve) != usual]
    rest = f"the other{'s have' if lengths[usual] > 1 else ' has'} {usual:,} episodes"
    return f"Lives differ in length, and each curve ends with its lives: {', '.join(others)}, {rest}." if others else ""


def _task_rows(agents: Sequence[AgentRecord], results: Json) -> list[Json]:
    """Return the tasks with every agent's normalised return, the first agent's worst first."""
    if not agents:
        return []
    worst = {agent.name: int(np.argmin(agent.by_task)) for agent in agents}
    order = np.argsort(agents[0].by_task, kind="stable").tolist()
    return [
        {
            "task": results["tasks"][index],
            "params": ", ".join(f"{name} {value}" for name, value in results["tasks"][index].get("params", {}).items()),
            "cells": [(agent.by_task[index], worst[agent.name] == index) for agent in agents],
        }
        for index in order
    ]


def _flat(content: object, prefix: str = "") -> list[tuple[str, str]]:
    """Return nested JSON as (dotted name, text) pairs."""
    if isinstance(content, Mapping):
        inner = [_flat(value, f"{prefix}.{name}" if prefix else str(name)) for name, value in content.items()]
        return [pair for pairs in inner for pair in pairs]
    if isinstance(content, list):
        return [(prefix, " ".join(map(str, content)))]
    return [(prefix, f"{content:.4g}" if isinstance(content, float) else str(content))]


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into *run_dir* and return its path.

    Raises:
        ReportError: see `read_run`.
    """
    run = read_run(run_dir)
    agents = read_agents(run.results)
    task_agents = [agent for agent in agents if agent.by_task and agent.name not in REFERENCES]
    page = {
        "title": run.folder,
        "headline": _headline(agents, run.results),
        "is_comparison": False,
        "notes": [f"Warning: {text}." for text in warnings_of(run.results)],
        "memory_page": MEMORY_PAGE if (run_dir / MEMORY_PAGE).is_file() else "",
        "metric_charts": metric_charts(run.metrics),
        "seconds": {row.get("stage"): row["time_s"] for row in run.metrics if "time_s" in row},
        "task_rows": _task_rows(task_agents, run.results),
        "task_agents": task_agents,
        "training": run.results.get("training", {}),
        "data_card": _flat(run.data_card),
        "meta": _flat({name: value for name, value in run.meta.items() if name != "seconds"}),
        "stage_seconds": _flat(run.meta.get("seconds", {})),
        "number": two_digits,
        "spec": run.spec,
        "environments": {name: _rows(read_agents(inner)) for name, inner in run.results.get("worlds", {}).items()},
    }
    return _render(run_dir / "report.html", page, agents, agents, run.results)


def write_figure(run_dir: Path, path: Path) -> Path:
    """Write the learning curve of *run_dir* alone, as an SVG with its legend, to *path* and return that.

    Raises:
        ReportError: see `read_run`.
    """
    results = read_run(run_dir).results
    agents = read_agents(results)
    page = {"headline": _headline(agents, results), "is_comparison": False}
    return _render(path, page, agents, agents, results, template="figure.svg")


def write_comparison(run_dirs: Sequence[Path]) -> Path:
    """Write one page over several runs of a family beside the first of them, and return its path.

    Runs whose folders differ in the seed alone are one experiment: their replicas are pooled, and the interval is over
    seeds. Curves are normalised returns, so that runs with other held-out tasks can be seen side by side.

    Raises:
        ReportError: for a run that cannot be read, runs of different families, or seeds with different tasks.
    """
    runs, notes = distinct([read_run(run_dir) for run_dir in run_dirs])
    for note in notes:
        warn(note.removesuffix("."))
    if not runs:
        raise ReportError("there is nothing to compare: name at least one run folder")
    families = sorted({run.results["tasks"][0]["task_id"].split("/")[0] for run in runs})
    if len(families) > 1:
        raise ReportError(f"runs of different families cannot be compared: {', '.join(families)}")
    experiments: dict[str, list[RunRecord]] = {}
    for run in runs:
        experiments.setdefault(run.experiment, []).append(run)
    titled = _titled(experiments)
    agents, results = _side_by_side(titled)
    if len({members[0].results.get("trained_episodes") for members in titled.values()}) > 1:
        results = {**results, "trained_episodes": None}  # one line would be true of some runs alone
    environments = dict.fromkeys(name for run in runs for name in run.results.get("worlds", {}))
    inner = {
        environment: {
            title: [within(run, environment) for run in members]
            for title, members in titled.items()
            if all(environment in run.results.get("worlds", {}) for run in members)
        }
        for environment in environments
    }
    on_trial = [agent for agent in agents if agent.role == "agent"] or agents
    digest = hashlib.sha256("\n".join(run.folder for run in runs).encode()).hexdigest()[:8]
    path = Path(run_dirs[0]).resolve().parent / f"comparison-{digest}.html"
    page = {
        "title": f"{families[0]}: {', '.join(titled)}",
        "headline": f"{len(runs)} runs on {families[0]}: " + "; ".join(_standing(agent) for agent in on_trial) + ".",
        "is_comparison": True,
        "memory_page": "",
        "runs": [(run.folder, _page_beside(path, run.path)) for run in runs],
        "notes": notes
        + notes_on_lengths(titled)
        + [f"Warning, {run.folder}: {text}." for run in runs for text in warnings_of(run.results)],
        "environments": {environment: _rows(_side_by_side(those)[0]) for environment, those in inner.items() if those},
    }
    return _render(path, page, agents, on_trial, results)


def _side_by_side(titled: Mapping[str, list[RunRecord]]) -> tuple[list[AgentRecord], Json]:
    """Return the agents of several experiments, those on trial first, and the pooled results of the first."""
    pooled = {title: pool(members) for title, members in titled.items()}
    first = next(iter(pooled))
    agents = [
        agent if agent.name in REFERENCES else _of_run(agent, title)
        for title, (results, seeds) in pooled.items()
        for agent in read_agents(results, seeds)
        if agent.name not in REFERENCES or title == first
    ]
    return sorted(agents, key=lambda agent: agent.role != "agent"), pooled[first][0]


def _page_beside(page: Path, run_dir: Path) -> str:
    """Return the relative address of the report of *run_dir*, seen from *page*; nothing where there is none."""
    report = run_dir.resolve() / "report.html"
    return quote(os.path.relpath(report, page.parent).replace(os.sep, "/")) if report.is_file() else ""


def _of_run(agent: AgentRecord, title: str) -> AgentRecord:
    return evolve(agent, name=f"{title}/{agent.name}", label=f"{title}: {agent.label}")


def _titled(experiments: Mapping[str, list[RunRecord]]) -> dict[str, list[RunRecord]]:
    """Return the runs of each experiment by its name, with the digest where names meet and the number of seeds."""
    names = [members[0].name for members in experiments.values()]
    titled = {}
    for experiment, members in experiments.items():
        name = experiment if names.count(members[0].name) > 1 else members[0].name
        titled[f"{name} ({len(members)} seeds)" if len(members) > 1 else name] = members
    return titled


def _standing(agent: AgentRecord) -> str:
    spread = f" ({_cells(agent)['95 %']})" if agent.row.get("ci95") else ""
    return f"{agent.label} {two_digits(agent.row.get('iqm'))}{spread}"


def _learning_curve(agents: Sequence[AgentRecord], css: Mapping[str, str], results: Json, y_label: str) -> list[Chart]:
    """Return the charts of return by episode; its rug is the first agent's compressions on its first task."""
    optimal, random = (float(values.mean()) for values in references(results))
    horizon, trained = results.get("horizon"), results.get("trained_episodes")
    writes = agents[0].compressions[0] if agents[0].compressions else ()
    lines = [
        Line(
            css=css[agent.name],
            x=np.arange(1.0, len(agent.curve) + 1),
            y=agent.curve,
            band=agent.band,
            is_main=agent.role == "agent",
        )
        for agent in agents
    ]
    return line_charts(
        lines,
        labels=("episode", y_label),
        levels=[(name_of_best(results), optimal), ("random", random)],
        mark=("training length", float(trained)) if trained else None,
        rug=[env_step / horizon for env_step in writes] if horizon and len(writes) <= MAX_RUG else (),
    )


def _render(
    path: Path,
    page: Json,
    agents: Sequence[AgentRecord],
    drawn: Sequence[AgentRecord],
    results: Json,
    *,
    template: str = "report.html",
) -> Path:
    """Fill the template, write it to *path* and return that."""
    curves = [agent for agent in drawn if agent.name.split("/")[-1] not in REFERENCES] or list(drawn)
    css = {agent.name: f"c{index % NUM_COLOURS}" for index, agent in enumerate(curves)}
    y_label = "normalised return" if page["is_comparison"] else "return"
    text = fill(
        template,
        **page,
        css=css,
        curves=curves,
        curve_charts=_learning_curve(curves, css, results, y_label),
        horizon=results.get("horizon"),
        best=name_of_best(results),
        estimates="" if page["is_comparison"] else estimates_of(results),
        rows=_rows(agents),
        differences=_differences(agents),
        lengths="" if page["is_comparison"] else _lengths(curves),
        rug_task=results["tasks"][0]["task_id"],
    )
    write_text(path, text)
    return path


def fill(template: str, **content: object) -> str:
    """Return one of the package's templates, filled with *content*."""
    return _templates().get_template(template).render(**content).lstrip()


@cache
def _templates() -> Environment:
    folder = Path(__file__).parent / "templates"
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
