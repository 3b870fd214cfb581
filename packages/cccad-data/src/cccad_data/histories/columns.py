"""Columns that stay on the disk: they look like arrays, and read the stretches that are asked for, and no more.

A column has `shape dtype len() [...] take(places, axis=0)`; `np.asarray` reads it whole, and `take_all` several at
once. It lies in pieces (see `cccad_data.histories.pieces`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from attrs import frozen

from cccad_data.histories.pieces import Extent, Packed, Piece, Whole, bytes_of, mapped
from cccad_data.plain import Array, DType, Table

_BLOCK_ENV_STEPS = 256  # how finely the places of episode ends are known without reading them, in 8 bytes each
_BRIDGED_ROWS = 64  # are read too where they lie between two that were asked for


class Column(ABC):
    """Rows `t ...` that are read when they are asked for."""

    packed_in = ""
    "A file where some of the rows are compressed, so that reading them here and there is slow."

    def __init__(self, shape: tuple[int, ...], dtype: DType) -> None:
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

    def __array__(self, dtype: DType | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self.read(0, len(self)), dtype)

    def __getitem__(self, key: int | slice | Array) -> Array:
        if isinstance(key, slice) and key.step in (None, 1):
            begin, end, _ = key.indices(len(self))
            return self.read(begin, max(begin, end))
        if isinstance(key, int | np.integer):
            place = range(len(self))[int(key)]
            return cast("Array", self.read(place, place + 1)[0])
        return np.asarray(self)[key]

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
        """Return runs `b t` of *length* rows from *begins* on; the last of its *counts* stands for what is beyond."""
        if (counts == length).all():
            return cls((len(begins), length), begins, counts)
        places = _starts(counts)[:, None] + np.minimum(np.arange(length), counts[:, None] - 1)
        return cls((len(begins), length), begins, counts, places.reshape(-1))


def take_all(columns: Mapping[str, Array], places: "Array | Runs") -> dict[str, Array]:
    """Return the rows of every array or column at *places*, of any shape; of columns alone where they are `Runs`."""
    arrays: Table = dict(columns)
    is_lazy = any(isinstance(column, Column) for column in arrays.values())
    runs: Any = Runs.of(places) if is_lazy and not isinstance(places, Runs) else places
    return {
        name: column.taken(runs) if isinstance(column, Column) else column.take(places, axis=0)
        for name, column in arrays.items()
    }


def _starts(counts: Array) -> Array:
    return np.cumsum(counts) - counts


class Pieces(Column, ABC):
    """Pieces, one after the other."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces, self.births = list(pieces), np.cumsum([0, *(piece.shape[0] for piece in pieces)])
        shape = (int(self.births[-1]), *pieces[0].shape[1:])
        super().__init__(shape, np.result_type(*{piece.dtype for piece in pieces}))
        self.packed_in = next((piece.path for piece in pieces if not isinstance(piece, Extent) and piece.path), "")

    def gather(self, out: Array, begins: Array, stops: Array, places: Array) -> None:
        """Read the rows from each of *begins* up to its stop into *out* at its place."""
        lags = places - begins
        while (left := begins < stops).any():
            begins, stops, lags = begins[left], stops[left], lags[left]
            which = self.births.searchsorted(begins, side="right") - 1
            ends = np.minimum(stops, self.births[which + 1])
            self._read(out, which, begins, ends, lags)
            begins = ends

    @abstractmethod
    def _read(self, out: Array, which: Array, begins: Array, ends: Array, lags: Array) -> None:
        """Read the rows from *begins* up to *ends*, each run from the one piece *which*, into *out* at begin + lag."""

    def _read_one_by_one(self, out: Array, which: Array, begins: Array, ends: Array, lags: Array) -> None:
        """Let each piece read and check its own rows."""
        rows = (which, begins - self.births[which], begins + lags, ends + lags)
        for piece, start, place, end in zip(*(numbers.tolist() for numbers in rows), strict=True):
            self.pieces[piece].fill(out[place:end], start)


class PackedColumn(Pieces):
    """Pieces of any kind, some of which have to be unpacked or converted."""

    def _read(self, out: Array, which: Array, begins: Array, ends: Array, lags: Array) -> None:
        self._read_one_by_one(out, which, begins, ends, lags)


@frozen(kw_only=True, eq=False)
class Extents:
    """Where extents lie, a number for each: a table that many reads at once look up."""

    files: list[tuple[str, tuple[int, ...]]]
    file_of: Array  # the place of its file in `files`
    bases: Array  # the byte of its file at which row 0 of the whole column would lie
    shifts: Array  # what is added to its rows

    @classmethod
    def of(cls, extents: Sequence[Extent], births: Array, row_bytes: int) -> "Extents":
        """Return the table of *extents*, the first rows of which are *births* in the column."""
        numbers: dict[tuple[str, tuple[int, ...]], int] = {}
        return cls(
            file_of=np.array([numbers.setdefault(extent.file, len(numbers)) for extent in extents]),
            files=list(numbers),
            bases=np.array([extent.offset for extent in extents]) - births * row_bytes,
            shifts=np.array([extent.shift for extent in extents]),
        )


class MappedColumn(Pieces):
    """Extents of one dtype, one after the other: many runs are copied out of the mapped files in one loop."""

    def __init__(self, extents: Sequence[Extent]) -> None:
        super().__init__(extents)
        self.row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        self.extents = Extents.of(extents, self.births[:-1], self.row_bytes)
        self._is_shifted, self._are_rewards = bool(self.extents.shifts.any()), extents[0].is_reward

    def _read(self, out: Array, which: Array, begins: Array, ends: Array, lags: Array) -> None:
        if not self._copy(out, which, begins, ends, lags):
            self._read_one_by_one(out, which, begins, ends, lags)  # which says what is wrong with one of them

    def _copy(self, out: Array, which: Array, begins: Array, ends: Array, lags: Array) -> bool:
        """Copy the rows; return whether they are all there, and finite where they are rewards."""
        table, view = self.extents, bytes_of(out)
        first, last = begins * self.row_bytes, ends * self.row_bytes
        base, lag = table.bases[which], lags * self.row_bytes
        parts = (table.file_of[which], base + first, base + last, first + lag, last + lag)
        contents = {file: mapped(*table.files[file]) for file in set(parts[0].tolist())}
        try:
            for file, begin, stop, place, end in zip(*(numbers.tolist() for numbers in parts), strict=True):
                view[place:end] = contents[file][begin:stop]
        except ValueError:  # the file was cut off
            return False
        if self._is_shifted:
            change = np.zeros(len(out) + 1, np.int64)
            np.add.at(change, begins + lags, table.shifts[which])
            np.subtract.at(change, ends + lags, table.shifts[which])
            out += change[:-1].cumsum().astype(out.dtype)
        return not self._are_rewards or bool(np.isfinite(out).all())


def in_pieces(pieces: Sequence[Piece]) -> Pieces:
    """Return *pieces* as one column, mapped where all of them can be."""
    extents = [piece for piece in pieces if isinstance(piece, Extent) and piece.dtype == pieces[0].dtype]
    return MappedColumn(extents) if len(extents) == len(pieces) else PackedColumn(pieces)


class Following(Column):
    """The true observation after every env step, `t o`, of one task after the other."""

    def __init__(self, lives: Sequence[tuple[Any, Any, Any]]) -> None:
        """Put it together from the observations, the last ones and the ends of the episodes of every task."""
        self.lives = list(lives)
        observations, final_observations, ends = zip(*lives, strict=True)
        births = _starts(np.array([len(part) for part in observations])).tolist()
        self.observations = cast("Column", joined(observations))
        self.final_observations = in_pieces([piece for part in final_observations for piece in _pieces(part)])
        lists = [(piece, birth) for part, birth in zip(ends, births, strict=True) for piece in _pieces(part)]
        self.episode_ends = in_pieces([piece.shifted(birth) for piece, birth in lists])
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

    def __init__(self, column: Column, starts: Array, ends: Array) -> None:
        """Keep the episodes that begin at *starts* in *column*, `n`, and end at *ends* in what is kept, `n`."""
        super().__init__((int(ends[-1]), *column.shape[1:]), column.dtype)
        self.column, self.ends, self.packed_in = column, ends, column.packed_in
        self.shifts = starts - np.append(0, ends[:-1])

    def gather(self, out: Array, begins: Array, stops: Array, places: Array) -> None:
        """Read the rows from each of *begins* up to its stop into *out* at its place, with those between them."""
        counts = np.maximum(stops - begins, 0)
        if not counts.any():
            return
        kept = np.repeat(begins - _starts(counts), counts) + np.arange(counts.sum())
        originals = kept + self.shifts[self.ends.searchsorted(kept, side="right")]
        out[np.repeat(places - _starts(counts), counts) + np.arange(len(kept))] = self.column.take(originals)


def stored(path: Path, dataset: h5py.Dataset) -> Array:
    """Return an open dataset of the file at *path* as a column that reads for itself."""
    num_rows, chunk = len(dataset), dataset.chunks
    is_plain = dataset.id.get_create_plist().get_nfilters() == int(dataset.fletcher32)
    if not is_plain or chunk is None or chunk[1:] != dataset.shape[1:]:
        return cast("Array", in_pieces([Packed(path, dataset, num_rows)]))
    chunks = [dataset.id.get_chunk_info(index) for index in range(dataset.id.get_num_chunks())]
    offsets = sorted((info.chunk_offset[0], info.byte_offset) for info in chunks)
    pieces = [Extent(path, dataset, min(chunk[0], num_rows - birth), offset) for birth, offset in offsets]
    return cast("Array", in_pieces(pieces))


def joined(parts: Sequence[Any]) -> Array:
    """Return arrays or columns end to end: as an array when all are arrays, else as a column."""
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    if all(isinstance(part, Following) for part in parts):
        return cast("Array", Following([life for part in parts for life in part.lives]))
    return cast("Array", in_pieces([piece for part in parts for piece in _pieces(part)]))


def _pieces(part: Any) -> list[Piece]:
    if isinstance(part, Pieces):
        return part.pieces
    return [Whole(part, part.packed_in if isinstance(part, Column) else "")]
