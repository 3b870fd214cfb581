"""Many small runs of one spec, each with a few settings changed: what `capacity.py` and `ablations.py` share.

A cell that is in the result file already is not run again, so a table can be stopped at any moment and go on later.
"""

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from results import rounded

ROOT = Path(__file__).parents[1]
KEPT = {"normalized": "normalized_last10_mean", "worst": "worst_task_normalized", "by_decade": "normalized_by_decade"}


def measure_all(spec: str, cells: list[tuple[dict[str, Any], list[str]]], out: Path, num_jobs: int) -> None:
    """Run *spec* for every cell, its name and the settings that it changes, *num_jobs* at a time on one thread each."""
    record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"cells": []}
    record["command"] = f"cccad-run {spec} --set SETTING ..."
    todo = [cell for cell in cells if not any(cell[0].items() <= old.items() for old in record["cells"])]
    with ThreadPoolExecutor(num_jobs) as pool:
        waiting = {pool.submit(measure, spec, changes): (name, changes) for name, changes in todo}
        for done in as_completed(waiting):
            name, changes = waiting[done]
            record["cells"].append({**name, **done.result(), "settings": changes})
            print({**name, **done.result()}, flush=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def measure(spec: str, changes: list[str]) -> dict[str, Any]:
    """Return what the main agent, and its controls, earned in their last episodes: 0 at chance, and 1 at best."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from cccad_train.cli import run; run()", spec, "--out", folder]
        command += [word for change in changes for word in ("--set", change)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        [measured] = Path(folder).glob("*/evaluation/results.json")
        rows = json.loads(measured.read_text(encoding="utf-8"))["summary"]
    trained = {name: kept(row) for name, row in rows.items() if name not in ("optimal", "random")}
    main = trained.pop("cad")
    return {**main, "controls": trained} if trained else main


def kept(row: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of an agent's summary."""
    record: dict[str, Any] = rounded({name: row[key] for name, key in KEPT.items() if key in row})
    return record
