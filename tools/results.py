"""Keep what finished runs of one spec found: their summaries by seed, with the command and the machine.

Usage: `.venv/bin/python tools/results.py docs/results/cad_darkroom.json runs/cad_darkroom-...-s*`
"""

import json
import sys
from pathlib import Path
from typing import Any

TOLD = ("normalized_last10_mean", "iqm", "ci95", "worst_task_normalized", "episodes_to_90pct")


def found(run: Path) -> dict[str, Any]:
    """Return what one run found, without its returns."""
    results = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
    meta = json.loads((run / "meta.json").read_text(encoding="utf-8"))
    agents = {name: {key: row.get(key) for key in TOLD} for name, row in results["summary"].items()}
    keys = ("host", "versions", "git_commit")
    return {"seed": results["seed"], "agents": agents, **{key: meta[key] for key in keys if key in meta}}


if __name__ == "__main__":
    out, runs = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    seeds = [found(run) for run in runs]
    command = f"cccad-run experiments/{out.stem}.toml --set seed=SEED"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"command": command, "runs": seeds}, indent=1) + "\n", encoding="utf-8")
