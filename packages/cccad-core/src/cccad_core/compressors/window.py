"""Remember nothing: what leaves the window is forgotten, which is plain Algorithm Distillation (arXiv 2210.14215)."""

import torch
from attrs import frozen
from torch import Tensor

from cccad_core.compressors.base import Compressor, Segment, State


@frozen(kw_only=True)
class WindowSpec:
    """Remember nothing: plain Algorithm Distillation over a rolling window."""

    num_latents = 0

    def build(self, width: int) -> "Window":
        return Window(width)


class Window(Compressor):
    """A state of no content; the prefix is empty."""

    num_latents = 0
    nothing: Tensor

    def __init__(self, width: int, *, evicts: bool = True) -> None:
        super().__init__()
        self.evicts = evicts
        self.register_buffer("nothing", torch.zeros(0, width), persistent=False)

    def begin(self, size: int) -> State:
        return {"nothing": self.nothing.expand(size, -1, -1)}

    def read(self, state: State) -> Tensor:
        return state["nothing"]

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        return state, {}

    def flops_per_write(self, num_tokens: int) -> int:
        return 0
