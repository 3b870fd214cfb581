"""The fold: one loop over the writes of a pass, whatever their geometry. Gradients are cut at the horizon here."""

import torch
from attrs import define
from torch import Tensor

from cccad_core.batch import HistoryBatch
from cccad_core.compressors.base import (
    Compressor,
    Segment,
    State,
    Think,
    add_rows,
    detach,
    keep_rows,
    put_rows,
    take_rows,
)
from cccad_core.memory.moment import CALM, Moment
from cccad_core.memory.windows import Windows, Write


@define
class Fold:
    """What a fold leaves.

    `reads`: what all rows can read before the first write and after each; `state`: the last of every row; `auxiliary`:
    the compressor's own losses by name, summed over the writes, `b`.
    """

    reads: list[Tensor]
    state: State
    auxiliary: dict[str, Tensor]


@define
class Folded(Fold):
    """What the writes of a pass leave: its `windows`, and the `prefixes` that they show, as they arrange them."""

    windows: Windows
    prefixes: list[Tensor]

    @property
    def num_writes(self) -> Tensor:
        """Writes in each row, `b`, on the CPU."""
        return self.windows.num_writes

    @property
    def most_writes(self) -> int:
        """Writes in the row with the most."""
        return self.windows.most_writes

    def folded(self, batch: HistoryBatch, behind: int) -> list[tuple[Tensor, HistoryBatch]]:
        """Return latents with the transitions that were folded into them; see `Windows.folded`."""
        return self.windows.folded(self.prefixes, batch, behind)


def remember(
    compressor: Compressor,
    windows: Windows,
    tokens: Tensor,
    mask: Tensor,
    *,
    think: Think,
    horizon: int | None = None,
    moment: Moment = CALM,
) -> Folded:
    """Fold a stretch of *tokens*, of which *mask*, `b t`, hides padding, into memory, and show it to all windows.

    Rows begin with the learned memory. Where *moment* passes states, some begin with the final state of another row of
    this very stretch instead, which takes a fold without gradients before the one that counts.
    """
    writes, state = windows.writes(tokens, mask), compressor.begin(len(mask))
    if moment.lends(len(mask)):
        with torch.no_grad():
            final = fold(compressor, writes, state, think=think).state
        torch.clear_autocast_cache()  # or weights that were cast here would get no gradient in the second fold
        state = moment.lend(final, state)
    done = fold(compressor, writes, state, think=think, horizon=horizon)
    prefixes = moment.blur(windows.prefixes(done.reads))
    return Folded(done.reads, done.state, done.auxiliary, windows, prefixes)


def fold(
    compressor: Compressor, writes: list[Write], state: State, *, think: Think, horizon: int | None = None
) -> Fold:
    """Do every write, from *state* on.

    Gradients of a row's last window reach its *horizon* newest writes (all when None): the input state of every write
    that many rounds back is detached, so the newest writes always learn. Raises ValueError unless horizon >= 1.
    """
    if horizon is not None and horizon < 1:
        raise ValueError(f"'max_gradient_rounds' must be >= 1, or None for all: {horizon}")
    done = Fold([compressor.read(state)], state, {})
    size = len(done.reads[0])
    for write in writes:
        before = _cut(take_rows(done.state, write.rows), write.num_left, horizon)
        segment = Segment(tokens=write.tokens, mask=write.mask, think=think)
        after, losses = compressor.write(before, segment)
        done.state = put_rows(done.state, write.rows, after)
        done.reads.append(compressor.read(done.state))
        for name, loss in losses.items():
            total = done.auxiliary.get(name, loss.new_zeros(size))
            done.auxiliary[name] = add_rows(total, write.rows, loss)
    return done


def _cut(state: State, num_left: int | Tensor, horizon: int | None) -> State:
    """Return *state*, detached in the rows whose *num_left* writes from here on are as many as the horizon allows."""
    if horizon is None:
        return state
    if isinstance(num_left, int):
        return detach(state) if num_left % horizon == 0 else state
    return keep_rows(detach(state), state, num_left % horizon == 0)
