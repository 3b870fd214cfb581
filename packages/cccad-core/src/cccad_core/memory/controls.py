"""Compressors wrapped to take their memory away: what an agent's latents are worth is what it loses here."""

import torch
from torch import Tensor

from cccad_core.compressors.base import Compressor, Segment, State


class Wrapped(Compressor):
    """Begins, writes and costs as *inner* does."""

    def __init__(self, inner: Compressor) -> None:
        super().__init__()
        self.inner = inner
        self.num_latents, self.evicts = inner.num_latents, inner.evicts

    def begin(self, size: int) -> State:
        return self.inner.begin(size)

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        return self.inner.write(state, segment)

    def flops_per_write(self, num_tokens: int) -> int:
        return self.inner.flops_per_write(num_tokens)

    def num_thought(self, num_tokens: int) -> int:
        return self.inner.num_thought(num_tokens)


class ZeroedLatents(Wrapped):
    """Writes as ever, but the backbone reads zeros."""

    def read(self, state: State) -> Tensor:
        return torch.zeros_like(self.inner.read(state))


class SwappedLatents(Wrapped):
    """Writes as ever, but row *i* reads the latents of row *i + shift*: another life, on another task.

    All rows must write together, as they do where every episode is as long as the others.
    """

    def __init__(self, inner: Compressor, shift: int) -> None:
        super().__init__(inner)
        self.shift = shift

    def read(self, state: State) -> Tensor:
        return self.inner.read(state).roll(-self.shift, 0)
