"""What a policy takes of the machine's memory, before anything of it is made."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

from cccad_core.errors import CccadError
from cccad_core.memory.base import HasLeastBytes
from cccad_core.policy import Policy, PolicySpec
from cccad_core.spaces import Spaces

if sys.platform != "win32":
    import resource


class TooLarge(CccadError, ValueError):
    """What was asked for needs more memory than there is."""


def outline(spec: PolicySpec, spaces: Spaces) -> tuple[Policy, int]:
    """Return the policy of a spec, its tensors without content if that can be, and the bytes of all of them.

    Raises TooLarge where that is more than there is memory.
    """
    if isinstance(spec.memory, HasLeastBytes):
        refuse_what_does_not_fit(spec.memory.least_bytes(spec.width), "this policy")
    try:
        with torch.device("meta"):
            policy = Policy(spec, spaces)
    except (RuntimeError, TypeError, OverflowError) as error:
        if "verflow" in str(error):  # more than 2**63 bytes, or choices
            there = in_words(memory_bytes())
            raise TooLarge(f"this policy would need far more memory than there is: {there}") from None
        policy = spec.build(spaces, seed=0)  # a part that looks at its own numbers while it is built
    held = [*policy.parameters(), *policy.buffers()]
    num_bytes = sum(value.numel() * value.element_size() for value in held)
    refuse_what_does_not_fit(num_bytes, "this policy")
    return policy, num_bytes


def memory_bytes() -> int:
    """Return the memory that this process may take: the machine's, or less where a container or a limit says so."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [1 << 62]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no number
            limits.append(int(Path(file).read_text(encoding="ascii")))
    if sys.platform != "win32":
        limits.append(resource.getrlimit(resource.RLIMIT_AS)[0])
    return min(limit for limit in limits if limit > 0)  # -1: no limit


def refuse_what_does_not_fit(num_bytes: float, what: str) -> None:
    """Raise TooLarge, with both figures, if *num_bytes* are more than the memory that there is."""
    if num_bytes > (there := memory_bytes()):
        raise TooLarge(f"{what} would need about {in_words(num_bytes)} of memory; there are {in_words(there)}")


def in_words(num_bytes: float) -> str:
    """Return a size in GB, as precisely as an estimate is."""
    gigabytes = num_bytes / 1e9
    return f"{gigabytes:,.0f} GB" if gigabytes >= 10 else f"{gigabytes:,.1f} GB"
