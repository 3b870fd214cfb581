"""Refuses what this machine cannot afford before it begins, with an estimate."""

import os
import resource

from cccad_envs.errors import SettingError

_OPERATIONS_PER_S = 1e8
_MOST_OPERATIONS = 1e10


def refuse_too_large(what: str, num_bytes: float) -> None:
    """Raise SettingError when *what* needs more memory than there is."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    there = there if limit == resource.RLIM_INFINITY else min(there, limit)
    if num_bytes > there:
        raise SettingError(f"{what} needs about {num_bytes / 1e9:,.0f} GB of memory; there are {there / 1e9:,.0f}")


def refuse_too_slow(what: str, operations: float) -> None:
    """Raise SettingError when *what* takes so many operations on single numbers that nobody waits for it."""
    if operations > _MOST_OPERATIONS:
        hours, most = operations / _OPERATIONS_PER_S / 3600, _MOST_OPERATIONS / _OPERATIONS_PER_S
        raise SettingError(f"{what} would take about {hours:,.1f} hours, more than the {most:,.0f} s that are allowed")
