"""Gymnasium's spaces as plain dictionaries, and values of theirs as ours: rows of features, counted from 0.

A row of a Dict or a Tuple is its leaves, one behind the other, parts of a Dict in the order of their names. Text is
left out of observations.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen
from gymnasium import spaces as gym
from numpy.typing import NDArray

from cccad_envs.errors import ActionError, PlayError, SettingError
from cccad_envs.plain import Array, Table
from cccad_envs.spaces import feature_type

_DEEPEST = 16  # parts within parts
_MOST_BYTE_CHOICES = 256


@frozen(kw_only=True, eq=False)
class Leaf:
    """One leaf of a space: where it stands in *theirs*, and what it is here."""

    path: tuple[str | int, ...]  # names and indices
    ours: Table
    theirs: Any  # of Gymnasium
    start: NDArray[np.int64]  # of each feature, 0 for those of a box
    batched: gym.Space[object]

    @property
    def width(self) -> int:
        """How many numbers one value is."""
        return len(self.start)

    @property
    def sizes(self) -> list[int]:
        """The number of choices of each feature; none for a box."""
        return [] if self.is_box else list(self.ours.get("sizes", [self.ours.get("n")]))

    @property
    def is_box(self) -> bool:
        """Whether its values are numbers and no choices."""
        return bool(self.ours["kind"] == "box")

    def of(self, value: Any) -> object:
        """Return its part of a value of the whole space."""
        for step in self.path:
            value = value[step]
        return value


@frozen(kw_only=True, eq=False)
class Side:
    """The observations or the actions of an environment: *theirs*, and *ours* as a plain dictionary."""

    ours: Table
    theirs: gym.Space[object]
    leaves: tuple[Leaf, ...]
    batched: gym.Space[object]  # of one row, as the vector environment offers it

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """The type in which rows are handed out."""
        if len(self.leaves) == 1:
            (leaf,) = self.leaves
            return leaf.theirs.dtype if leaf.is_box else self.batched.dtype
        is_wide = any(leaf.is_box and leaf.theirs.dtype.itemsize > 4 for leaf in self.leaves)
        return np.dtype(np.float64) if is_wide and self.batched.dtype == np.float32 else self.batched.dtype


def observation_side(space: gym.Space[object], name: str) -> Side:
    """Return the observations of the environment *name*.

    Raises:
        SettingError: the space is one that cannot be carried; the message names it.
    """
    where = f"the observations of {name}"
    ours, leaves, _ = _carried(space, where, may_drop=True)
    if isinstance(space, gym.Discrete):
        ours = {"kind": "multi-discrete", "sizes": [ours["n"]]}
        leaves = [Leaf(path=(), ours=ours, theirs=space, start=leaves[0].start, batched=leaves[0].batched)]
    return Side(ours=ours, theirs=space, leaves=tuple(leaves), batched=_row_space(leaves))


def action_side(space: gym.Space[object], name: str) -> Side:
    """Return the actions of the environment *name*.

    Raises:
        SettingError: the space is one that cannot be carried; the message names it.
    """
    ours, leaves, batched = _carried(space, f"the actions of {name}", may_drop=False)
    return Side(ours=ours, theirs=space, leaves=tuple(leaves), batched=batched)


def _carried(
    space: gym.Space[object], where: str, path: tuple[str | int, ...] = (), *, may_drop: bool
) -> tuple[Table, list[Leaf], gym.Space[object]]:
    """Return *space* as a plain dictionary, its leaves, and the space of Gymnasium's that counts from 0."""
    if len(path) > _DEEPEST:
        raise SettingError(f"{where} have parts within parts, more than {_DEEPEST} deep; flatten them with a wrapper")
    if isinstance(space, gym.Box | gym.Discrete | gym.MultiDiscrete | gym.MultiBinary):
        leaf = _leaf(space, path)
        return leaf.ours, [leaf], leaf.batched
    if not isinstance(space, gym.Dict | gym.Tuple):
        kind = type(space).__name__
        raise SettingError(f"{where} are a {kind} ({str(space)[:80]}), which is not carried; drop it with a wrapper")
    is_dict = isinstance(space, gym.Dict)
    inside: Any = space.spaces
    pairs: list[tuple[Any, gym.Space[object]]] = sorted(inside.items()) if is_dict else [*enumerate(inside)]
    if strange := next((key for key, _ in pairs if is_dict and (not isinstance(key, str) or not key or "/" in key)), 0):
        raise SettingError(f"{where} have a part named {strange!r}; a name is text without '/'")
    parts = {
        key: _carried(part, where, (*path, key), may_drop=may_drop)
        for key, part in pairs
        if not (may_drop and _is_text(part))
    }
    if not parts:
        raise SettingError(f"{where} have no part that is numbers: {str(space)[:80]}")
    leaves = [leaf for _, inner, _ in parts.values() for leaf in inner]
    plain = {key: ours for key, (ours, _, _) in parts.items()}
    batched = {key: each for key, (_, _, each) in parts.items()}
    if is_dict:
        return {"kind": "dict", "parts": plain}, leaves, gym.Dict(batched)
    return {"kind": "tuple", "parts": [*plain.values()]}, leaves, gym.Tuple([*batched.values()])


def _is_text(space: object) -> bool:
    return isinstance(space, gym.Text) or getattr(space, "dtype", None) is str


def _leaf(space: gym.Space[object], path: tuple[str | int, ...]) -> Leaf:
    if isinstance(space, gym.Box):
        return _box(space, path)
    sizes, start = _sizes(space)
    if isinstance(space, gym.Discrete):
        ours: Table = {"kind": "discrete", "n": sizes[0]}
        return Leaf(path=path, ours=ours, theirs=space, start=start, batched=gym.Discrete(sizes[0]))
    ours = {"kind": "multi-discrete", "sizes": sizes}
    return Leaf(path=path, ours=ours, theirs=space, start=start, batched=gym.MultiDiscrete(sizes))


def _sizes(space: gym.Space[object]) -> tuple[list[int], NDArray[np.int64]]:
    if isinstance(space, gym.Discrete):
        return [int(space.n)], np.array([int(space.start)])
    if isinstance(space, gym.MultiDiscrete):
        return [int(size) for size in np.ravel(space.nvec)], np.ravel(space.start).astype(np.int64)
    count = math.prod(space.shape or (1,))
    return [2] * count, np.zeros(count, np.int64)


def _box(space: gym.Box, path: tuple[str | int, ...]) -> Leaf:
    shape, is_bytes = space.shape or (1,), space.dtype == np.uint8
    dtype: type[np.uint8 | np.float32] = np.uint8 if is_bytes else np.float32
    low, high = (_listed(end) for end in (space.low, space.high))
    with np.errstate(over="ignore"):
        ends: list[Array] = [np.asarray(end, dtype).reshape(shape) for end in (space.low, space.high)]
    batched = gym.Box(ends[0], ends[1], shape=shape, dtype=dtype)
    ours: Table = {"kind": "box", "shape": list(shape), "low": low, "high": high}
    ours |= {"dtype": "uint8"} if is_bytes else {}
    return Leaf(path=path, ours=ours, theirs=space, start=np.zeros(math.prod(shape), np.int64), batched=batched)


def _row_space(leaves: list[Leaf]) -> gym.Space[object]:
    """Return the space of one row of these leaves."""
    boxes = [leaf for leaf in leaves if leaf.is_box]
    sizes = [size for leaf in leaves if not leaf.is_box for size in leaf.sizes]
    if not boxes:
        return gym.MultiDiscrete(sizes, dtype=feature_type(sizes))
    is_bytes = all("dtype" in box.ours for box in boxes) and max(sizes, default=0) <= _MOST_BYTE_CHOICES
    dtype: type[np.uint8 | np.float32] = np.uint8 if is_bytes else np.float32
    ends: list[Array] = [np.concatenate([_ends_of(leaf)[side] for leaf in leaves]).astype(dtype) for side in (0, 1)]
    return gym.Box(ends[0], ends[1], dtype=dtype)


def _ends_of(leaf: Leaf) -> tuple[Array, Array]:
    if isinstance(leaf.batched, gym.Box):
        return np.ravel(leaf.batched.low), np.ravel(leaf.batched.high)
    return np.zeros(leaf.width, np.int64), np.asarray(leaf.sizes) - 1


def _listed(bound: Array) -> float | list[float | None] | None:
    """Return a bound as JSON has it: one number where all are equal, and None for an infinite one."""
    numbers = [None if math.isinf(end) else end for end in np.ravel(bound).astype(np.float64).tolist()]
    return numbers[0] if numbers.count(numbers[0]) == len(numbers) else numbers


def observed(side: Side, values: Sequence[object], name: str) -> Array:
    """Return what all rows of the environment *name* observe, `e o`, of one value of theirs per row.

    Raises:
        PlayError: a value is not of their space.
    """
    columns = [_observed_leaf(leaf, values, name) for leaf in side.leaves]
    if len(columns) == 1:
        return columns[0].astype(side.dtype, copy=False)
    return np.concatenate([column.astype(side.dtype) for column in columns], axis=1)


def _observed_leaf(leaf: Leaf, values: Sequence[object], name: str) -> Array:
    part = f"part {'/'.join(map(str, leaf.path))!r} of " if leaf.path else ""
    try:
        stacked = np.array([leaf.of(value) for value in values]).reshape(len(values), leaf.width)
    except (ValueError, LookupError, TypeError) as error:
        what = f"{part}an observation of {name}"
        raise PlayError(f"{what} has not the shape of its space {str(leaf.theirs)[:80]}") from error
    if leaf.is_box:
        if not np.isfinite(stacked).all():
            wrong = stacked[~np.isfinite(stacked).all(axis=1)][0]
            raise PlayError(f"{part}an observation of {name} is not finite: {wrong}")
        if "dtype" in leaf.ours and stacked.dtype != np.uint8 and (stacked.astype(np.uint8) != stacked).any():
            raise PlayError(f"{part}an observation of {name} is {stacked.dtype}, not the bytes of its space")
        return stacked
    whole = stacked.astype(np.int64) - leaf.start
    sizes = np.asarray(leaf.sizes)
    outside = (whole < 0) | (whole >= sizes) | (whole + leaf.start != stacked)
    if outside.any():
        what = f"{part}an observation of {name} is {stacked[outside][0]}"
        raise PlayError(f"{what}, which is not in the space {str(leaf.theirs)[:80]}")
    return whole


def acted(side: Side, actions: Any, num_rows: int) -> list[object]:
    """Return one action of theirs for each of *num_rows*, of rows `e a`, or of batched leaves in mappings and tuples.

    What rounding left beyond the bounds of a box is at the bound.

    Raises:
        ActionError: *actions* are not one action per row.
    """
    columns = [_checked(leaf, part, num_rows) for leaf, part in zip(side.leaves, _cut(side, actions), strict=True)]
    by_leaf = [_acted_leaf(leaf, column) for leaf, column in zip(side.leaves, columns, strict=True)]
    return [_gathered(side.theirs, (part[row] for part in by_leaf)) for row in range(num_rows)]


def _cut(side: Side, actions: Any) -> list[Array]:
    """Return the part of *actions* that belongs to each leaf."""
    if "parts" not in side.ours:
        return [np.asarray(actions)]
    if isinstance(actions, Mapping | tuple | list):
        return [_part_of(actions, leaf) for leaf in side.leaves]
    rows, stops = np.asarray(actions), np.cumsum([leaf.width for leaf in side.leaves])
    if rows.ndim != 2 or rows.shape[1] != stops[-1]:
        raise ActionError(f"actions must have {stops[-1]} numbers for each row, got shape {rows.shape}")
    return np.split(rows, stops[:-1], axis=1)


def _part_of(actions: Any, leaf: Leaf) -> Array:
    try:
        return np.asarray(leaf.of(actions))
    except (LookupError, TypeError) as error:
        raise ActionError(f"actions have no part {'/'.join(map(str, leaf.path))!r}") from error


def _gathered(space: Any, parts: Iterator[Any]) -> Any:
    """Return one action of *space*, taking its leaves from *parts*."""
    if isinstance(space, gym.Dict):
        return {key: _gathered(part, parts) for key, part in sorted(space.spaces.items())}
    if isinstance(space, gym.Tuple):
        return tuple(_gathered(part, parts) for part in space.spaces)
    return next(parts)


def _checked(leaf: Leaf, actions: Array, num_rows: int) -> Array:
    """Return the actions of a leaf, one for each row, if they are its own."""
    shape = (num_rows, *(leaf.batched.shape or ()))
    is_cut = leaf.path and actions.shape == (num_rows, leaf.width)
    if actions.shape != shape and not is_cut:
        raise ActionError(f"actions must have shape {shape}, one for each row, got {actions.shape}")
    if actions.dtype.kind not in ("fiu" if leaf.is_box or leaf.path else "iu"):
        raise ActionError(f"actions must be {'' if leaf.is_box else 'whole '}numbers, got {actions.dtype}")
    rows, most = actions.reshape(num_rows, leaf.width), np.asarray(leaf.sizes) - 1
    if not leaf.is_box and ((rows < 0) | (rows > most) | (rows != np.floor(rows))).any():
        ends = most.tolist()[0] if len(set(most.tolist())) == 1 else f"at most {most.tolist()!r:.40}"
        raise ActionError(f"actions must be 0 to {ends}, got {actions.tolist()!r:.80}")
    return actions


def _acted_leaf(leaf: Leaf, actions: Array) -> list[object]:
    space = leaf.theirs
    if isinstance(space, gym.Box):
        kept = actions.reshape(len(actions), *space.shape).astype(space.dtype)
        return list(np.clip(kept, space.low, space.high))
    if isinstance(space, gym.Discrete):
        whole: list[object] = (actions.reshape(-1).astype(np.int64) + leaf.start[0]).tolist()
        return whole
    rows = actions.reshape(len(actions), leaf.width).astype(np.int64) + leaf.start
    return list(rows.reshape(len(actions), *space.shape).astype(space.dtype))
