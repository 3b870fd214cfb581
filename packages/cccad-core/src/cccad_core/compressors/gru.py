"""A recurrent cell reads the segment token by token (gated recurrent unit, arXiv 1406.1078).

The recurrent memory of arXiv 1611.02779 (RL squared), updated at the writes instead of at the decisions.
"""

import torch
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn

from cccad_core.compressors.base import Compressor, Segment, State


@frozen(kw_only=True)
class GruSpec:
    """A recurrent cell runs over each segment; its hidden state is shown as a few tokens."""

    num_latents: int = field(default=8, validator=validators.ge(1), metadata={"help": "tokens of memory"})
    hidden_width: int = field(
        default=128, validator=validators.ge(1), metadata={"help": "features of the cell's state"}
    )

    def build(self, width: int) -> "Gru":
        return Gru(self, width)


class Gru(Compressor):
    """State: `hidden`, `b h`, here `h` its features, within -1 and 1."""

    def __init__(self, spec: GruSpec, width: int) -> None:
        super().__init__()
        self.num_latents = spec.num_latents
        self.initial = nn.Parameter(torch.randn(spec.hidden_width))
        self.norm = nn.LayerNorm(width)
        self.cell = nn.GRU(width, spec.hidden_width, batch_first=True)
        self.show = nn.Linear(spec.hidden_width, spec.num_latents * width)

    def begin(self, size: int) -> State:
        return {"hidden": self.initial.tanh().expand(size, -1)}

    def read(self, state: State) -> Tensor:
        prefix: Tensor = rearrange(self.show(state["hidden"]), "b (k d) -> b k d", k=self.num_latents)
        return prefix

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        old = state["hidden"]
        outputs, last = self.cell(self.norm(segment.tokens), old[None].contiguous())  # b s h, 1 b h
        if segment.mask is None:
            return {"hidden": last[0]}, {}
        num_real = segment.num_real()
        at_end = outputs[torch.arange(len(old), device=old.device), (num_real - 1).clamp(min=0)]  # padding comes later
        return {"hidden": torch.where(num_real[:, None] > 0, at_end, old)}, {}

    def flops_per_write(self, num_tokens: int) -> int:
        return 6 * num_tokens * self.cell.hidden_size * (self.cell.input_size + self.cell.hidden_size)
