"""The laws of a compressor: those of its own, and those of policies that remember with it.

    from cccad_core.laws.compressor import check_compressor
    check_compressor(MyCompressorSpec())

The spec must be registered, since a released policy must find it again. Each law raises `LawBroken` with its name and
what is wrong; all of them together take a few seconds.
"""

from typing import Any

from cccad_core.laws.bench import Bench
from cccad_core.laws.noise import WIDTH
from cccad_core.laws.policy import check_policy
from cccad_core.layouts import FusedSpec, TransitionSpec, TripleSpec
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.memory.triggers import EpisodeTrigger, EveryTrigger, FullTrigger, RandomTrigger
from cccad_core.policy import PolicySpec

LIVES = (
    (FusedSpec(), 0, FullTrigger()),
    (TransitionSpec(), 2, EveryTrigger(decisions=2)),
    (FusedSpec(), 1, EpisodeTrigger()),
    (TripleSpec(), 1, RandomTrigger()),
)  # layout, carry and trigger of the policies in which a compressor is checked


def check_compressor(spec: Any, *, width: int = WIDTH) -> None:
    """Check every law for a compressor *spec*, within policies of every token layout; raises LawBroken."""
    Bench.of(spec, width, 1 if width % 4 else 2).check()
    for tokens, carry, trigger in LIVES:
        window = spec.num_latents + tokens.slots * (carry + (6 if tokens.slots == 1 else 3))
        num_heads = 1 if width % 4 else 2
        memory = CompressedSpec(window=window, carry=carry, trigger=trigger, compressor=spec, num_heads=num_heads)
        check_policy(PolicySpec(tokens=tokens, memory=memory, width=width))
