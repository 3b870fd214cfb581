"""The one border between what is measured and what is stored: nothing wraps, is cut, or loses precision in silence.

`narrow` converts to a dtype, a `Border` to the dtype of a space and checks that values lie inside it, and `Precision`
follows a float conversion batch by batch. All are vectorised; what went wrong where is looked up only once it did.

Legend: `t` rows of a batch (env steps, or environments), `o` features.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from cccad_data import spaces
from cccad_data.errors import UnfitValueError
from cccad_data.plain import Array, DType

LOSS_FRAC = 1e-5
"Most that a float may lose when it is stored as float32, as a fraction of the spread of its feature."
_CONSTANT_FRAC = 1e-12  # a spread that is less, in units of the value, is noise around a constant

Where = str | Callable[[int], str]
"A place in words, such as a file and the array's name; or a function that names the place of row `i` of the batch."


def narrow(values: ArrayLike, dtype: DTypeLike, where: Where) -> Array:
    """Return *values*, `t ...`, as *dtype*: whole numbers and flags exactly, floats finite and to `LOSS_FRAC`.

    Raises UnfitValueError with the place, by *where* and the row, and the value.
    """
    kept = checked_cast(values, dtype, where)
    if kept.dtype.kind == "f":
        precision = Precision()
        precision.add(np.asarray(values), kept, where)
        precision.check()
    return kept


def checked_cast(values: ArrayLike, dtype: DTypeLike, where: Where, why: str = "") -> Array:
    """Return *values* as *dtype* like `narrow`, but for floats, which must be finite and may lose precision.

    *why* is what an error says of a wrong value, if not that the dtype cannot hold it.
    """
    array, wanted = _numbers(values, where), np.dtype(dtype)
    if array.dtype == wanted and wanted.kind != "f":
        return array
    with np.errstate(invalid="ignore", over="ignore"):
        kept = array.astype(wanted, copy=False)
    if wanted.kind == "f":
        is_right = np.isfinite(kept)
        if array.dtype.kind in "iu" and array.dtype.itemsize >= wanted.itemsize:
            with np.errstate(invalid="ignore"):
                is_right &= (kept.astype(array.dtype) == array) & (np.abs(kept) < 2.0**63)
    else:
        is_right = kept == array
    if not is_right.all():
        is_finite = np.isfinite(array).all()
        _refuse(array, ~is_right, where, why or (f"which {wanted} cannot hold" if is_finite else "which is not finite"))
    return kept


class Precision:
    """What the floats of each feature lose where they are stored in fewer digits, over all batches."""

    def __init__(self) -> None:
        self._low = self._high = self._worst = self._values = np.empty(0)  # o
        self._places: list[str] = []  # of the values that lost most

    def add(self, values: Array, kept: Array, where: Where) -> None:
        """Compare a batch, `t ...`, with what is *kept* of it."""
        if values.dtype.kind != "f" or values.dtype.itemsize <= kept.dtype.itemsize or not len(values):
            return
        values, kept = (part.reshape(len(part), -1) for part in (values, kept))
        low, high = values.min(axis=0), values.max(axis=0)
        if not self._places:
            self._low, self._high, self._values = low, high, low.copy()
            self._worst, self._places = np.zeros_like(low), [""] * len(low)
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        if (values == kept).all():
            return
        loss = np.abs(values - kept)
        rows, worst = loss.argmax(axis=0), loss.max(axis=0)
        for feature in np.flatnonzero(worst > self._worst).tolist():
            row = int(rows[feature])
            self._worst[feature], self._values[feature] = worst[feature], values[row, feature]
            self._places[feature] = _place(where, row)

    def check(self) -> None:
        """Raise UnfitValueError where a feature lost too much for its spread."""
        low, high = self._low, self._high
        spread = high - low
        is_lost = (self._worst > LOSS_FRAC * spread) & (spread > _CONSTANT_FRAC * np.maximum(np.abs(low), np.abs(high)))
        if is_lost.any():
            feature = int(is_lost.argmax())
            value = self._values[feature].item()
            raise UnfitValueError(
                f"{self._places[feature]}: {value!r}{_feature(feature, len(is_lost))} would be stored as "
                f"{float(np.float32(value))!r}, too far off where all lie from {low[feature].item()!r} to "
                f"{high[feature].item()!r}; take an offset away"
            )


class Border:
    """Lets the elements of one space pass into arrays, a batch at a time, and refuses all else."""

    def __init__(self, space: spaces.Space) -> None:
        self.space, self.dtype, self.precision = space, spaces.dtype(space), Precision()
        self.width = spaces.num_features(space)
        self.shape = () if space["kind"] == "discrete" else (self.width,)
        self._leaves = [(path, Border(leaf)) for path, leaf in spaces.leaves(space) if path]
        self._low, self._high = spaces.bounds(space)
        if self.dtype.kind == "f":
            most = np.finfo(self.dtype).max  # infinite bounds let no infinity in
            self._low, self._high = self._low.clip(-most, most), self._high.clip(-most, most)
        elif spaces.is_discrete(space):
            self._high = np.asarray(spaces.sizes(space)) - 1
            self._low = np.zeros_like(self._high)
        self._limits: tuple[object, Array, Array] = (None, self._low, self._high)

    def __call__(self, values: ArrayLike, where: Where) -> Array:
        """Return a batch, `t o`, or `t` for a discrete space, in the space's dtype.

        Raises UnfitValueError with the place, by *where* and the row, and the value.
        """
        array = _numbers(spaces.as_rows(self.space, values) if self._leaves else values, where)
        if array.size != len(array) * self.width:
            has = f"values of shape {list(array.shape[1:])} are none"
            raise UnfitValueError(f"{_place(where, 0)}: {has} of the space {dict(self.space)!r:.160}")
        if self._leaves:
            return self._by_leaf(array.reshape(len(array), self.width), where)
        kept = array = array.reshape(len(array), *self.shape)
        if array.dtype != self.dtype and "f" in (array.dtype.kind, self.dtype.kind):
            kept = checked_cast(array, self.dtype, where, self._why())
        low, high = self._ends(kept)
        is_inside = kept <= high
        if kept.dtype.kind != "u" or self._low.any():
            is_inside &= kept >= low
        if not is_inside.all():
            _refuse(array, ~is_inside, where, self._why())
        if array.dtype.kind == "f":
            self.precision.add(array, kept, where)
        return kept.astype(self.dtype, copy=False)

    def _by_leaf(self, array: Array, where: Where) -> Array:
        kept, start = np.empty(array.shape, self.dtype), 0
        for path, border in self._leaves:
            own = slice(start, start + border.width)
            part = border(array[:, own].reshape(len(array), *border.shape), _part(where, path))
            kept[:, own], start = part.reshape(len(array), border.width), own.stop
        self.precision.add(array, kept, where)
        return kept

    def _why(self) -> str:
        return f"which is not in the space {dict(self.space)!r:.160}"

    def _ends(self, kept: Array) -> tuple[Array, Array]:
        """Return the bounds in the shape and the dtype of *kept*: comparing many rows with a short one is slow."""
        if self._limits[0] != (kept.shape, kept.dtype):
            dtype: DType = np.dtype(np.uint8) if kept.dtype == bool else kept.dtype
            most = np.inf if kept.dtype.kind == "f" else np.iinfo(dtype).max
            ends = (np.minimum(end, most).reshape(self.shape) for end in (self._low, self._high))
            full = (np.broadcast_to(end, kept.shape) for end in ends)
            low, high = (np.ascontiguousarray(end, dtype) for end in full)
            self._limits = (kept.shape, kept.dtype), low, high
        return self._limits[1], self._limits[2]


def _numbers(values: ArrayLike, where: Where) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise UnfitValueError(f"{_place(where, 0)}: {values!s:.80} is no array of numbers, but of {array.dtype}")
    return array


def _refuse(array: Array, is_wrong: Array, where: Where, why: str) -> None:
    """Raise UnfitValueError for the first of the values, `t ...`, that are wrong."""
    flat = is_wrong.reshape(len(is_wrong), -1)
    row = int(flat.any(axis=1).argmax())
    feature = int(flat[row].argmax())
    value = array.reshape(len(array), -1)[row, feature].item()
    raise UnfitValueError(f"{_place(where, row)}: {value!r}{_feature(feature, flat.shape[1])}, {why}")


def _place(where: Where, row: int) -> str:
    return where(row) if callable(where) else f"{where}, env step {row:,}"


def _part(where: Where, path: str) -> Where:
    return lambda row: f"{_place(where, row)}, {path!r}"


def _feature(feature: int, count: int) -> str:
    return f" in feature {feature}" if count > 1 else ""
