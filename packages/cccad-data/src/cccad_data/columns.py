"""Columns that stay on the disk: they look like arrays, and read the stretches that are asked for, and no more.

A column has ``shape dtype len() [...] take(places, axis=0)``; ``np.asarray`` reads it whole, and `take_all` several at
once. It lies in pieces: what is stored without compression is mapped into memory, where pages of files are the system's
to keep or to drop, and the rest goes through HDF5, which unpacks whole chunks.
"""

import math
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from cccad_data.errors import HistoryFileError
from cccad_data.plain import Array

_BLOCK_ENV_STEPS = 256  # how finely the places of episode ends are known without reading them, in 8 bytes each
_BRIDGED_ROWS = 64  # are read too where they lie between two that were asked for
_MOST_OPEN_FILES, _MOST_OPEN_DATASETS = 512, 512
_UNPACKED_BYTES = 1 << 16  # that HDF5 keeps for each open dataset


class Column(ABC):
    """Rows ``t ...`` that are read when they are asked for."""

    packed_in = ""
    "A file where some of the rows are compressed, so that reading them here and there is slow."

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)

    @abstractmethod
    def gather(self, out: Array, begins: Array, stops: Array, places: Array) -> None:
        """Read the rows from each of *begins* up to its stop into *out* at its place.

        Raises HistoryFileError when they cannot be read.
        """

    def read(self, begin: int, end: int) -> Array:
        """Return the rows from *begin* up to *end*; raises HistoryFileError when they cannot be read."""
        out = np.empty((end - begin, *self.shape[1:]), self.dtype)
        self.gather(out, *(np.array([place]) for place in (begin, end, 0)))
        return out

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.read(0, len(self)), dtype)

    def __getitem__(self, key: Any) -> Array:
        if isinstance(key, slice) and key.step in (None, 1):
            begin, end, _ = key.indices(len(self))
            return self.read(begin, max(begin, end))
        if isinstance(key, int | np.integer):
            place = range(len(self))[int(key)]
            return cast("Array", self.read(place, place + 1)[0])
        return cast("Array", np.asarray(self)[key])

    def take(self, places: Array, axis: int = 0) -> Array:
        """Return the rows at *places*, of any shape; each run of near neighbours is one read."""
        assert axis == 0
        return self.taken(Runs.of(places))

    def taken(self, runs: "Runs") -> Array:
        """Return the rows of *runs*."""
        out = np.empty((runs.length, *self.shape[1:]), self.dtype)
        self.gather(out, runs.begins, runs.stops, runs.places)
        return (out if runs.chosen is None else out[runs.chosen]).reshape(*runs.shape, *self.shape[1:])


class Runs:
    """Where the rows are that were asked for: runs of neighbours, each of which is read once."""

    def __init__(self, shape: tuple[int, ...], begins: Array, counts: Array, chosen: Array | None = None) -> None:
        """Read *counts* rows from each of *begins* on; of all these, end to end, give those *chosen* in *shape*."""
        self.shape, self.begins, self.stops, self.chosen = shape, begins, begins + counts, chosen
        self.places, self.length = _starts(counts), int(counts.sum())

    @classmethod
    def of(cls, places: Array) -> "Runs":
        """Return the runs of *places*, of any shape, with what lies between near ones."""
        flat = places.reshape(-1)
        gaps = np.diff(flat)
        cuts = np.flatnonzero((gaps < 0) | (gaps > _BRIDGED_ROWS))
        firsts = np.append(0, cuts + 1)
        begins, counts = flat[firsts], flat[np.append(cuts, len(gaps))] + 1 - flat[firsts]
        chosen = flat + np.repeat(_starts(counts) - begins, np.diff(firsts, append=len(flat)))
        return cls(places.shape, begins, counts, chosen)

    @classmethod
    def stretches(cls, begins: Array, counts: Array, length: int) -> "Runs":
        """Return runs ``b t`` of *length* rows from *begins* on; the last of its *counts* stands for what is beyond."""
        if (counts == length).all():
            return cls((len(begins), length), begins, counts)
        places = _starts(counts)[:, None] + np.minimum(np.arange(length), counts[:, None] - 1)
        return cls((len(begins), length), begins, counts, places.reshape(-1))


def take_all(columns: Mapping[str, Array], places: "Array | Runs") -> dict[str, Array]:
    """Return the rows of every array or column at *places*, of any shape; of columns alone where they are `Runs`."""
    found: dict[str, Any] = dict(columns)
    is_lazy = any(isinstance(column, Column) for column in found.values())
    runs: Any = Runs.of(places) if is_lazy and not isinstance(places, Runs) else places
    return {
        name: column.taken(runs) if isinstance(column, Column) else column.take(places, axis=0)
        for name, column in found.items()
    }


def _starts(counts: Array) -> Array:
    return np.cumsum(counts) - counts


class Piece(ABC):
    """Rows that are read alike; *shift* is added to each, which offsets in joined histories need."""

    def __init__(self, path: Path, dataset: h5py.Dataset, num_rows: int) -> None:
        self.path, self.name, self.shift = str(path), dataset.name, 0
        self.file = (self.path, _version(path.stat()))
        self.shape, self.dtype = (num_rows, *dataset.shape[1:]), dataset.dtype
        self.is_reward = self.name.endswith("/rewards")

    @abstractmethod
    def load(self, out: Array, begin: int) -> None:
        """Read the rows from *begin* on into *out*."""

    def fill(self, out: Array, begin: int) -> None:
        """Read the rows from *begin* on into *out*, and check them; raises HistoryFileError."""
        try:
            self.load(out, begin)
        except HistoryFileError:
            raise
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise HistoryFileError(f"{self.path}: {self.name!r} is damaged: {error}") from error
        if self.shift:
            out += self.shift
        if self.is_reward and not math.isfinite(out.dot(out)) and not np.isfinite(out).all():
            raise HistoryFileError(f"{self.path}: a reward in {self.name!r} is not a finite number")

    def shifted(self, by: int) -> "Piece":
        """Return this piece with *by* added to every row."""
        other = copy(self)
        other.shift = self.shift + by
        return other


class Extent(Piece):
    """Rows that lie in a file as they do in memory, from byte *offset* on."""

    def __init__(self, path: Path, dataset: h5py.Dataset, num_rows: int, offset: int) -> None:
        super().__init__(path, dataset, num_rows)
        self.offset = offset

    def load(self, out: Array, begin: int) -> None:
        """Read the rows from *begin* on into *out*."""
        into = out if out.dtype == self.dtype else np.empty(out.shape, self.dtype)
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        first = self.offset + begin * row_bytes
        _bytes(into)[:] = _mapped(*self.file)[first : first + into.nbytes]
        if into is not out:
            out[...] = into


class Packed(Piece):
    """A dataset that HDF5 has to unpack."""

    def load(self, out: Array, begin: int) -> None:
        """Read the rows from *begin* on into *out*."""
        _dataset(*self.file, self.name, os.getpid()).read_direct(out, np.s_[begin : begin + len(out)])


class Held(Piece):
    """An array, or a column of another kind, as a piece."""

    def __init__(self, rows: Any) -> None:
        self.rows, self.shape, self.dtype, self.shift, self.is_reward = rows, rows.shape, rows.dtype, 0, False
        self.path, self.name = getattr(rows, "packed_in", ""), "rows"

    def load(self, out: Array, begin: int) -> None:
        """Put the rows from *begin* on into *out*."""
        out[...] = self.rows[begin : begin + len(out)]


class Joined(Column):
    """Pieces, one after the other."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces, self.births = list(pieces), np.cumsum([0, *(piece.shape[0] for piece in pieces)])
        shape = (int(self.births[-1]), *pieces[0].shape[1:])
        super().__init__(shape, np.result_type(*{piece.dtype for piece in pieces}))
        self.packed_in = next((piece.path for piece in pieces if isinstance(piece, Packed | Held) and piece.path), "")
        self.row_bytes = self.dtype.itemsize * math.prod(shape[1:])
        extents = [piece for piece in pieces if isinstance(piece, Extent) and piece.dtype == self.dtype]
        self.is_plain = len(extents) == len(pieces)
        births = self.births[: len(extents)]
        self.bases = np.array([piece.offset for piece in extents]) - births * self.row_bytes  # where row 0 would lie
        self.shifts = np.array([piece.shift for piece in pieces])
        self.is_shifted = bool(self.shifts.any())
        numbers: dict[Any, int] = {}
        self.file_of = np.array([numbers.setdefault(piece.file, len(numbers)) for piece in extents])
        self.files = list(numbers)

    def gather(self, out: Array, begins: Array, stops: Array, places: Array) -> None:
        """Read the rows from each of *begins* up to its stop into *out* at its place."""
        lags = places - begins
        while (left := begins < stops).any():
            begins, stops, lags = begins[left], stops[left], lags[left]
            which = self.births.searchsorted(begins, side="right") - 1
            ends = np.minimum(stops, self.births[which + 1])
            if not (self.is_plain and self._read(out, which, begins, ends, lags)):
                rows = (which, begins - self.births[which], begins + lags, ends + lags)
                for piece, start, place, end in zip(*(numbers.tolist() for numbers in rows), strict=True):
                    self.pieces[piece].fill(out[place:end], start)
            begins = ends

    def _read(self, out: Array, which: Array, begins: Array, ends: Array, lags: Array) -> bool:
        """Read plain rows; return whether they are sound: if not, the pieces say what is wrong with them."""
        view, first, last = _bytes(out), begins * self.row_bytes, ends * self.row_bytes
        base, lag = self.bases[which], lags * self.row_bytes
        parts = (self.file_of[which], base + first, base + last, first + lag, last + lag)
        mapped = {file: _mapped(*self.files[file]) for file in set(parts[0].tolist())}
        try:
            for file, begin, stop, place, end in zip(*(numbers.tolist() for numbers in parts), strict=True):
                view[place:end] = mapped[file][begin:stop]
        except ValueError:  # cut off
            return False
        if self.is_shifted:
            change = np.zeros(len(out) + 1, np.int64)
            np.add.at(change, begins + lags, self.shifts[which])
            np.subtract.at(change, ends + lags, self.shifts[which])
            out += change[:-1].cumsum().astype(out.dtype)
        return not self.pieces[0].is_reward or bool(np.isfinite(out).all())


class Following(Column):
    """The true observation after every env step, ``t o``, of one task after the other."""

    def __init__(self, lives: Sequence[tuple[Any, Any, Any]]) -> None:
        """Put it together from the observations, the last ones and the ends of the episodes of every task."""
        self.lives = list(lives)
        observations, final_observations, ends = zip(*lives, strict=True)
        births = _starts(np.array([len(part) for part in observations])).tolist()
        self.observations = cast("Column", joined(observations))
        self.final_observations = Joined([piece for part in final_observations for piece in _pieces(part)])
        lists = [(piece, birth) for part, birth in zip(ends, births, strict=True) for piece in _pieces(part)]
        self.episode_ends = Joined([piece.shifted(birth) for piece, birth in lists])
        super().__init__(self.observations.shape, self.observations.dtype)
        self.packed_in = self.observations.packed_in
        self._row = np.dtype((np.void, self.dtype.itemsize * math.prod(self.shape[1:])))  # copied as one item

    @cached_property
    def num_before(self) -> Array:
        """Episodes that end at or before the begin of every block of env steps."""
        counts = np.zeros(-(-len(self) // _BLOCK_ENV_STEPS) + 1, np.int64)
        for first in range(0, len(self.episode_ends), 1 << 20):
            blocks = -(-self.episode_ends[first : first + (1 << 20)] // _BLOCK_ENV_STEPS)
            counts[blocks[0] : blocks[-1] + 1] += np.bincount(blocks - blocks[0])
        return np.cumsum(counts, out=counts)

    def gather(self, out: Array, begins: Array, stops: Array, places: Array) -> None:
        """Read the rows from each of *begins* up to its stop into *out* at its place."""
        self.observations.gather(out, begins + 1, np.minimum(stops + 1, len(self)), places)
        first = self.num_before[begins // _BLOCK_ENV_STEPS]
        counts = self.num_before[-(-stops // _BLOCK_ENV_STEPS)] - first  # of the episodes that end near by
        near = Runs((int(counts.sum()),), first, counts)
        age = self.episode_ends.taken(near) - np.repeat(begins + 1, counts)
        within = np.flatnonzero((age >= 0) & (age < np.repeat(stops - begins, counts)))
        last, row = self.final_observations.taken(near).astype(self.dtype, copy=False), self._row
        out.view(row)[np.repeat(places, counts)[within] + age[within]] = last.view(row)[within]


class Thinned(Column):
    """Some of the episodes of a column, one after the other."""

    def __init__(self, column: Any, starts: Array, ends: Array) -> None:
        """Keep the episodes that begin at *starts* in *column*, ``n``, and end at *ends* in what is kept, ``n``."""
        super().__init__((int(ends[-1]), *column.shape[1:]), column.dtype)
        self.column, self.ends, self.packed_in = column, ends, column.packed_in
        self.shifts = starts - np.append(0, ends[:-1])

    def gather(self, out: Array, begins: Array, stops: Array, places: Array) -> None:
        """Read the rows from each of *begins* up to its stop into *out* at its place, with those between them."""
        counts = np.maximum(stops - begins, 0)
        if not counts.any():
            return
        kept = np.repeat(begins - _starts(counts), counts) + np.arange(counts.sum())
        found = kept + self.shifts[self.ends.searchsorted(kept, side="right")]
        out[np.repeat(places - _starts(counts), counts) + np.arange(len(kept))] = self.column.take(found)


def stored(path: Path, dataset: h5py.Dataset) -> Array:
    """Return an open dataset of the file at *path* as a column that reads for itself."""
    num_rows, chunk = len(dataset), dataset.chunks
    is_plain = dataset.id.get_create_plist().get_nfilters() == int(dataset.fletcher32)
    if not is_plain or chunk is None or chunk[1:] != dataset.shape[1:]:
        return cast("Array", Joined([Packed(path, dataset, num_rows)]))
    found = [dataset.id.get_chunk_info(index) for index in range(dataset.id.get_num_chunks())]
    offsets = sorted((info.chunk_offset[0], info.byte_offset) for info in found)
    pieces = [Extent(path, dataset, min(chunk[0], num_rows - birth), offset) for birth, offset in offsets]
    return cast("Array", Joined(pieces))


def joined(parts: Sequence[Any]) -> Array:
    """Return arrays or columns end to end: as an array when all are arrays, else as a column."""
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    if all(isinstance(part, Following) for part in parts):
        return cast("Array", Following([life for part in parts for life in part.lives]))
    return cast("Array", Joined([piece for part in parts for piece in _pieces(part)]))


def _bytes(array: Any) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))


def _pieces(part: Any) -> list[Piece]:
    return part.pieces if isinstance(part, Joined) else [Held(part)]


@lru_cache(maxsize=_MOST_OPEN_FILES)
def _mapped(path: str, version: tuple[int, ...]) -> memoryview:
    _check_version(path, version)
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@lru_cache(maxsize=_MOST_OPEN_DATASETS)
def _dataset(path: str, version: tuple[int, ...], name: str, _pid: int) -> Any:
    """Open a dataset, for this process alone: an HDF5 handle from before a fork gives garbage."""
    _check_version(path, version)
    return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=_UNPACKED_BYTES)[name]


def _check_version(path: str, version: tuple[int, ...]) -> None:
    try:
        found = _version(Path(path).stat())
    except OSError as error:
        raise HistoryFileError(f"{path}: can no longer be read: {error}") from error
    if found != version:
        raise HistoryFileError(f"{path}: has changed since these histories were opened; open them again")


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns
