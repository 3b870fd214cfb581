"""A pass over a batch: fold the segments one after the other, then decide in every window at once.

`Together`: all rows write at the same decisions, so windows and segments are slices. `Apart`: every row has its own
windows, which are gathered and padded.
"""

from typing import TYPE_CHECKING

import torch
from attrs import define, evolve, fields, frozen
from einops import rearrange, repeat
from torch import Tensor

from cccad_core.batch import HistoryBatch
from cccad_core.compressors.base import Segment, State, detach, keep_rows, put_rows, take_rows
from cccad_core.context import Piece, RollingContext
from cccad_core.reconstruction import Rebuilt

if TYPE_CHECKING:
    from cccad_core.policy import Policy


@define(kw_only=True)
class Folded:
    """What the writes of a pass leave.

    `prefixes`: of its windows, each `b k d`; `state`: the last of every row; `auxiliary`: losses by name, `b`;
    `writes`: how many were done, `b`.
    """

    prefixes: list[Tensor]
    state: State
    auxiliary: dict[str, Tensor]
    writes: Tensor


@frozen(kw_only=True)
class Together:
    """The windows *pieces*, the same for all rows, with a write between each two."""

    pieces: list[Piece]

    @property
    def newest(self) -> Tensor:
        """Where the last window begins to decide, `1`: in every row."""
        return torch.tensor([self.pieces[-1].start])

    def fold(self, policy: "Policy", tokens: Tensor, mask: Tensor, rounds: int | None, state: State) -> Folded:
        """Write between each two pieces, from *state* on; return the prefix that every piece sees."""
        compressor, slots = policy.compressor, policy.layout.slots
        writes = torch.zeros(len(mask), dtype=torch.int64)
        folded = Folded(prefixes=[compressor.read(state)], state=state, auxiliary={}, writes=writes)
        is_padded = not bool(mask.all())
        if is_padded and slots > 1:
            mask = repeat(mask, "b t -> b (t slots)", slots=slots)
        for index, piece in enumerate(self.pieces[:-1]):
            rounds_left = len(self.pieces) - 1 - index
            if rounds is not None and rounds_left % rounds == 0:
                state = detach(state)
            part = slice(piece.start * slots, piece.stop * slots)
            real = mask[:, part] if is_padded else None
            segment = Segment(tokens=tokens[:, part], mask=real, think=policy.backbone.think)
            state, losses = compressor.write(state, segment)
            folded.prefixes.append(compressor.read(state))
            folded.writes += 1
            for name, loss in losses.items():
                folded.auxiliary[name] = folded.auxiliary.get(name, 0.0) + loss
        folded.state = state
        return folded

    def decide(self, policy: "Policy", tokens: Tensor, batch: HistoryBatch, folded: Folded) -> Tensor:
        """Return the parameters of all decisions, `b t a`: windows of one length pass the backbone together."""
        layout, pieces, prefixes = policy.layout, self.pieces, folded.prefixes
        asked = layout.asking(batch.observations) if layout.asks else None
        told: dict[int, Tensor] = {}
        for together in _by_length([piece.stop - piece.raw_start for piece in pieces]):
            windows = [slice(pieces[i].raw_start * layout.slots, pieces[i].stop * layout.slots) for i in together]
            hidden = policy.backbone(
                torch.cat([prefixes[i] for i in together]),
                torch.cat([tokens[:, window] for window in windows]),
                None if asked is None else torch.cat([asked[:, window] for window in windows]),
            )
            parameters = policy.head(hidden[:, :: layout.slots])
            told.update(zip(together, parameters.chunk(len(together)), strict=True))
        return torch.cat([told[i][:, piece.start - piece.raw_start :] for i, piece in enumerate(pieces)], 1)

    def rebuild(self, policy: "Policy", batch: HistoryBatch, folded: Folded) -> list[Rebuilt]:
        """Rebuild, from the latents after each write, the transitions that lie wholly inside its segment's tokens."""
        latents, pieces, rebuilt = folded.prefixes[1:], self.pieces[:-1], []
        for together in _by_length([piece.stop - piece.start for piece in pieces]):
            parts = [slice(pieces[i].start, pieces[i].stop - policy.layout.behind) for i in together]
            segments = HistoryBatch.join([batch.at(part) for part in parts])
            rebuilt.append(policy.reconstruction(torch.cat([latents[i] for i in together]), segments))
        return rebuilt


def _by_length(lengths: list[int]) -> list[list[int]]:
    """Return the places of each distinct length."""
    return [[i for i, other in enumerate(lengths) if other == length] for length in dict.fromkeys(lengths)]


@frozen(kw_only=True)
class Apart:
    """Windows that every row cuts for itself, row by row; all fields are `n`, by window, but `num_writes`, `b`.

    Window *n* makes the decisions `starts:stops` of the row `rows`, shows raw ones from `raw_starts`, and comes after
    `rounds` writes of its row.
    """

    rows: Tensor
    rounds: Tensor
    raw_starts: Tensor
    starts: Tensor
    stops: Tensor
    num_writes: Tensor

    @classmethod
    def of(cls, context: RollingContext, ended: Tensor) -> "Apart":
        """Cut every row where its own episodes have *ended*, `b t`, and where its window is full."""
        cuts = [context.pieces(ended.shape[1], ends=torch.nonzero(row)[:, 0].tolist()) for row in ended.cpu()]
        windows = [
            (row, index, piece.raw_start, piece.start, piece.stop)
            for row, pieces in enumerate(cuts)
            for index, piece in enumerate(pieces)
        ]
        rows, rounds, raw_starts, starts, stops = torch.tensor(windows, device=ended.device).T
        num_writes = torch.tensor([len(pieces) - 1 for pieces in cuts], device=ended.device)
        return cls(rows=rows, rounds=rounds, raw_starts=raw_starts, starts=starts, stops=stops, num_writes=num_writes)

    @property
    def newest(self) -> Tensor:
        """Where each row's last window begins to decide, `b`."""
        return self.starts[self.rounds == self.num_writes[self.rows]]

    @property
    def _is_written(self) -> Tensor:
        """Whether a write comes after each window, `n`."""
        return self.rounds < self.num_writes[self.rows]

    def fold(self, policy: "Policy", tokens: Tensor, mask: Tensor, rounds: int | None, state: State) -> Folded:
        """Write after every window but a row's last, from *state* on; return all windows' prefixes as one, `n k d`."""
        compressor, slots = policy.compressor, policy.layout.slots
        writes = torch.zeros_like(self.num_writes)
        auxiliary: dict[str, Tensor] = {}
        seen = [compressor.read(state)]
        by_decision = rearrange(tokens, "b (t slots) d -> b t slots d", slots=slots)
        for index in range(int(self.num_writes.max())):
            which = torch.nonzero(self._is_written & (self.rounds == index))[:, 0]
            rows = self.rows[which]
            mine = take_rows(state, rows)
            if rounds is not None:
                rounds_left = self.num_writes[rows] - index
                mine = keep_rows(detach(mine), mine, rounds_left % rounds == 0)
            at, inside = _span(self.starts[which], self.stops[which], len(mask[0]))
            real = repeat(inside & mask[rows[:, None], at], "b s -> b (s slots)", slots=slots)
            folds = rearrange(by_decision[rows[:, None], at], "b s slots d -> b (s slots) d")
            written, losses = compressor.write(mine, Segment(tokens=folds, mask=real, think=policy.backbone.think))
            state, writes[rows] = put_rows(state, rows, written), index + 1
            seen.append(compressor.read(state))
            for name, loss in losses.items():
                auxiliary[name] = auxiliary.get(name, loss.new_zeros(len(mask))).index_add(0, rows, loss)
        prefixes = torch.stack(seen)[self.rounds, self.rows]
        return Folded(prefixes=[prefixes], state=state, auxiliary=auxiliary, writes=writes)

    def decide(self, policy: "Policy", tokens: Tensor, batch: HistoryBatch, folded: Folded) -> Tensor:
        """Return the parameters of all decisions, `b t a`: all windows pass the backbone together, padded."""
        slots, rows = policy.layout.slots, self.rows[:, None]
        at, inside = _span(self.raw_starts, self.stops, batch.length)
        windows = rearrange(tokens, "b (t slots) d -> b t slots d", slots=slots)[rows, at]
        asked = policy.layout.asking(batch.observations)[rows, at] if policy.layout.asks else None
        hidden = policy.backbone(folded.prefixes[0], rearrange(windows, "n w slots d -> n (w slots) d"), asked)
        parameters: Tensor = policy.head(hidden[:, ::slots])
        own = inside & (at >= self.starts[:, None])
        told = parameters.new_zeros(*batch.mask.shape, parameters.shape[-1])
        return told.index_put((rows.expand_as(at)[own], at[own]), parameters[own])

    def rebuild(self, policy: "Policy", batch: HistoryBatch, folded: Folded) -> list[Rebuilt]:
        """Rebuild, from the latents after each write, the transitions that lie wholly inside its segment's tokens."""
        which = torch.nonzero(self._is_written)[:, 0]
        at, inside = _span(self.starts[which], self.stops[which] - policy.layout.behind, batch.length)
        place = self.rows[which][:, None], at
        segments = evolve(batch, **{f.name: getattr(batch, f.name)[place] for f in fields(HistoryBatch)})
        segments = evolve(segments, mask=segments.mask & inside)
        return [policy.reconstruction(folded.prefixes[0][which + 1], segments)] if len(which) else []


def _span(starts: Tensor, stops: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return the decisions `starts:stops`, `n s`, padded to the longest, and where they are no padding."""
    at = starts[:, None] + torch.arange(int((stops - starts).max()), device=starts.device)
    return at.clamp(max=length - 1), at < stops[:, None]
