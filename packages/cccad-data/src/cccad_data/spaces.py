"""Spaces as plain dictionaries: which are sound, which array dtype holds them, and whether an array lies inside.

The table of what is a space is that of `cccad_core.spaces`; a test holds the two against each other.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cccad_data.errors import DataError, SourceError
from cccad_data.plain import Array, DType, Fields, Table

Space = Fields

_FIELDS = {"discrete": {"n"}, "multi-discrete": {"sizes"}, "box": {"shape", "low", "high"}}
_ENDS = {"low": -math.inf, "high": math.inf}
"The ends of a box, and what stands for None: JSON has no infinity."


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
        return math.prod(space["shape"])
    return len(sizes(space))


def dtype(space: Space) -> DType:
    """Return the smallest dtype that holds every element of *space*: an unsigned integer, or float32 for a box."""
    if space["kind"] == "box":
        return np.dtype(np.float32)
    return np.dtype(np.min_scalar_type(max(sizes(space)) - 1))


def bounds(space: Space) -> NDArray[np.float64]:
    """Return the least and the greatest value of every feature of a box *space*, `2 o`.

    They are rounded outward to what float32 has, as its elements are kept in float32.
    """
    return np.stack([outward(_ends(space, name), unbounded) for name, unbounded in _ENDS.items()])


def outward(numbers: NDArray[np.float64], toward: float) -> NDArray[np.float64]:
    """Return *numbers* as the nearest that float32 has and that are not short of them, *toward* an infinity."""
    with np.errstate(over="ignore"):
        near = numbers.astype(np.float32)
        is_short = near > numbers if toward < 0 else near < numbers
        return np.where(is_short, np.nextafter(near, np.float32(toward)), near).astype(np.float64)


def _ends(space: Space, name: str) -> NDArray[np.float64]:
    numbers = np.array([_ENDS[name] if end is None else end for end in _flat(space[name])], np.float64)
    return np.broadcast_to(numbers if isinstance(space[name], list | tuple) else numbers[0], (num_features(space),))


def _flat(bound: object) -> Iterator[object]:
    if isinstance(bound, list | tuple):
        for part in bound:
            yield from _flat(part)
    else:
        yield bound


def outside(space: Space, values: Array) -> NDArray[np.bool_]:
    """Say which rows of *values* (`t o`, or `t` for a discrete space) are no element of *space*, as `t`."""
    rows = values.reshape(len(values), -1 if len(values) else num_features(space))
    if space["kind"] == "box":
        low, high = bounds(space)
        inside = (rows >= low) & (rows <= high)
    else:
        inside = (rows >= 0) & (rows < np.asarray(sizes(space)))
        if rows.dtype.kind == "f":
            inside &= rows == np.floor(rows)
    return np.asarray(~inside.all(axis=1))


def uniform_actions(space: Space, uniform: Array) -> Array:
    """Return uniformly random actions made of *uniform* numbers in [0, 1), in their shape; of several, `... a`.

    Raises SourceError when a box has no finite bounds.
    """
    if space["kind"] == "box":
        low, high = bounds(space)
        if not np.isfinite([low, high]).all():
            raise SourceError("uniform actions need a box with finite bounds")
        return np.asarray(low + uniform * (high - low), np.float32)
    counts = np.asarray(sizes(space))
    return np.asarray(np.minimum(uniform * counts, counts - 1), np.int64)


def action_shape(space: Space) -> tuple[int, ...]:
    """Return the shape of one action: that of a box, the number of choices, or nothing where there is one choice."""
    if space["kind"] == "box":
        return tuple(space["shape"])
    return (len(sizes(space)),) if space["kind"] == "multi-discrete" else ()


def random_actions(space: Space, num_rows: int, seed: int) -> Callable[[], Array]:
    """Return a function that draws uniformly random actions of *num_rows* rows at every call, in the space's shape."""
    stream = np.random.default_rng(seed)
    shape = (num_rows, *action_shape(space))

    def draw() -> Array:
        return uniform_actions(space, stream.random((num_rows, num_features(space)))).reshape(shape)

    return draw


def check(space: Any, where: str) -> None:
    """Raise DataError, which begins with *where*, unless *space* is a sound plain dictionary."""
    kind = space.get("kind") if isinstance(space, Mapping) else None
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise DataError(f"{where}: a space has a 'kind', which is one of {', '.join(_FIELDS)}: {space!r:.80}")
    if set(space) != {"kind", *fields}:
        raise DataError(f"{where}: a {kind} space has the fields {', '.join(sorted(fields))}: {space!r:.80}")
    counts = [space["n"]] if kind == "discrete" else space["sizes" if kind == "multi-discrete" else "shape"]
    if not isinstance(counts, list | tuple) or not all(type(count) is int and count >= 1 for count in counts):
        raise DataError(f"{where}: the sizes and the shape of a space are whole numbers of at least 1: {space!r:.80}")
    if kind == "multi-discrete" and not counts:
        raise DataError(f"{where}: a multi-discrete space has one size at least")
    if kind != "box":
        return
    for name in _ENDS:
        numbers = [*_flat(space[name])]
        if not all(number is None or _is_real(number) for number in numbers):
            raise DataError(f"{where}: {name!r} of a box is a number or a list of them: {space[name]!r:.80}")
        if isinstance(space[name], list | tuple) and len(numbers) != num_features(space):
            raise DataError(f"{where}: {name!r} of a box has {len(numbers)} numbers for {num_features(space)} features")
    low, high = (_ends(space, name) for name in _ENDS)
    if not ((low <= high) & (low < math.inf) & (high > -math.inf)).all():
        raise DataError(f"{where}: 'low' of a box is not above 'high' anywhere: {space!r:.120}")


def _is_real(number: object) -> bool:
    return not isinstance(number, bool) and isinstance(number, Real) and not math.isnan(number)


def plain(space: Space) -> Table:
    """Return *space* as JSON has it, with None for a bound that is infinite."""

    def finite(bound: object) -> object:
        if isinstance(bound, list | tuple):
            return [finite(part) for part in bound]
        return None if isinstance(bound, float) and math.isinf(bound) else bound

    return {name: finite(value) for name, value in space.items()}


def all_plain(named: Mapping[str, Space]) -> Table:
    """Return the `observation` and the `action` space of a family as JSON has them."""
    return {side: plain(space) for side, space in named.items()}


def all_alike(one: Mapping[str, Space], other: Mapping[str, Space]) -> bool:
    """Say whether two families' `observation` and `action` spaces have the same elements."""
    return all(alike(one[side], other[side]) for side in ("observation", "action"))


def alike(one: Space, other: Space) -> bool:
    """Say whether two spaces have the same elements, however their bounds are written down."""
    if one["kind"] != other["kind"]:
        return False
    if one["kind"] != "box":
        return sizes(one) == sizes(other)
    return tuple(one["shape"]) == tuple(other["shape"]) and bool((bounds(one) == bounds(other)).all())
