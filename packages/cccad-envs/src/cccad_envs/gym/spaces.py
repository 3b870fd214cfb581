"""Gymnasium's spaces as plain dictionaries, and values of theirs as ours: rows of features, counted from 0."""

import math
from typing import Any

import numpy as np
from attrs import frozen
from gymnasium import spaces as gym
from numpy.typing import NDArray

from cccad_envs.errors import PlayError, SettingError
from cccad_envs.plain import Array, Table
from cccad_envs.spaces import feature_type

_IMAGE_SIDE = 7  # a box of bytes whose sides are shorter is not called an image
_FLATTEN = "until they are carried as they are, flatten them with a wrapper"


@frozen(kw_only=True, eq=False)
class Side:
    """The observations or the actions of an environment: *theirs*, and *ours* as a plain dictionary."""

    ours: Table
    theirs: gym.Space[Any]
    start: NDArray[np.int64]  # of each discrete feature
    batched: gym.Space[Any]  # of one row, as the vector environment offers it

    @property
    def dtype(self) -> Any:
        """The type in which rows are handed out."""
        return self.theirs.dtype if self.ours["kind"] == "box" else self.batched.dtype


def observation_side(space: gym.Space[Any], name: str) -> Side:
    """Return the observations of the environment *name*.

    Raises:
        SettingError: the space is one that cannot be carried; the message names it.
    """
    where = f"the observations of {name}"
    if isinstance(space, gym.Box):
        if len(space.shape) > 1:
            what = "images" if min(space.shape[:2]) >= _IMAGE_SIDE and space.dtype == np.uint8 else "arrays"
            raise SettingError(
                f"{where} are {what} of shape {space.shape}, which are not carried yet; take features of them, or "
                "flatten them with wrappers = ['gymnasium.wrappers:FlattenObservation']"
            )
        return _box(space)
    if isinstance(space, gym.Discrete | gym.MultiDiscrete | gym.MultiBinary):
        sizes, start = _sizes(space)
        batched = gym.MultiDiscrete(sizes, dtype=feature_type(sizes))
        return Side(ours={"kind": "multi-discrete", "sizes": sizes}, theirs=space, start=start, batched=batched)
    raise _refused(where, space)


def action_side(space: gym.Space[Any], name: str) -> Side:
    """Return the actions of the environment *name*.

    Raises:
        SettingError: the space is one that cannot be carried; the message names it.
    """
    where = f"the actions of {name}"
    if isinstance(space, gym.Box):
        return _box(space)
    if isinstance(space, gym.Discrete):
        (n,), start = _sizes(space)
        return Side(ours={"kind": "discrete", "n": n}, theirs=space, start=start, batched=gym.Discrete(n))
    raise _refused(where, space)


def _refused(where: str, space: gym.Space[Any]) -> SettingError:
    kind = type(space).__name__
    return SettingError(f"{where} are a {kind} ({str(space)[:80]}), which is not carried yet; {_FLATTEN}")


def _sizes(space: gym.Space[Any]) -> tuple[list[int], NDArray[np.int64]]:
    if isinstance(space, gym.Discrete):
        return [int(space.n)], np.array([int(space.start)])
    if isinstance(space, gym.MultiDiscrete):
        return [int(size) for size in np.ravel(space.nvec)], np.ravel(space.start).astype(np.int64)
    count = math.prod(space.shape or (1,))
    return [2] * count, np.zeros(count, np.int64)


def _box(space: gym.Box) -> Side:
    shape = space.shape or (1,)
    low, high = (_listed(end) for end in (space.low, space.high))
    with np.errstate(over="ignore"):
        ends = [np.asarray(end, np.float32).reshape(shape) for end in (space.low, space.high)]
    batched = gym.Box(ends[0], ends[1], shape=shape, dtype=np.float32)
    ours = {"kind": "box", "shape": list(shape), "low": low, "high": high}
    return Side(ours=ours, theirs=space, start=np.zeros(math.prod(shape), np.int64), batched=batched)


def _listed(bound: Array) -> Any:
    """Return a bound as JSON has it: one number where all are equal, and None for an infinite one."""
    numbers = [None if math.isinf(end) else end for end in np.ravel(bound).astype(np.float64).tolist()]
    return numbers[0] if numbers.count(numbers[0]) == len(numbers) else numbers


def observed(side: Side, values: list[Any], name: str) -> Array:
    """Return what all rows of the environment *name* observe, `e o`, of one value of theirs per row.

    Raises:
        PlayError: a value is not of their space.
    """
    try:
        stacked = np.array(values).reshape(len(values), len(side.start))
    except ValueError as error:
        raise PlayError(f"an observation of {name} has not the shape of its space {str(side.theirs)[:80]}") from error
    if side.ours["kind"] == "box":
        if not np.isfinite(stacked).all():
            raise PlayError(f"an observation of {name} is not finite: {stacked[~np.isfinite(stacked).all(axis=1)][0]}")
        return stacked.astype(side.dtype, copy=False)
    whole = stacked.astype(np.int64) - side.start
    outside = (whole < 0) | (whole >= np.asarray(side.ours["sizes"])) | (whole + side.start != stacked)
    if outside.any():
        raise PlayError(
            f"an observation of {name} is {stacked[outside][0]}, which is not in the space {str(side.theirs)[:80]}"
        )
    return whole.astype(side.dtype)


def acted(side: Side, actions: Array) -> list[Any]:
    """Return one action of theirs per row; what rounding left beyond the bounds of a box is at the bound."""
    if isinstance(side.theirs, gym.Box):
        box = side.theirs
        kept = actions.reshape(len(actions), *box.shape).astype(box.dtype)
        return list(np.clip(kept, box.low, box.high))
    whole: list[Any] = (actions.astype(np.int64) + side.start[0]).tolist()
    return whole
