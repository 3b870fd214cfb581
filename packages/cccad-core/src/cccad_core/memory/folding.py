"""The fold: one loop over the writes of a pass, whatever their geometry. Gradients are cut at the horizon here."""

import torch
from attrs import define
from torch import Tensor

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
class Memory:
    """What the writes of a pass leave.

    `prefixes`: what its windows see, as its `Windows` arrange them; `state`: the last of every row; `auxiliary`: the
    compressor's own losses by name, summed over the writes, `b`.
    """

    prefixes: list[Tensor]
    state: State
    auxiliary: dict[str, Tensor]


def remember(
    compressor: Compressor,
    windows: Windows,
    tokens: Tensor,
    mask: Tensor,
    *,
    think: Think,
    horizon: int | None = None,
    moment: Moment = CALM,
) -> Memory:
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
    memory = fold(compressor, writes, state, think=think, horizon=horizon)
    memory.prefixes = moment.blur(windows.prefixes(memory.prefixes))
    return memory


def fold(
    compressor: Compressor, writes: list[Write], state: State, *, think: Think, horizon: int | None = None
) -> Memory:
    """Do every write, from *state* on; `prefixes` are what all rows can read before the first one and after each.

    Gradients of a row's last window reach its *horizon* newest writes (all when None): the input state of every write
    that many rounds back is detached, so the newest writes always learn. Raises ValueError unless horizon >= 1.
    """
    if horizon is not None and horizon < 1:
        raise ValueError(f"'max_gradient_rounds' must be >= 1, or None for all: {horizon}")
    memory = Memory([compressor.read(state)], state, {})
    size = len(memory.prefixes[0])
    for write in writes:
        before = _cut(take_rows(memory.state, write.rows), write.num_left, horizon)
        segment = Segment(tokens=write.tokens, mask=write.mask, think=think)
        after, losses = compressor.write(before, segment)
        memory.state = put_rows(memory.state, write.rows, after)
        memory.prefixes.append(compressor.read(memory.state))
        for name, loss in losses.items():
            total = memory.auxiliary.get(name, loss.new_zeros(size))
            memory.auxiliary[name] = add_rows(total, write.rows, loss)
    return memory


def _cut(state: State, num_left: int | Tensor, horizon: int | None) -> State:
    """Return *state*, detached in the rows whose *num_left* writes from here on are as many as the horizon allows."""
    if horizon is None:
        return state
    if isinstance(num_left, int):
        return detach(state) if num_left % horizon == 0 else state
    return keep_rows(detach(state), state, num_left % horizon == 0)
