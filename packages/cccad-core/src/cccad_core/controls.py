"""Compressors wrapped to take their memory away: what an agent's latents are worth is what it loses here."""

import torch
from torch import Tensor

from cccad_core.compressors.base import Compressor, Segment, State


class ZeroedLatents(Compressor):
    """Writes as ever, but the backbone reads zeros."""

    def __init__(self, inner: Compressor) -> None:
        super().__init__()
        self.inner = inner
        self.num_latents = inner.num_latents

    def begin(self, size: int) -> State:
        return self.inner.begin(size)

    def read(self, state: State) -> Tensor:
        return torch.zeros_like(self.inner.read(state))

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        return self.inner.write(state, segment)


class SwappedLatents(Compressor):
    """Writes as ever, but row *i* reads the latents of row *i + shift*: another life, on another task.

    All rows must write together, as they do where every episode is as long as the others.
    """

    def __init__(self, inner: Compressor, shift: int) -> None:
        super().__init__()
        self.inner, self.shift = inner, shift
        self.num_latents = inner.num_latents

    def begin(self, size: int) -> State:
        return self.inner.begin(size)

    def read(self, state: State) -> Tensor:
        return self.inner.read(state).roll(-self.shift, 0)

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        return self.inner.write(state, segment)
