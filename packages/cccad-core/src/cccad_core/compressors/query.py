"""Learned queries, self- and cross-attention over the old latents and the segment, replacing the latents at each write.

The mechanism of the user's description, with the old latents and the segment as keys and values.
"""

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from cccad_core.compressors.base import Compressor, Segment, State
from cccad_core.compressors.latents import Look, Place


@frozen(kw_only=True)
class QuerySpec:
    """Learned query tokens attend to the old latents and the segment; the result replaces the latents."""

    num_latents: int = field(default=8, validator=validators.ge(1), metadata={"help": "tokens of memory"})
    num_layers: int = field(
        default=2, validator=[validators.ge(1), validators.le(1_000)], metadata={"help": "layers of the fold"}
    )
    num_heads: int = field(default=4, validator=validators.ge(1), metadata={"help": "attention heads of the fold"})
    mlp_ratio: int = field(
        default=2,
        validator=validators.ge(1),
        metadata={"help": "width of the hidden layer of the fold's perceptron, in widths of the model"},
    )

    def build(self, width: int) -> "Query":
        return Query(self, width)


class Query(Compressor):
    """State: `latents`, `b k d`, normalised, so it cannot grow."""

    def __init__(self, spec: QuerySpec, width: int) -> None:
        super().__init__()
        self.num_latents = spec.num_latents
        self.initial = nn.Parameter(torch.randn(spec.num_latents, width))
        self.queries = nn.Parameter(torch.randn(spec.num_latents, width) * width**-0.5)
        self.place = Place(width)
        self.looks = nn.ModuleList(Look(width, spec.num_heads, spec.mlp_ratio) for _ in range(spec.num_layers))
        self.norm = nn.LayerNorm(width)
        self.show = nn.Linear(width, width, bias=False)

    def begin(self, size: int) -> State:
        return {"latents": self.norm(self.initial).expand(size, -1, -1)}

    def read(self, state: State) -> Tensor:
        prefix: Tensor = self.show(state["latents"])
        return prefix

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        old = state["latents"]
        sources = torch.cat([old, self.place(segment)], 1)
        mask = segment.mask
        if mask is not None:
            mask = torch.cat([mask.new_ones(old.shape[:2]), mask], 1)
        latents = self.queries.expand_as(old)
        for look in self.looks:
            latents = look(latents, sources, mask)
        return {"latents": self.norm(latents)}, {}

    def flops_per_write(self, num_tokens: int) -> int:
        num_sources = self.num_latents + num_tokens
        return sum(look.flops(self.num_latents, num_sources) for look in self.looks if isinstance(look, Look))
