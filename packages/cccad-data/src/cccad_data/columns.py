"""Columns that stay on the disk: they look like arrays, and read the stretches that are asked for, and no more.

A column has ``shape dtype len() [...] take(places, axis=0)``; ``np.asarray`` reads it whole, and `take_all` several at
once. What is stored without compression is mapped into memory, a bounded part of it at a time, and the rest is read
through HDF5, chunk by chunk.
"""

import bisect
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from cccad_data.errors import HistoryFileError

Array = NDArray[Any]
_BLOCK_ENV_STEPS = 4096  # how finely the places of episode ends are known without reading them
_MOST_OPEN_FILES = 128
_RESIDENT_BYTES = 1 << 22  # of each of them, before its pages are given back
_FAULT_BYTES = 1 << 16  # what the kernel maps around the first byte that is read


class Column(ABC):
    """Rows ``t ...`` that are read when they are asked for."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)

    @abstractmethod
    def read(self, begin: int, end: int) -> Array:
        """Return the rows from *begin* up to *end*; raises HistoryFileError when they cannot be read."""

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
        """Return the rows at *places*, of any shape; each run of neighbours, or of one row again, is one read."""
        assert axis == 0
        return self.taken(Runs(places))

    def taken(self, runs: "Runs") -> Array:
        """Return the rows of *runs*."""
        out = np.empty((len(runs.flat), *self.shape[1:]), self.dtype)
        for start, end, first, last in runs.bounds:
            rows = self.read(first, last + 1)
            out[start:end] = rows if last - first == end - start - 1 else rows[runs.flat[start:end] - first]
        return out.reshape(*runs.shape, *self.shape[1:])


class Runs:
    """Places, cut into runs of neighbours, or of one place again."""

    def __init__(self, places: Array) -> None:
        self.shape, self.flat = places.shape, places.reshape(-1)
        gaps = np.diff(self.flat)
        cuts = np.flatnonzero((gaps < 0) | (gaps > 1))
        starts, ends = np.append(0, cuts + 1), np.append(cuts, len(gaps))
        columns = (starts, ends + 1, self.flat[starts], self.flat[ends])
        self.bounds = list(zip(*(column.tolist() for column in columns), strict=True))


def take_all(columns: Mapping[str, Array], places: Array) -> dict[str, Array]:
    """Return the rows of every array or column at *places*, of any shape."""
    found: dict[str, Any] = dict(columns)
    runs = Runs(places) if any(isinstance(column, Column) for column in found.values()) else None
    return {
        name: column.taken(runs) if isinstance(column, Column) and runs else column.take(places, axis=0)
        for name, column in found.items()
    }


def _rows(array: Any, begin: int, end: int) -> Array:
    return cast("Array", array.read(begin, end) if isinstance(array, Column) else array[begin:end])


class Stored(Column):
    """A dataset of a history file."""

    def __init__(self, path: Path, dataset: h5py.Dataset) -> None:
        super().__init__(dataset.shape, dataset.dtype)
        self.path, self.name, self.version = str(path), dataset.name, _version(path.stat())
        self.is_checked = self.name.endswith("/rewards")
        self.is_plain = dataset.compression is None and not dataset.shuffle and dataset.chunks is not None
        self.chunk_rows = dataset.chunks[0] if self.is_plain else 0
        chunks = range(dataset.id.get_num_chunks()) if self.is_plain else ()
        self.offsets = [dataset.id.get_chunk_info(chunk).byte_offset for chunk in chunks]
        self.row_size = int(np.prod(self.shape[1:], dtype=np.int64))
        self.row_bytes = self.dtype.itemsize * self.row_size

    def read(self, begin: int, end: int) -> Array:
        """Return the rows from *begin* up to *end*; raises HistoryFileError when they cannot be read."""
        file = _opened(self.path, self.version, os.getpid(), self.is_plain)
        try:
            rows = self._mapped(file, begin, end) if self.is_plain else file[self.name][begin:end]
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise HistoryFileError(f"{self.path}: {self.name!r} is damaged: {error}") from error
        if self.is_checked and not np.isfinite(rows).all():
            raise HistoryFileError(f"{self.path}: a reward in {self.name!r} is not a finite number")
        return cast("Array", rows)

    def _mapped(self, file: "_Mapped", begin: int, end: int) -> Array:
        chunk, row = divmod(begin, self.chunk_rows)
        if end > (chunk + 1) * self.chunk_rows:
            middle = (chunk + 1) * self.chunk_rows
            return np.concatenate([self._mapped(file, begin, middle), self._mapped(file, middle, end)])
        if end <= begin:
            return np.empty((0, *self.shape[1:]), self.dtype)
        count = (end - begin) * self.row_size
        found = file.numbers(self.dtype, count, self.offsets[chunk] + row * self.row_bytes)
        return found if self.ndim == 1 else found.reshape(-1, *self.shape[1:])


class Joined(Column):
    """Pieces, one after the other."""

    def __init__(self, pieces: Sequence[Any]) -> None:
        ends = np.cumsum([len(piece) for piece in pieces]).tolist()
        super().__init__((ends[-1], *pieces[0].shape[1:]), np.result_type(*{piece.dtype for piece in pieces}))
        self.pieces, self.births, self.ends = list(pieces), [0, *ends[:-1]], ends

    def read(self, begin: int, end: int) -> Array:
        """Return the rows from *begin* up to *end*."""
        piece = bisect.bisect_right(self.ends, begin)
        if begin < end <= self.ends[piece]:
            birth = self.births[piece]
            return _rows(self.pieces[piece], begin - birth, end - birth)
        parts: list[Array] = []
        while begin < end or not parts:
            piece = min(bisect.bisect_right(self.ends, begin), len(self.ends) - 1)
            birth, stop = self.births[piece], min(end, self.ends[piece])
            parts.append(_rows(self.pieces[piece], begin - birth, stop - birth))
            begin = stop
        return np.concatenate(parts)


class Following(Column):
    """The true observation after every env step, ``t o``, from a task's observations, their last ones and the ends."""

    def __init__(self, observations: Any, final_observations: Any, episode_ends: Any) -> None:
        super().__init__(observations.shape, observations.dtype)
        self.observations, self.final_observations, self.episode_ends = observations, final_observations, episode_ends
        blocks = np.arange(-(-len(observations) // _BLOCK_ENV_STEPS) + 1) * _BLOCK_ENV_STEPS
        self.num_before = np.searchsorted(np.asarray(episode_ends), blocks, side="right").tolist()

    def read(self, begin: int, end: int) -> Array:
        """Return the rows from *begin* up to *end*."""
        out = np.empty((end - begin, *self.shape[1:]), self.dtype)
        within = _rows(self.observations, begin + 1, min(end + 1, len(self)))
        out[: len(within)] = within
        first, last = self.num_before[begin // _BLOCK_ENV_STEPS], self.num_before[-(-end // _BLOCK_ENV_STEPS)]
        ends = _rows(self.episode_ends, first, last)
        low, high = ends.searchsorted((begin, end), side="right").tolist()
        if low < high:
            out[ends[low:high] - 1 - begin] = _rows(self.final_observations, first + low, first + high)
        return out


class Thinned(Column):
    """Some of the episodes of a column, one after the other."""

    def __init__(self, column: Any, starts: Array, ends: Array) -> None:
        """Keep the episodes that begin at *starts* in *column*, ``n``, and end at *ends* in what is kept, ``n``."""
        super().__init__((int(ends[-1]), *column.shape[1:]), column.dtype)
        self.column, self.ends = column, ends
        self.shifts = starts - np.concatenate(([0], ends[:-1]))

    def read(self, begin: int, end: int) -> Array:
        """Return the rows from *begin* up to *end*."""
        out = np.empty((end - begin, *self.shape[1:]), self.dtype)
        episode, done = int(np.searchsorted(self.ends, begin, side="right")), begin
        while done < end:
            stop, shift = min(end, int(self.ends[episode])), int(self.shifts[episode])
            out[done - begin : stop - begin] = _rows(self.column, done + shift, stop + shift)
            done, episode = stop, episode + 1
        return out


def stored(path: Path, dataset: h5py.Dataset) -> Array:
    """Return an open dataset of the file at *path* as a column that reads for itself."""
    return cast("Array", Stored(path, dataset))


def joined(pieces: Sequence[Array]) -> Array:
    """Return arrays or columns end to end: as an array when all are arrays, else as a column."""
    if any(isinstance(piece, Column) for piece in pieces):
        return cast("Array", Joined(pieces))
    return np.concatenate(pieces)


class _Mapped:
    """A file mapped into memory, of which only what was read lately is resident."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.touched = 0

    def numbers(self, dtype: np.dtype[Any], count: int, offset: int) -> Array:
        """Return *count* numbers from byte *offset* on; raises ValueError when the file is too short."""
        self.touched += max(count * dtype.itemsize, _FAULT_BYTES)
        if self.touched > _RESIDENT_BYTES:
            self.bytes.madvise(mmap.MADV_DONTNEED)
            self.touched = 0
        return np.frombuffer(self.bytes, dtype, count, offset)


@lru_cache(maxsize=_MOST_OPEN_FILES)
def _opened(path: str, version: tuple[int, ...], _pid: int, is_plain: bool) -> Any:
    """Open *path*, for this process alone: an HDF5 handle from before a fork gives garbage."""
    try:
        if _version(Path(path).stat()) == version:
            return _Mapped(path) if is_plain else h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise HistoryFileError(f"{path}: can no longer be read: {error}") from error
    raise HistoryFileError(f"{path}: has changed since these histories were opened; open them again")


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns
