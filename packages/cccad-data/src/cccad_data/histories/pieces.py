"""Pieces of a column: rows that lie in a file as they do in memory, that HDF5 has to unpack, or that are an array.

What is stored without compression is mapped into memory, where pages of files are the system's to keep or to drop, and
the rest goes through HDF5, which unpacks whole chunks.
"""

import math
import mmap
import os
from abc import ABC, abstractmethod
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cccad_data.errors import HistoryFileError
from cccad_data.plain import Array, DType

_MOST_OPEN_FILES, _MOST_OPEN_DATASETS = 512, 512
_UNPACKED_BYTES = 1 << 16  # that HDF5 keeps for each open dataset


class Piece(ABC):
    """Rows that are read alike; *shift* is added to each, which offsets in joined histories need."""

    def __init__(self, shape: tuple[int, ...], dtype: DType, *, path: str = "", name: str = "rows") -> None:
        self.shape, self.dtype, self.path, self.name, self.shift = shape, dtype, path, name, 0
        self.is_reward = name.endswith("/rewards")

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


class DiskPiece(Piece, ABC):
    """Rows of a dataset in a file, which must not change while they are used."""

    def __init__(self, path: Path, dataset: h5py.Dataset, num_rows: int) -> None:
        super().__init__((num_rows, *dataset.shape[1:]), dataset.dtype, path=str(path), name=dataset.name)
        self.file = (self.path, _version(path.stat()))


class Extent(DiskPiece):
    """Rows that lie in a file as they do in memory, from byte *offset* on."""

    def __init__(self, path: Path, dataset: h5py.Dataset, num_rows: int, offset: int) -> None:
        super().__init__(path, dataset, num_rows)
        self.offset = offset

    def load(self, out: Array, begin: int) -> None:
        """Read the rows from *begin* on into *out*."""
        into = out if out.dtype == self.dtype else np.empty(out.shape, self.dtype)
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        first = self.offset + begin * row_bytes
        bytes_of(into)[:] = mapped(*self.file)[first : first + into.nbytes]
        if into is not out:
            out[...] = into


class Packed(DiskPiece):
    """A dataset that HDF5 has to unpack."""

    def load(self, out: Array, begin: int) -> None:
        """Read the rows from *begin* on into *out*."""
        _dataset(*self.file, self.name, os.getpid()).read_direct(out, np.s_[begin : begin + len(out)])


class Whole(Piece):
    """An array, or a column of another kind, as a piece."""

    def __init__(self, rows: Array, packed_in: str = "") -> None:
        super().__init__(rows.shape, rows.dtype, path=packed_in)
        self.rows = rows

    def load(self, out: Array, begin: int) -> None:
        """Put the rows from *begin* on into *out*."""
        out[...] = self.rows[begin : begin + len(out)]


def bytes_of(array: Any) -> memoryview:
    """Return the memory of *array*, to read from and to write to."""
    return memoryview(array.reshape(-1).view(np.uint8))


@lru_cache(maxsize=_MOST_OPEN_FILES)
def mapped(path: str, version: tuple[int, ...]) -> memoryview:
    """Return the bytes of a file that is still the *version* which was opened; raises HistoryFileError."""
    _check_version(path, version)
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@lru_cache(maxsize=_MOST_OPEN_DATASETS)
def _dataset(path: str, version: tuple[int, ...], name: str, _pid: int) -> h5py.Dataset:
    """Open a dataset, for this process alone: an HDF5 handle from before a fork gives garbage."""
    _check_version(path, version)
    return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=_UNPACKED_BYTES)[name]


def _check_version(path: str, version: tuple[int, ...]) -> None:
    try:
        now = _version(Path(path).stat())
    except OSError as error:
        raise HistoryFileError(f"{path}: can no longer be read: {error}") from error
    if now != version:
        raise HistoryFileError(f"{path}: has changed since these histories were opened; open them again")


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns
