"""Spaces as plain dictionaries: which array dtype holds them, and whether an array lies inside."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cccad_data.errors import SourceError

Space = Mapping[str, Any]


def sizes(space: Space) -> tuple[int, ...]:
    """Return the number of values of each feature of a discrete or multi-discrete *space*.

    Raises SourceError for any other kind.
    """
    if space["kind"] == "discrete":
        return (int(space["n"]),)
    if space["kind"] == "multi-discrete":
        return tuple(int(size) for size in space["sizes"])
    raise SourceError(f"a space of kind {space['kind']!r} has no sizes; discrete or multi-discrete is needed")


def num_features(space: Space) -> int:
    """Return how many numbers one element of *space* has."""
    if space["kind"] == "box":
        return int(np.prod(space["shape"], dtype=np.int64))
    return len(sizes(space))


def dtype(space: Space) -> np.dtype[Any]:
    """Return the smallest dtype that holds every element of *space*: an unsigned integer, or float32 for a box."""
    if space["kind"] == "box":
        return np.dtype(np.float32)
    return np.dtype(np.min_scalar_type(max(sizes(space)) - 1))


def bounds(space: Space) -> NDArray[np.float64]:
    """Return the least and the greatest value of every feature of a box *space*, ``2 o``."""
    low, high = (np.broadcast_to(np.asarray(space[end], np.float64), space["shape"]) for end in ("low", "high"))
    return np.stack([low.reshape(-1), high.reshape(-1)])


def outside(space: Space, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which rows of *values* (``t o``, or ``t`` for a discrete space) are no element of *space*, as ``t``."""
    rows = values.reshape(len(values), -1)
    if space["kind"] == "box":
        low, high = bounds(space)
        inside = (rows >= low) & (rows <= high)
    else:
        inside = (rows >= 0) & (rows < np.asarray(sizes(space)))
    return np.asarray(~inside.all(axis=1))
