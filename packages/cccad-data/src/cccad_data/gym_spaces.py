"""Gymnasium's spaces and ours, both ways: what ours do not say (start, dtype, shape) is kept, to rebuild the original.

Discrete, MultiDiscrete, MultiBinary and Box have a counterpart, others are refused. Values are shifted by the start.
Gymnasium is imported only where its spaces come from elsewhere anyway: Minari, Stable-Baselines3.
"""

import math
from typing import Any, TypeAlias

import numpy as np
from attrs import frozen

from cccad_data import spaces
from cccad_data.errors import DataError
from cccad_data.plain import Array, DType, Fields, Table

GymSpace: TypeAlias = Any
"A space of Gymnasium's, whose classes are not imported for their names alone."
Origin = Fields
"What `Adapted.origin` returns: a dictionary for JSON."


@frozen(kw_only=True, eq=False)
class Adapted:
    """A space of Gymnasium's, *theirs*, and its counterpart *ours*; *start* is the least value of each feature."""

    ours: Table
    theirs: GymSpace
    start: Array  # o: 0 for a box

    @property
    def is_shifted(self) -> bool:
        """Whether values are other numbers with us."""
        return bool(self.start.any())

    @property
    def origin(self) -> Table:
        """What *ours* does not say of *theirs*, for JSON; `restore` takes it."""
        theirs, kind = self.theirs, _class_of(self.theirs)
        attributes: Table = {"class": kind, "shape": list(theirs.shape), "dtype": str(theirs.dtype)}
        if kind == "Box":
            return attributes | {"low": _listed(theirs.low), "high": _listed(theirs.high)}
        return attributes | ({"start": self.start.tolist()} if self.is_shifted else {})

    def read(self, values: Array, where: str) -> Array:
        """Return values of *theirs*, `t ...`, as rows `t o` that count from 0, in a dtype of their own.

        Raises DataError, which begins with *where*, when their shape is not that of the space.
        """
        values = np.asarray(values)
        wanted = tuple(self.theirs.shape)
        if values.dtype.kind not in "biuf" or values.shape[1:] not in {wanted, wanted or (1,)}:
            has = f"values of dtype {values.dtype} and shape {list(values.shape[1:])}"
            raise DataError(f"{where}: {has} are none of the space {self.theirs!s:.120}")
        rows = values.reshape(len(values), len(self.start))
        return rows - self.start if self.is_shifted else rows

    def write(self, values: Array) -> Array:
        """Return our values, `t o` or `t`, as *theirs*, `t ...`, in its dtype."""
        rows = np.asarray(values).reshape(len(values), *self.theirs.shape)
        if self.ours["kind"] == "box":  # our bounds are rounded outward: what lies beyond theirs is theirs
            low, high = self.theirs.low, self.theirs.high
            with np.errstate(invalid="ignore", over="ignore"):
                near, wide = rows.astype(self.theirs.dtype), rows.astype(np.float64)
            return np.where(wide >= high.astype(np.float64), high, np.where(wide <= low.astype(np.float64), low, near))
        start = self.start.reshape(self.theirs.shape)
        return np.asarray(rows.astype(np.int64) + start).astype(self.theirs.dtype)


def adapt(space: GymSpace, where: str) -> Adapted:
    """Return the counterpart of a space of Gymnasium's.

    Raises DataError, which begins with *where*, for a space that ours cannot stand for, and says why.
    """
    kind = _class_of(space)
    if kind == "Discrete":
        start = np.array([int(space.start)])
        adapted = Adapted(ours={"kind": "discrete", "n": int(space.n)}, theirs=space, start=start)
    elif kind == "MultiDiscrete":
        sizes = [int(size) for size in np.ravel(space.nvec)]
        start = np.array([int(first) for first in np.ravel(space.start)], np.int64)
        adapted = Adapted(ours={"kind": "multi-discrete", "sizes": sizes}, theirs=space, start=start)
    elif kind == "MultiBinary":
        count = math.prod(space.shape)
        adapted = Adapted(
            ours={"kind": "multi-discrete", "sizes": [2] * count}, theirs=space, start=np.zeros(count, np.int64)
        )
    elif kind == "Box":
        ends = {"low": (space.low, -math.inf), "high": (space.high, math.inf)}
        rounded = {name: _listed(spaces.outward(np.asarray(end, np.float64), to)) for name, (end, to) in ends.items()}
        box = {"kind": "box", "shape": list(space.shape), **rounded}
        box |= {"dtype": "uint8"} if space.dtype == np.uint8 else {}
        adapted = Adapted(ours=box, theirs=space, start=np.zeros(math.prod(space.shape), np.int64))
    else:
        raise DataError(
            f"{where}: a space of class {type(space).__name__} has no counterpart here ({space!s:.80}); only "
            "Discrete, MultiDiscrete, MultiBinary and Box have, so flatten it first"
        )
    spaces.check(adapted.ours, where)
    if restore(adapted.ours, adapted.origin).theirs != space:
        raise DataError(f"{where}: the space {space!s:.80} has attributes that are not known here")
    return adapted


def restore(ours: Fields, origin: Origin | None = None) -> Adapted:
    """Return the space of Gymnasium's that *ours* came from, or without *origin* the one that is nearest to it."""
    from gymnasium import spaces as gym

    kind = ours["kind"]
    origin = origin or {"class": {"discrete": "Discrete", "multi-discrete": "MultiDiscrete", "box": "Box"}[kind]}
    count = spaces.num_features(ours)
    start = np.array(origin.get("start", [0] * count), np.int64)
    theirs: GymSpace
    if origin["class"] == "Discrete":
        theirs = gym.Discrete(int(ours["n"]), start=int(start[0]), dtype=np.dtype(origin.get("dtype", "int64")).type)
    elif origin["class"] == "MultiBinary":
        shape = origin["shape"]
        theirs = gym.MultiBinary(shape[0] if len(shape) == 1 else shape)
    elif origin["class"] == "MultiDiscrete":
        shape = origin.get("shape", [count])
        dtype: DType = np.dtype(origin.get("dtype", spaces.dtype(ours)))
        most = np.iinfo(dtype).max
        dtype = np.dtype(np.int64) if max(spaces.sizes(ours)) > most else dtype  # of 256 values none is 256
        theirs = gym.MultiDiscrete(np.reshape(ours["sizes"], shape), dtype=dtype.type, start=start.reshape(shape))
    else:
        dtype, shape = np.dtype(origin.get("dtype", ours.get("dtype", "float32"))), tuple(ours["shape"])
        ends: Any = spaces.bounds(ours)
        if "low" in origin:
            ends = (_unlisted(origin[name], name, dtype, count) for name in ("low", "high"))
        low, high = (np.asarray(end).astype(dtype).reshape(shape) for end in ends)
        theirs = gym.Box(low, high, shape=shape, dtype=dtype.type)
    return Adapted(ours=dict(ours), theirs=theirs, start=start)


def restored(header: Fields) -> dict[str, Adapted]:
    """Return the spaces of Gymnasium's that histories came from, as far as all of their sources agree."""
    source = header["source"]
    origins = [part["source"].get("origin", {}) for part in source.get("parts", [])] or [source.get("origin", {})]
    origin = origins[0] if all(other == origins[0] for other in origins) else {}
    return {side: restore(header["spaces"][side], origin.get(side)) for side in ("observation", "action")}


def _class_of(space: object) -> str:
    names = (cls.__name__ for cls in type(space).__mro__ if cls.__module__.startswith("gymnasium.spaces"))
    return next(names, type(space).__name__)


def _listed(bound: Array) -> object:
    flat = np.ravel(bound).astype(np.float64) if bound.dtype.kind == "f" else np.ravel(bound)
    listed = [None if isinstance(end, float) and math.isinf(end) else end for end in flat.tolist()]
    return listed[0] if listed.count(listed[0]) == len(listed) else listed


def _unlisted(bound: object, name: str, dtype: DType, count: int) -> Array:
    unbounded = -math.inf if name == "low" else math.inf
    listed = bound if isinstance(bound, list) else [bound] * count
    return np.array([unbounded if end is None else end for end in listed], np.float64 if dtype.kind == "f" else dtype)
