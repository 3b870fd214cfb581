"""How many bits each compressor carries: accuracy of answers against bits shown, by compressor and number of latents.

Every cell is a run of `experiments/memory/capacity.toml` with a few settings changed, which are kept beside what it
found. A cell that is in the result file already is not run again.
Usage: `.venv/bin/python tools/capacity.py [--kinds gated-query ...] [--latents 4] [--bits 1 4 16 64] [--seeds 0]`
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "results" / "memory" / "capacity.json"
SPEC = "experiments/memory/capacity.toml"
RAW = 26  # slots of the window for raw tokens
KINDS = {  # by the vectors that the backbone is shown
    "window": lambda _: {},
    "full": lambda _: {},
    "mean-pool": lambda shown: {"half_lives_tokens": [], "num_blocks": shown - 1},
    "query": lambda shown: {"num_latents": shown},
    "gated-query": lambda shown: {"num_latents": shown},
    "gru": lambda shown: {"num_latents": shown},
    "rmt": lambda shown: {"num_latents": shown},
    "delta": lambda shown: {"num_latents": shown},
    "accumulate": lambda shown: {"num_summary": shown // 4, "max_segments": 4},
    "retrieval": lambda shown: {"tokens_per_segment": shown // 4, "top": 3},
}


def settings(kind: str, latents: int, bits: int, seed: int) -> list[str]:
    """Return what a cell changes in the spec: at least one write lies between a bit and its question."""
    filler = max(RAW, 60 - bits)
    told = "".join(f", {name} = {value}" for name, value in KINDS[kind](latents).items())
    return [
        f"env.num_bits={bits}",
        f"env.num_filler={filler}",
        f'policy.compressor={{ kind = "{kind}"{told} }}',
        f"policy.context.window={RAW + (latents if told else 0)}",
        f"train.num_writes={-(-2 * (2 * bits + filler) // RAW)}",
        f"seed={seed}",
    ]


def measure(changes: list[str]) -> float:
    """Return the share of right answers in the last episodes, 0 at chance and 1 at best."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", "from cccad_train.cli import run; run()", SPEC, "--out", out]
        command += [word for change in changes for word in ("--set", change)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        [found] = Path(out).glob("capacity-*/evaluation/results.json")
        told: float = json.loads(found.read_text(encoding="utf-8"))["summary"]["cad"]["normalized_last10_mean"]
    return round(told, 4)


def main() -> None:
    """Measure every cell that is asked for and not known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    for name, default in {"latents": [4], "bits": [1, 4, 16, 64], "seeds": [0]}.items():
        parser.add_argument(f"--{name}", nargs="+", type=int, default=default)
    asked = parser.parse_args()
    known: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {"cells": []}
    cells = known["cells"]
    for seed, bits, latents, kind in itertools.product(asked.seeds, asked.bits, asked.latents, asked.kinds):
        cell = {"kind": kind, "latents": latents, "bits": bits, "seed": seed}
        if any(cell.items() <= old.items() for old in cells):
            continue
        changes = settings(kind, latents, bits, seed)
        cells.append({**cell, "normalized": measure(changes), "settings": changes})
        print(cells[-1], flush=True)
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps({"command": f"cccad-run {SPEC} --set SETTING ...", "cells": cells}, indent=1) + "\n")


if __name__ == "__main__":
    main()
