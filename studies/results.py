"""Keep what finished runs of one spec found: their summaries by seed, with the command and the machine.

Usage: `.venv/bin/python studies/results.py experiments/cad_darkroom.toml runs/cad_darkroom-...-s*`, which writes
`docs/results/cad_darkroom.json`; `--add` keeps the runs that are in it. Where `cccad memory-report RUN` was run before,
its numbers are kept too.
"""

import argparse
import itertools
import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

TOLD = ("normalized_last10_mean", "iqm", "ci95", "worst_task_normalized", "episodes_to_90pct", "normalized_by_decade")
AGES = (1, 2, 5, 10, 50)  # of a life, in trained histories
REMEMBERED = ("probe", "swap", "latents", "attention")
WRITES = (1, 2, 5, 10, 20, 50, 100)  # whose latents are told of


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of every agent in one world."""
    record = {name: {key: row[key] for key in TOLD if key in row} for name, row in results["summary"].items()}
    for name, row in record.items():
        row["normalized_at_age"] = at_ages(results, results["agents"][name]["returns"])
    return record


def at_ages(results: dict[str, Any], returns: list[Any]) -> dict[str, float]:
    """Return the normalised return of the ten episodes before a life is 1, 2, 5... trained histories long."""
    trained, length = results.get("trained_episodes", math.inf), len(returns[0][0])
    lives = []
    for task, lived_on in zip(results["tasks"], returns, strict=True):
        least, most = task["random_return"], task["optimal_return"]
        lives += [[(value - least) / (most - least) for value in life] for life in lived_on]
    ends = {f"{times}x": int(times * trained) for times in AGES if times * trained <= length}
    return {age: fmean(value for life in lives for value in life[max(0, end - 10) : end]) for age, end in ends.items()}


def found(run: Path) -> dict[str, Any]:
    """Return what one run found, without its returns."""
    results = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
    meta = json.loads((run / "meta.json").read_text(encoding="utf-8"))
    keys = ("host", "versions", "git_commit")
    words = meta["argv"]
    settings = [value for word, value in itertools.pairwise(words) if word == "--set"]
    record = {
        "seed": results["seed"],
        "settings": settings,
        "evaluate": results["evaluate"],
        "agents": summary(results),
    }
    record |= {key: meta[key] for key in keys if key in meta}
    if worlds := results.get("worlds"):
        record["worlds"] = {name: summary(world) for name, world in worlds.items()}
    if (memory := run / "evaluation" / "memory.json").is_file():
        kept = json.loads(memory.read_text(encoding="utf-8"))
        kept["latents"] = [row for row in kept["latents"] if row["write"] in WRITES]
        kept["attention"] = {key: kept["attention"][key] for key in ("by_layer", "even")}
        record["memory"] = {key: kept[key] for key in REMEMBERED}
    return record


def rounded(value: Any) -> Any:
    """Return *value* with four digits after the point."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Write what the runs found beside the other results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--add", action="store_true", help="to the runs that are kept already")
    asked = parser.parse_args()
    if unfinished := [str(run) for run in asked.runs if not (run / "evaluation" / "results.json").is_file()]:
        parser.error(f"no finished evaluation in {', '.join(unfinished)}")
    out = Path("docs/results") / asked.spec.relative_to("experiments").with_suffix(".json")
    record = {"command": f"cccad-run {asked.spec} --set SETTING ...", "runs": []}
    if asked.add:
        record = json.loads(out.read_text(encoding="utf-8"))
    record["runs"] += rounded([found(run) for run in asked.runs])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
