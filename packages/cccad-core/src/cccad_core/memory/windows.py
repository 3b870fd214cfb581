"""Where the windows, segments and writes of a pass lie: geometry alone, worked out on the CPU before the pass.

It is a function of the rolling context, of where episodes end and of a seed. It knows no policy and no weight. Where
all rows write at the same decisions, windows and segments are slices (`SharedWindows`); where every row writes at its
own, they are gathered and padded (`RowWindows`). The fold, the policy and the objectives treat both alike.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from attrs import define
from einops import rearrange, repeat
from torch import Tensor

from cccad_core.batch import NAMES, HistoryBatch


class Window(NamedTuple):
    """The decisions `start:stop` of a pass, made in one window that also shows the raw ones from `raw_start`."""

    raw_start: int
    start: int
    stop: int


class Shown(NamedTuple):
    """What the backbone reads of windows of one size: prefixes `n k d`, tokens `n s d`, and `n t d` queries, if any."""

    prefixes: Tensor
    tokens: Tensor
    queries: Tensor | None


class Write(NamedTuple):
    """One round of writes, at most one in a row.

    `rows`, `n`, are the rows that write, None for all; `tokens`, `n s d`, what they fold in, of which `mask`, `n s`,
    hides padding (None: there is none); `num_left` the writes of these rows that remain, this one included, `n`, or
    one number for all.
    """

    rows: Tensor | None
    tokens: Tensor
    mask: Tensor | None
    num_left: Tensor | int


class Windows(ABC):
    """The windows of a pass, with a write between each two of a row."""

    @property
    @abstractmethod
    def most_writes(self) -> int:
        """Writes in the row with the most."""

    @property
    @abstractmethod
    def num_writes(self) -> Tensor:
        """Writes in each row, `b`, on the CPU."""

    @property
    @abstractmethod
    def newest(self) -> Tensor:
        """Where each row's last window begins to decide, `b`, on the CPU."""

    @abstractmethod
    def writes(self, tokens: Tensor, mask: Tensor) -> list[Write]:
        """Return the writes of a pass, the oldest first; of its *tokens*, *mask*, `b t`, hides padding."""

    @abstractmethod
    def prefixes(self, reads: list[Tensor]) -> list[Tensor]:
        """Return the prefixes of the windows, `n k d`, from what all rows could read before and after every write."""

    @abstractmethod
    def shown(self, prefixes: list[Tensor], tokens: Tensor, queries: Tensor | None) -> list[Shown]:
        """Return what the backbone reads, one entry for all windows that pass it together."""

    @abstractmethod
    def in_time(self, values: list[Tensor]) -> Tensor:
        """Return *values*, one tensor `n t ...` for each entry of `shown`, in the order of the decisions, `b t ...`."""

    @abstractmethod
    def folded(self, prefixes: list[Tensor], batch: HistoryBatch, behind: int) -> list[tuple[Tensor, HistoryBatch]]:
        """Return latents, `n k d`, with the transitions, `n s`, that lie wholly inside the tokens folded into them.

        The tokens of a segment do not tell its last *behind* transitions wholly.
        """


# All rows together --------------------------------------------------------------------------------------------------


@define
class SharedWindows(Windows):
    """*pieces*, the same windows in all *size* rows; a decision takes *slots*. *is_padded*: some rows end early."""

    pieces: list[Window]
    size: int
    slots: int
    is_padded: bool

    @property
    def most_writes(self) -> int:
        return len(self.pieces) - 1

    @property
    def num_writes(self) -> Tensor:
        return torch.full((self.size,), self.most_writes)

    @property
    def newest(self) -> Tensor:
        return torch.full((self.size,), self.pieces[-1].start)

    def writes(self, tokens: Tensor, mask: Tensor) -> list[Write]:
        # No mask at all where no row is padded: a compressor then need not mask its attention.
        real = repeat(mask, "b t -> b (t slots)", slots=self.slots) if self.is_padded and self.slots > 1 else mask
        writes = []
        # The last window is not written: no decision of the pass comes after it. How many writes are left is a number
        # here, not a tensor, so that the fold never waits for a device to learn it.
        for index, piece in enumerate(self.pieces[:-1]):
            part = slice(piece.start * self.slots, piece.stop * self.slots)
            writes.append(
                Write(None, tokens[:, part], real[:, part] if self.is_padded else None, self.most_writes - index)
            )
        return writes

    def prefixes(self, reads: list[Tensor]) -> list[Tensor]:
        return reads

    def _groups(self) -> list[list[int]]:
        """Return the windows by how many decisions they show: those of one length pass the backbone together."""
        # Where a full window triggers, all but the last show as many.
        return _by_value([piece.stop - piece.raw_start for piece in self.pieces])

    def shown(self, prefixes: list[Tensor], tokens: Tensor, queries: Tensor | None) -> list[Shown]:
        shown = []
        for group in self._groups():
            windows = [(self.pieces[i].raw_start, self.pieces[i].stop) for i in group]
            asked = None if queries is None else torch.cat([queries[:, start:stop] for start, stop in windows])
            raw = torch.cat([tokens[:, start * self.slots : stop * self.slots] for start, stop in windows])
            shown.append(Shown(torch.cat([prefixes[i] for i in group]), raw, asked))
        return shown

    def in_time(self, values: list[Tensor]) -> Tensor:
        by_window: dict[int, Tensor] = {}
        for group, together in zip(self._groups(), values, strict=True):
            # One below the other along the rows, as `shown` has joined them.
            by_window.update(zip(group, together.chunk(len(group)), strict=True))
        # What a window carries was decided in the one before, with more to look at.
        return torch.cat([by_window[i][:, p.start - p.raw_start :] for i, p in enumerate(self.pieces)], 1)

    def folded(self, prefixes: list[Tensor], batch: HistoryBatch, behind: int) -> list[tuple[Tensor, HistoryBatch]]:
        # The first prefix is the memory at birth, before any write.
        latents, pieces, folded = prefixes[1:], self.pieces[:-1], []
        for group in _by_value([piece.stop - piece.start for piece in pieces]):
            segments = [batch.at(slice(pieces[i].start, pieces[i].stop - behind)) for i in group]
            folded.append((torch.cat([latents[i] for i in group]), HistoryBatch.join(segments)))
        return folded


def _by_value(values: list[int]) -> list[list[int]]:
    """Return the places of each distinct value."""
    # By first appearance, so that the order in which windows are summed follows from the geometry alone.
    return [[i for i, other in enumerate(values) if other == value] for value in dict.fromkeys(values)]


# Every row for itself -----------------------------------------------------------------------------------------------


class RowWindows(Windows):
    """Windows that every row cuts for itself, row by row, in the order of *pieces*.

    Everything is an index worked out on the CPU and moved to *device*: which windows write, when, and where what they
    decide belongs. Window *n* belongs to the row `rows` and comes after `rounds` writes of it, both `n`.
    """

    rows: Tensor
    rounds: Tensor
    starts: Tensor
    stops: Tensor

    def __init__(self, pieces: list[list[Window]], slots: int, device: torch.device) -> None:
        windows = [(row, index, *piece) for row, cut in enumerate(pieces) for index, piece in enumerate(cut)]
        self.rows, self.rounds, raw_starts, self.starts, self.stops = torch.tensor(windows).T
        self._num_writes = torch.tensor([len(cut) - 1 for cut in pieces])
        self.slots, self.length, self.device = slots, pieces[0][-1].stop, device
        self.is_written = self.rounds < self._num_writes[self.rows]
        at, is_inside = _span(raw_starts, self.stops, self.length)
        own = (is_inside & (at >= self.starts[:, None])).nonzero(as_tuple=True)  # carried decisions are made elsewhere
        self._shown = _on(device, self.rows[:, None], at)
        # Each decision of a row is some window's own exactly once, so what is put together by these is never added up.
        self._own, self._places = _on(device, *own), _on(device, self.rows[own[0]], at[own])
        self._segments = [self._segment(index) for index in range(self.most_writes)]

    @property
    def most_writes(self) -> int:
        return int(self._num_writes.max())

    @property
    def num_writes(self) -> Tensor:
        return self._num_writes

    @property
    def newest(self) -> Tensor:
        return self.starts[self.rounds == self._num_writes[self.rows]]

    def _segment(self, index: int) -> tuple[Tensor, ...]:
        """Return which rows write after their window number *index*, where, how far, and how many writes remain."""
        which = torch.nonzero(self.is_written & (self.rounds == index))[:, 0]
        rows = self.rows[which]
        at, is_inside = _span(self.starts[which], self.stops[which], self.length)
        return _on(self.device, rows, at, is_inside, self._num_writes[rows] - index)

    def writes(self, tokens: Tensor, mask: Tensor) -> list[Write]:
        by_decision = rearrange(tokens, "b (t slots) d -> b t slots d", slots=self.slots)
        writes = []
        for rows, at, is_inside, num_left in self._segments:
            # A short segment is filled with decisions that follow it: without this mask a write would see the future.
            place = rows[:, None], at
            real = repeat(is_inside & mask[place], "n s -> n (s slots)", slots=self.slots)
            writes.append(Write(rows, rearrange(by_decision[place], "n s slots d -> n (s slots) d"), real, num_left))
        return writes

    def prefixes(self, reads: list[Tensor]) -> list[Tensor]:
        # What rows read that had no write in a round stays as it was, so the round alone tells which read is theirs.
        return [torch.stack(reads)[_on(self.device, self.rounds, self.rows)]]

    def shown(self, prefixes: list[Tensor], tokens: Tensor, queries: Tensor | None) -> list[Shown]:
        # No mask: what fills a short window up stands behind its own, where causal attention hides it, and `in_time`
        # drops what is decided there.
        windows = rearrange(tokens, "b (t slots) d -> b t slots d", slots=self.slots)[self._shown]
        asked = None if queries is None else queries[self._shown]
        return [Shown(prefixes[0], rearrange(windows, "n w slots d -> n (w slots) d"), asked)]

    def in_time(self, values: list[Tensor]) -> Tensor:
        [together] = values
        empty = together.new_zeros(len(self._num_writes), self.length, *together.shape[2:])
        arranged: Tensor = empty.index_put(self._places, together[self._own])
        return arranged

    def folded(self, prefixes: list[Tensor], batch: HistoryBatch, behind: int) -> list[tuple[Tensor, HistoryBatch]]:
        which = torch.nonzero(self.is_written)[:, 0]
        if not len(which):
            return []
        # Window + 1 is the next of the same row, as rows stand one after the other and a row's last is never written:
        # its prefix is what was read right after this write.
        at, is_inside = _span(self.starts[which], self.stops[which] - behind, self.length)
        rows, at, is_inside, later = _on(self.device, self.rows[which][:, None], at, is_inside, which + 1)
        segments = HistoryBatch(**{name: getattr(batch, name)[rows, at] for name in NAMES})
        segments.mask = segments.mask & is_inside
        return [(prefixes[0][later], segments)]


def _on(device: torch.device, *values: Tensor) -> tuple[Tensor, ...]:
    return tuple(value.to(device, non_blocking=True) for value in values)


def _span(starts: Tensor, stops: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return the decisions `starts:stops`, `n s`, padded to the longest, and where they are no padding."""
    at = starts[:, None] + torch.arange(int((stops - starts).max()))
    # Clamped so that it can be gathered; what lies there is hidden, whichever decision it is.
    return at.clamp(max=length - 1), at < stops[:, None]
