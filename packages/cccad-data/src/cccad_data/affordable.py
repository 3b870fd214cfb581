"""What is too much for this machine is refused before it is begun, with an estimate in words."""

import os
import resource


def memory_bytes() -> int:
    """Return how much memory a process can have here."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return there if limit == resource.RLIM_INFINITY else min(there, limit)


def excess(what: str, num_bytes: float) -> str:
    """Return a sentence when *what* needs more memory than there is, else nothing."""
    there = memory_bytes()
    if num_bytes <= there:
        return ""
    return f"{what} need about {num_bytes / 1e9:,.0f} GB of memory; there are {there / 1e9:,.0f}"
