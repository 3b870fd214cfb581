"""The tables of README.md and docs/claims.md, filled from `docs/results/` between their marks: nobody types a number.

Usage: `.venv/bin/python studies/tables.py`, or with `--check`, which changes nothing and fails where a table differs.
"""

import json
import re
import sys
from collections.abc import Callable
from statistics import fmean
from typing import Any

from attrs import frozen
from cells import ROOT

RESULTS = ROOT / "docs" / "results"
BENCHMARKS = ROOT / "benchmarks" / "results"
MEASURED = ("collect_73_tasks", "train", "act")
PAGES = ("README.md", "docs/claims.md")
MARKED = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
Found = dict[str, Any]


@frozen
class Column:
    """What of a run is told of an agent: by seed, or the mean of its seeds."""

    of: Callable[[Found, str], float | None]
    merge: Callable[[list[float]], float] | None = None

    def cell(self, runs: list[Found], agent: str) -> str:
        """Return what *runs*, one per seed, say of *agent*; a dash where they say nothing."""
        listed = [each for each in (self.of(run, agent) for run in runs) if each is not None]
        return (
            " / ".join(two_digits(each) for each in ([self.merge(listed)] if self.merge and listed else listed)) or "-"
        )


def score(name: str, merge: Callable[[list[float]], float] | None = None) -> Column:
    """Return the column of one number of the summary."""
    return Column(lambda run, agent: run["agents"][agent][name], merge)


def decades(number: int) -> dict[str, Column]:
    """Return the columns of the first so many ten episodes: the mean of the seeds."""
    return {f"episodes {10 * i + 1}-{10 * i + 10}": decade(i) for i in range(number)}


def decade(index: int, merge: Callable[[list[float]], float] | None = fmean) -> Column:
    """Return the column of ten episodes; a dash where lives are shorter."""
    return Column(lambda run, agent: next(iter(run["agents"][agent]["normalized_by_decade"][index:]), None), merge)


def age(times: str) -> Column:
    """Return the column of the ten episodes before a life is *times* a trained history long."""
    return Column(lambda run, agent: run["agents"][agent]["normalized_at_age"].get(times))


def world(name: str) -> Column:
    """Return the column of another world that the same agents played in."""
    return Column(lambda run, agent: run["worlds"][name][agent]["normalized_last10_mean"])


SCORES = {
    "mean": score("normalized_last10_mean", fmean),
    "by seed": score("normalized_last10_mean"),
    "interquartile mean": score("iqm"),
    "worst task": score("worst_task_normalized"),
}
CAD = {"compressed AD, 60 slots of which 8 latents": "cad", "the same, latents zeroed": "cad-zeroed"}
SWAPPED = {"the same, latents of another task": "cad-swapped"}
FULL = {"`full`, which evicts nothing": "full"}
BY_SEED = {"episodes 31-40 by seed": decade(3, None), "episodes 91-100 by seed": decade(9, None)}
TABLES = {
    "main": (
        "cad_darkroom",
        {
            **CAD,
            **SWAPPED,
            "emptied window, 200 slots, carry 100": "ad",
            "weights of the row above, sliding window": "ad-sliding",
        },
        SCORES,
    ),
    "darkroom": (
        "memory/darkroom",
        {
            **CAD,
            **SWAPPED,
            "the same, trained with one write only": "one_write",
            "emptied window, 60 slots, carry 30": "window_60",
            "weights of the row above, sliding window": "window_60-sliding",
            "emptied window, 240 slots, carry 120": "window_240",
            "weights of the row above, sliding window of 240": "window_240-sliding",
        },
        SCORES,
    ),
    "noisy-oracle": ("cad_darkroom_noisy_oracle", CAD, SCORES),
    "key-to-door": (
        "memory/key_to_door",
        {
            **CAD,
            "emptied window, 60 slots, carry 0": "window_carry_0",
            "emptied window, 60 slots, carry 30": "window",
            "weights of the row above, sliding window": "window-sliding",
            **FULL,
        },
        decades(4) | {"episodes 91-100": decade(9)} | BY_SEED | {"worst task, last ten": SCORES["worst task"]},
    ),
    "key-to-door-short": (
        "memory/key_to_door",
        {
            "compressed AD, 60 slots of which 8 latents": "cad",
            "emptied window, 60 slots, carry 0": "window_carry_0",
            "emptied window, 60 slots, carry 30": "window",
            "weights of the row above, sliding window": "window-sliding",
        },
        {
            "episodes 1-10": decade(0, None),
            "episodes 31-40": decade(3, None),
            "episodes 91-100": decade(9, None),
            "worst task, last ten": SCORES["worst task"],
        },
    ),
    "switching": (
        "memory/switching_darkroom",
        {
            **CAD,
            "emptied window, 60 slots, carry 0": "window_carry_0",
            "emptied window, 60 slots, carry 30": "window",
            "weights of the row above, sliding window": "window-sliding",
            **FULL,
        },
        SCORES | decades(3),
    ),
    "recall": (
        "memory/recall",
        {
            "compressed AD, 30 slots of which 8 latents": "cad",
            "emptied window, 30 slots, carry 0": "window_carry_0",
            "emptied window, 30 slots, carry 15": "window",
            "weights of the row above, sliding window": "window-sliding",
        },
        {"3 writes, as trained": SCORES["by seed"], "9 writes": world("x3"), "30 writes": world("x10")},
    ),
    "bandit": (
        "memory/bandit",
        {
            **CAD,
            "emptied window, 200 slots, carry 100": "ad",
            "weights of the row above, sliding window": "ad-sliding",
            "Thompson sampling, which they imitate": "thompson",
            "UCB1": "ucb1",
        },
        SCORES,
    ),
    "permuted": (
        "memory/darkroom_permuted",
        {
            "compressed AD, 60 slots of which 8 latents": "cad",
            "emptied window, 60 slots, carry 30": "window",
            "weights of the row above, sliding window": "window-sliding",
        },
        SCORES | decades(6),
    ),
    "extrapolation": (
        "memory/extrapolation",
        {"compressed AD, `gated-query`": "cad", "compressed AD, `accumulate`": "accumulate", **FULL},
        {f"{times} the trained length": age(times) for times in ("1x", "2x", "5x", "10x", "50x")},
    ),
}


def table(name: str) -> str:
    """Return the table *name* in Markdown: a row per agent, its seeds in order."""
    if name in WHOLE:
        return WHOLE[name]()
    source, agents, columns = TABLES[name]
    runs = json.loads((RESULTS / f"{source}.json").read_text(encoding="utf-8"))["runs"]
    rows = [[title, *by_seed(runs, agent, columns)] for title, agent in agents.items()]
    return markdown(["agent", *columns], rows)


def by_seed(runs: list[Found], agent: str, columns: dict[str, Column]) -> list[str]:
    """Return the cells of *agent*, from the first run of every seed that it is in."""
    first: dict[int, Found] = {}
    for run in runs:
        if agent in run["agents"]:
            first.setdefault(run["seed"], run)
    return [column.cell([first[seed] for seed in sorted(first)], agent) for column in columns.values()]


def capacity() -> str:
    """Return what every compressor carries: a row for so many bits and latents, means where there are several seeds."""
    cells = json.loads((RESULTS / "memory" / "capacity.json").read_text(encoding="utf-8"))["cells"]
    kinds = list(dict.fromkeys(cell["kind"] for cell in cells))
    sizes = sorted({(cell["bits"], cell["latents"]) for cell in cells})
    rows = []
    for bits, latents in sizes:
        measured = [cell for cell in cells if (cell["bits"], cell["latents"]) == (bits, latents)]
        values = [[cell["normalized"] for cell in measured if cell["kind"] == kind] for kind in kinds]
        seeds = len({cell["seed"] for cell in measured})
        rows.append(
            [f"{bits}", f"{latents}", f"{seeds}", *(two_digits(fmean(each)) if each else "" for each in values)]
        )
    return markdown(["bits", "latents", "seeds", *(f"`{kind}`" for kind in kinds)], rows)


def speed() -> str:
    """Return what `benchmarks/results/` says, a ratio a row."""
    read = {name: json.loads((BENCHMARKS / f"{name}.json").read_text(encoding="utf-8")) for name in MEASURED}
    collecting, training, acting = (read[name] for name in MEASURED)
    setting, ages = collecting["settings"], acting["age"]["ages"]
    tasks = f"{collecting['batched']['tasks']} tasks, {setting['num_envs']} environments each"
    rows = [
        [f"collecting with batched PPO ({tasks})", "Stable-Baselines3's PPO", collecting["ratio"]["env_steps_per_s"]],
        ["training on every decision of 300", "training on the last alone", training["ratio"]],
        ["the same", "the last alone, lengths drawn at random", training["ratio_to_random_length"]],
        ["decisions from a cache, window of 240", "recomputing the window", acting["cache"]["ratio"]],
    ]
    rows = [[what, against, f"{ratio:.0f} times as fast"] for what, against, ratio in rows]
    first, last = (f"{age['bytes_per_agent'] / 1000:.0f} kB" for age in (ages[0], ages[-1]))
    windows = ages[-1]["life_in_windows"]
    rows.append([f"memory of an agent that has lived for {windows} windows: {last}", "for one window", first])
    return markdown(["what", "against", "ratio"], rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Return a table of Markdown."""
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rows])


WHOLE = {"capacity": capacity, "speed": speed}
"""Tables that are not of agents."""


def two_digits(value: float) -> str:
    """Return *value* with two digits after the point, and no minus before a zero."""
    return f"{value:.2f}".replace("-0.00", "0.00")


def main() -> None:
    """Fill every page, or only compare."""
    is_check = "--check" in sys.argv[1:]
    for page in (ROOT / name for name in PAGES):
        text = page.read_text(encoding="utf-8")
        filled = MARKED.sub(lambda mark: f"{mark[1]}{table(mark[2])}{mark[3]}", text)
        if filled == text:
            continue
        if is_check:
            sys.exit(f"{page.relative_to(ROOT)}: a table is not what docs/results/ says; run studies/tables.py")
        page.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
