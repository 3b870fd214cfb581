"""How many bits each compressor carries: accuracy of answers against bits shown, by compressor and number of latents.

Every cell is a run of `experiments/memory/capacity.toml` with a few settings changed, which are kept beside what it
found. `accumulate` and `retrieval` show four vectors at least.
Usage: `.venv/bin/python studies/capacity.py [--kinds gated-query ...] [--latents 4] [--bits 1 4 16 64] [--seeds 0]`
"""

import argparse
import itertools
from collections.abc import Callable
from typing import Any

from cells import ROOT, measure_all

OUT = ROOT / "docs" / "results" / "memory" / "capacity.json"
SPEC = "experiments/memory/capacity.toml"
RAW = 26  # slots of the window for raw tokens
# The fold first learns to tell what it has just read; without that most do not begin to learn in the updates given.
WARM = "{ num_updates = 400, targets_per_update = 4000, num_writes = 2, optimizer = { learning_rate = 4e-3 } }"
KINDS: dict[str, Callable[[int], dict[str, Any]]] = {  # by the vectors that the backbone is shown
    "window": lambda _: {},
    "full": lambda _: {},
    "sink": lambda shown: {"num_sinks": shown},
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
    fields = "".join(f", {name} = {value}" for name, value in KINDS[kind](latents).items())
    warm = [] if kind in ("window", "full", "sink") else [f"pretrain={WARM}"]  # these have nothing to learn there
    return [
        *warm,
        f"env.num_bits={bits}",
        f"env.num_filler={RAW}",
        f'policy.memory.compressor={{ kind = "{kind}"{fields} }}',
        f"policy.memory.window={RAW + (latents if fields else 0)}",
        f"train.num_writes={-(-2 * (2 * bits + RAW) // RAW)}",
        f"seed={seed}",
    ]


def main() -> None:
    """Measure every cell that is asked for and not known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    for name, default in {"latents": [4], "bits": [1, 4, 16, 64], "seeds": [0]}.items():
        parser.add_argument(f"--{name}", nargs="+", type=int, default=default)
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, one thread each")
    asked = parser.parse_args()
    every = itertools.product(asked.seeds, asked.latents, asked.bits, asked.kinds)
    cells = [
        ({"kind": kind, "latents": latents, "bits": bits, "seed": seed}, settings(kind, latents, bits, seed))
        for seed, latents, bits, kind in every
    ]
    measure_all(SPEC, cells, OUT, asked.jobs)


if __name__ == "__main__":
    main()
