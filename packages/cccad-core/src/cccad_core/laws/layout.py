"""The laws of a token layout, in a small policy that sees by it."""

from typing import Any

import torch
from attrs import evolve

from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.laws.law import require
from cccad_core.laws.noise import SPACES, WIDTH, random_batch
from cccad_core.laws.policy import check_lives, check_mask, check_no_future
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Spaces

SMALL = CompressedSpec(num_layers=1, num_heads=2, compressor=GatedQuerySpec(num_latents=2, num_heads=2))


def check_layout(spec: Any, *, spaces: Spaces = SPACES) -> None:
    """Check that with a token layout decisions know no future and no padding, and are the same one at a time."""
    policy = PolicySpec(tokens=spec, memory=evolve(SMALL, window=4 + 8 * spec.slots), width=WIDTH)
    built = policy.build(spaces, seed=1).eval()
    for name in ("sequence", "asking", "settled"):
        require("a layout is whole", hasattr(built.layout, name), f"what build() returns has no method {name}()")
    batch = random_batch(spaces, size=3, length=built.memory.length_of(2) - 1, seed=2)
    tokens, wanted = tuple(built.layout.sequence(batch).shape), (3, batch.length * spec.slots, WIDTH)
    require("declared size", tokens == wanted, f"sequence() gives {tokens}, not {wanted}")
    with torch.no_grad():
        check_no_future(built, spaces, batch)
        check_lives(built, batch)
        check_mask(built, spaces, batch)
