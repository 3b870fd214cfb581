"""Convolve the segment, let each latent pool what it looks for, and fold that into memory through a GRU cell.

The recurrent cell of arXiv 1406.1078, one for all latents, over segments instead of single tokens.
"""

from typing import Any

import torch
from attrs import field, frozen, validators
from cccad_core.compressors.base import Compressor, Segment, State
from einops import rearrange
from torch import Tensor, nn


def _is_odd(_: Any, attribute: Any, value: int) -> None:
    if value % 2 == 0:
        raise ValueError(f"'{attribute.name}' must be odd, so that a token stands in the middle: {value}")


@frozen(kw_only=True)
class ConvGruSpec:
    """A short convolution, a pooled reading per latent, and a GRU cell that decides what enters the memory."""

    num_latents: int = field(default=4, validator=validators.ge(1), metadata={"help": "tokens of memory"})
    kernel_size: int = field(default=3, validator=[validators.ge(1), _is_odd], metadata={"help": "tokens seen at once"})

    def build(self, width: int) -> "ConvGru":
        return ConvGru(self, width)


class ConvGru(Compressor):
    """State: `memory`, `b k d`, within -1 and 1 as a GRU cell's state is."""

    def __init__(self, spec: ConvGruSpec, width: int) -> None:
        super().__init__()
        self.num_latents = spec.num_latents
        self.initial = nn.Parameter(torch.randn(spec.num_latents, width))
        self.slots = nn.Parameter(torch.randn(spec.num_latents, width) * width**-0.5)
        self.norm = nn.LayerNorm(width)
        self.convolve = nn.Conv1d(width, width, spec.kernel_size, padding=spec.kernel_size // 2)
        self.score = nn.Linear(width, spec.num_latents, bias=False)
        self.cell = nn.GRUCell(width, width)
        self.show = nn.Linear(width, width, bias=False)

    def begin(self, size: int) -> State:
        return {"memory": self.initial.tanh().expand(size, -1, -1)}

    def read(self, state: State) -> Tensor:
        prefix: Tensor = self.show(state["memory"]) + self.slots
        return prefix

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        old, tokens, mask = state["memory"], self.norm(segment.tokens), segment.mask
        if mask is not None:
            tokens = tokens.masked_fill(~mask[..., None], 0.0)  # what the convolution sees past any end
        features = rearrange(self.convolve(rearrange(tokens, "b s d -> b d s")), "b d s -> b s d").relu()
        scores = self.score(features)  # b s k
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None], -1e9)  # finite: padding alone must not divide 0 by 0
        pooled = torch.einsum("bsk,bsd->bkd", scores.softmax(1), features)
        memory = self.cell(rearrange(pooled, "b k d -> (b k) d"), rearrange(old, "b k d -> (b k) d"))
        return {"memory": rearrange(memory, "(b k) d -> b k d", b=len(old))}, {}

    def flops_per_write(self, num_tokens: int) -> int:
        by_token = self.convolve.weight.numel() + 2 * self.score.weight.numel()  # score, then pool
        by_latent = self.cell.weight_ih.numel() + self.cell.weight_hh.numel()
        return 2 * (num_tokens * by_token + self.num_latents * by_latent)
