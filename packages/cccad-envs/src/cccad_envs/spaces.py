"""Spaces as plain dictionaries: what Gymnasium calls them, the type of their arrays, and whether numbers lie inside."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from numpy.typing import ArrayLike, NDArray

from cccad_envs.plain import Table


def multi_discrete(sizes: Sequence[int], num_actions: int) -> dict[str, Table]:
    """Return the spaces of a family whose observations have features of these *sizes*."""
    return {
        "observation": {"kind": "multi-discrete", "sizes": list(sizes)},
        "action": {"kind": "discrete", "n": num_actions},
    }


def box(num_features: int, limit: float) -> Table:
    """Return the space of *num_features* real numbers from minus *limit* to *limit*."""
    return {"kind": "box", "shape": [num_features], "low": -limit, "high": limit}


def is_box(space: Table) -> bool:
    """Return whether the elements of *space* are real numbers."""
    return bool(space["kind"] == "box")


def feature_type(sizes: Sequence[int]) -> type[np.uint8] | type[np.int64]:
    """Return the type of observations whose features have *sizes* values.

    It is uint8 where all sizes together fit, since libraries add them up within the type of the space; else int64,
    since PyTorch hardly knows the unsigned types between.
    """
    return np.uint8 if sum(sizes) <= np.iinfo(np.uint8).max else np.int64


def element_type(space: Table) -> type[np.uint8] | type[np.int64] | type[np.float32]:
    """Return the type of observations in *space*: float32 for a box, else whole numbers."""
    return np.float32 if is_box(space) else feature_type(space["sizes"])


def gymnasium_space(space: Table) -> Box | Discrete[np.int64] | MultiDiscrete[np.integer[Any]]:
    """Return what Gymnasium calls *space*."""
    if is_box(space):
        return Box(space["low"], space["high"], tuple(space["shape"]), np.float32)
    if space["kind"] == "discrete":
        return Discrete(space["n"])
    return MultiDiscrete(space["sizes"], dtype=feature_type(space["sizes"]))


def checked_numbers(
    name: str, values: ArrayLike, space: Table, length: int, *, place: str, error: type[ValueError]
) -> NDArray[np.float32]:
    """Return *length* elements of a box as float32, `length a`.

    Args:
        name: What the values are, in the message of an error.
        values: The elements.
        space: The box.
        length: How many there must be.
        place: What the first axis counts, in the message of an error, such as `in row`.
        error: What is raised where they have another shape, or one lies outside the box.
    """
    array, shape = np.asarray(values), (length, *space["shape"])
    if array.shape != shape or array.dtype.kind not in "iuf":
        raise error(f"{name} must be numbers of shape {shape}, got {array.dtype} {array.shape}")
    numbers = array.astype(np.float32)
    low, high = np.float32(space["low"]), np.float32(space["high"])
    is_inside = ((numbers >= low) & (numbers <= high)).all(axis=1)  # false for NaN
    if not is_inside.all():
        where = int(is_inside.argmin())
        outside = tuple(numbers[where].tolist())
        raise error(f"{name} must be from {low} to {high}, got {outside} {place} {where:,}")
    return numbers
