"""Spaces as plain dictionaries: which are sound, which array dtype holds them, and whether an array lies inside.

The table of what is a space is that of `cccad_core.spaces`; a test holds the two against each other.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cccad_data.errors import DataError, SourceError, UnfitValueError
from cccad_data.plain import Array, DType, Fields, Table

Space = Fields

_FIELDS = {
    "discrete": {"n"},
    "multi-discrete": {"sizes"},
    "box": {"shape", "low", "high"},
    "dict": {"parts"},
    "tuple": {"parts"},
}
_ENDS = {"low": -math.inf, "high": math.inf}
"The ends of a box, and what stands for None: JSON has no infinity."
DEEPEST = 16
"How often parts may lie within parts."


def leaves(space: Space) -> list[tuple[str, Space]]:
    """Return the leaves of *space* with their paths, in the order of a row: parts of a dict in that of their names.

    A space without parts is its own leaf, at the path ''.
    """
    if "parts" not in space:
        return [("", space)]
    below = [(name, *leaf) for name, part in _parts(space) for leaf in leaves(part)]
    return [(f"{name}/{path}".rstrip("/"), leaf) for name, path, leaf in below]


def _parts(space: Space) -> list[tuple[str, Space]]:
    parts = space["parts"]
    if isinstance(parts, Mapping):
        return sorted(parts.items())
    return [(str(index), part) for index, part in enumerate(parts)]


def is_discrete(space: Space) -> bool:
    """Say whether every number of a row is one of some choices."""
    return all(leaf["kind"] != "box" for _, leaf in leaves(space))


def sizes(space: Space) -> tuple[int, ...]:
    """Return the number of values of each feature of a *space* whose leaves are all discrete or multi-discrete.

    Raises SourceError for any other.
    """
    if not is_discrete(space):
        raise SourceError(f"a space of kind {space['kind']!r} has no sizes; discrete or multi-discrete is needed")
    return tuple(size for _, leaf in leaves(space) for size in _sizes(leaf))


def _sizes(leaf: Space) -> tuple[int, ...]:
    return tuple(int(size) for size in (leaf["sizes"] if "sizes" in leaf else [leaf["n"]]))


def num_features(space: Space) -> int:
    """Return how many numbers one element of *space* has."""
    return sum(math.prod(leaf["shape"]) if "shape" in leaf else len(_sizes(leaf)) for _, leaf in leaves(space))


def is_bytes(space: Space) -> bool:
    """Say whether a row is an image, with nothing beside it but other images and at most 256 choices."""
    boxes = [leaf for _, leaf in leaves(space) if leaf["kind"] == "box"]
    choices = (size for _, leaf in leaves(space) if leaf["kind"] != "box" for size in _sizes(leaf))
    return bool(boxes) and all(box.get("dtype") == "uint8" for box in boxes) and max(choices, default=0) <= 256


def dtype(space: Space) -> DType:
    """Return the dtype of a row: the smallest unsigned integer, or float32 where a box is not of bytes."""
    if is_discrete(space):
        return np.dtype(np.min_scalar_type(max(sizes(space)) - 1))
    return np.dtype(np.uint8 if is_bytes(space) else np.float32)


def bounds(space: Space) -> NDArray[np.float64]:
    """Return the least and the greatest value of every feature of a *space*, `2 o`.

    Those of boxes are rounded outward to what float32 has, as their elements are kept in float32.
    """
    return np.concatenate([_bounds(leaf) for _, leaf in leaves(space)], axis=1)


def _bounds(leaf: Space) -> NDArray[np.float64]:
    if leaf["kind"] != "box":
        high = np.asarray(_sizes(leaf), np.float64) - 1.0
        return np.stack([np.zeros_like(high), high])
    return np.stack([outward(_ends(leaf, name), unbounded) for name, unbounded in _ENDS.items()])


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
    low, high = bounds(space)
    if is_discrete(space) and rows.dtype.kind in "iu":  # compared as they are: float64 does not hold all of int64
        low, high = low.astype(np.int64), high.astype(np.int64)
    inside = (rows >= low) & (rows <= high)
    if rows.dtype.kind == "f":
        inside &= ~whole(space) | (rows == np.floor(rows))
    return np.asarray(~inside.all(axis=1))


def whole(space: Space) -> NDArray[np.bool_]:
    """Say which features are whole numbers, `o`: choices, and bytes of images."""
    is_whole = [(leaf["kind"] != "box" or leaf.get("dtype") == "uint8") for _, leaf in leaves(space)]
    return np.repeat(is_whole, [num_features(leaf) for _, leaf in leaves(space)])


def uniform_actions(space: Space, uniform: Array) -> Array:
    """Return uniformly random actions made of *uniform* numbers in [0, 1), in their shape; of several, `... a`.

    Raises SourceError when a box has no finite bounds.
    """
    if is_discrete(space):
        counts = np.asarray(sizes(space))
        return np.asarray(np.minimum(uniform * counts, counts - 1), np.int64)
    low, high = bounds(space)
    if not np.isfinite([low, high]).all():
        raise SourceError("uniform actions need a box with finite bounds")
    drawn, is_whole = low + uniform * (high - low), whole(space)
    if is_whole.any():
        drawn = np.where(is_whole, np.minimum(low + np.floor(uniform * (high - low + 1)), high), drawn)
    return np.asarray(drawn, dtype(space))


def action_shape(space: Space) -> tuple[int, ...]:
    """Return the shape of one action: that of a box, the number of a row's features, or nothing for one choice."""
    if space["kind"] == "box":
        return tuple(space["shape"])
    return () if space["kind"] == "discrete" else (num_features(space),)


def as_rows(space: Space, values: Any) -> Array:
    """Return *values*, batched leaves in mappings and tuples, as rows `b o`; an array stays one.

    Parts that are no part of *space* are left out. Raises UnfitValueError where a part is missing.
    """
    if not isinstance(values, Mapping | tuple | list) or "parts" not in space:
        array = np.array(values)
        return array.reshape(len(array), -1) if array.ndim > 2 else array
    return np.concatenate([_rows_of_part(values, path, leaf) for path, leaf in leaves(space)], axis=1)


def _rows_of_part(values: Any, path: str, leaf: Space) -> Array:
    try:
        for name in path.split("/"):
            values = values[name] if isinstance(values, Mapping) else values[int(name)]
        array = np.asarray(values)
        return array.reshape(len(array), num_features(leaf))
    except (LookupError, ValueError, TypeError) as error:
        raise UnfitValueError(f"there is no part {path!r} of the space {dict(leaf)!r:.80}: {error}") from None


def as_parts(space: Space, rows: Array) -> Any:
    """Return *rows*, `b a`, as an environment takes elements of *space*: batched leaves in mappings and tuples."""
    if "parts" not in space:
        return rows.reshape(len(rows), *action_shape(space)).astype(_acted_dtype(space), copy=False)
    parts = _parts(space)
    stops = np.cumsum([num_features(part) for _, part in parts])
    own = [as_parts(part, cut) for (_, part), cut in zip(parts, np.split(rows, stops[:-1], axis=1), strict=True)]
    return {name: each for (name, _), each in zip(parts, own, strict=True)} if space["kind"] == "dict" else tuple(own)


def handed(space: Space, rows: Array) -> Any:
    """Return *rows* of actions as an environment takes them: as they are, unless *space* has parts."""
    return as_parts(space, rows) if "parts" in space else rows


def _acted_dtype(leaf: Space) -> DType:
    return np.dtype(np.int64) if leaf["kind"] != "box" else dtype(leaf)


def random_actions(space: Space, num_rows: int, seed: int) -> Callable[[], Any]:
    """Return a function that draws uniformly random actions of *num_rows* rows at every call, in the space's shape."""
    stream = np.random.default_rng(seed)
    shape = (num_rows, *action_shape(space))

    def draw() -> Any:
        rows = uniform_actions(space, stream.random((num_rows, num_features(space)))).reshape(shape)
        return handed(space, rows)

    return draw


def check(space: Any, where: str, depth: int = DEEPEST) -> None:
    """Raise DataError, which begins with *where*, unless *space* is a sound plain dictionary."""
    kind = space.get("kind") if isinstance(space, Mapping) else None
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise DataError(f"{where}: a space has a 'kind', which is one of {', '.join(_FIELDS)}: {space!r:.80}")
    if set(space) - ({"dtype"} if kind == "box" else set()) != {"kind", *fields}:
        raise DataError(f"{where}: a {kind} space has the fields {', '.join(sorted(fields))}: {space!r:.80}")
    if kind in ("dict", "tuple"):
        _check_parts(space, where, depth)
        return
    counts = [space["n"]] if kind == "discrete" else space["sizes" if kind == "multi-discrete" else "shape"]
    if not isinstance(counts, list | tuple) or not all(type(count) is int and count >= 1 for count in counts):
        raise DataError(f"{where}: the sizes and the shape of a space are whole numbers of at least 1: {space!r:.80}")
    if kind == "multi-discrete" and not counts:
        raise DataError(f"{where}: a multi-discrete space has one size at least")
    if kind == "box":
        _check_box(space, where)


def _check_box(space: Space, where: str) -> None:
    for name in _ENDS:
        numbers = [*_flat(space[name])]
        if not all(number is None or _is_real(number) for number in numbers):
            raise DataError(f"{where}: {name!r} of a box is a number or a list of them: {space[name]!r:.80}")
        if isinstance(space[name], list | tuple) and len(numbers) != num_features(space):
            raise DataError(f"{where}: {name!r} of a box has {len(numbers)} numbers for {num_features(space)} features")
    low, high = (_ends(space, name) for name in _ENDS)
    if not ((low <= high) & (low < math.inf) & (high > -math.inf)).all():
        raise DataError(f"{where}: 'low' of a box is not above 'high' anywhere: {space!r:.120}")
    if space.get("dtype", "float32") not in ("float32", "uint8"):
        raise DataError(f"{where}: 'dtype' of a box is float32 or uint8: {space['dtype']!r:.80}")
    ends = np.stack([low, high])
    if space.get("dtype") == "uint8" and not ((ends >= 0) & (ends <= 255) & (ends == np.floor(ends))).all():
        raise DataError(f"{where}: the bounds of a box of uint8 are whole numbers from 0 to 255: {space!r:.120}")


def _check_parts(space: Space, where: str, depth: int) -> None:
    parts = space["parts"]
    if not depth:
        raise DataError(f"{where}: parts of a space lie within one another {DEEPEST} times at most")
    if not isinstance(parts, Mapping if space["kind"] == "dict" else list | tuple) or not parts:
        raise DataError(f"{where}: the parts of a {space['kind']} space are a table or a list: {parts!r:.80}")
    for name in parts if isinstance(parts, Mapping) else ():
        if not isinstance(name, str) or not name or "/" in name:
            raise DataError(f"{where}: a part of a dict space needs a name, without '/': {name!r:.80}")
    for name, part in _parts(space):
        check(part, f"{where}, part {name!r}", depth - 1)
    if depth == DEEPEST and not is_discrete(space) and not is_bytes(space):
        most = max((size for _, leaf in leaves(space) if leaf["kind"] != "box" for size in _sizes(leaf)), default=0)
        if most > 2**24:
            raise DataError(f"{where}: beside real numbers a discrete part may have 2**24 choices, not {most:,}")


def _is_real(number: object) -> bool:
    return not isinstance(number, bool) and isinstance(number, Real) and not math.isnan(number)


def plain(space: Space) -> Table:
    """Return *space* as JSON has it, with None for a bound that is infinite."""

    def finite(bound: object) -> object:
        if isinstance(bound, list | tuple):
            return [finite(part) for part in bound]
        return None if isinstance(bound, float) and math.isinf(bound) else bound

    if "parts" in space:
        parts = {name: plain(part) for name, part in _parts(space)}
        return {"kind": space["kind"], "parts": parts if space["kind"] == "dict" else [*parts.values()]}
    fields = {name: value for name, value in space.items() if (name, value) != ("dtype", "float32")}
    return {name: finite(value) for name, value in fields.items()}


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
    if "parts" in one:
        pairs = [*zip(_parts(one), _parts(other), strict=False)]
        is_as_long = len(one["parts"]) == len(other["parts"])
        return is_as_long and all(mine[0] == theirs[0] and alike(mine[1], theirs[1]) for mine, theirs in pairs)
    if one["kind"] != "box":
        return sizes(one) == sizes(other)
    if tuple(one["shape"]) != tuple(other["shape"]) or dtype(one) != dtype(other):
        return False
    return bool((bounds(one) == bounds(other)).all())
