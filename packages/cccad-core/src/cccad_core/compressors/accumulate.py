"""Append a few summary tokens of each segment to those of earlier ones, up to a bound.

The mechanism of AutoCompressor (arXiv 2305.14788, section 3) and Memo (arXiv 2510.19732); at the bound the oldest
summary is dropped, or merged with the next.
"""

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from cccad_core.compressors.base import Compressor, Segment, State, keep_rows
from cccad_core.compressors.latents import Look, Place, Show


@frozen(kw_only=True)
class AccumulateSpec:
    """Append summary tokens of each segment, up to a bound at which the oldest are dropped or merged."""

    num_summary: int = field(default=2, validator=validators.ge(1), metadata={"help": "tokens for each segment"})
    max_segments: int = field(default=8, validator=validators.ge(2), metadata={"help": "segments kept at once"})
    at_bound: str = field(
        default="merge-oldest",
        validator=validators.in_(("drop-oldest", "merge-oldest")),
        metadata={"help": "merged, the oldest summary is the mean of all segments that it stands for"},
    )
    num_heads: int = field(default=4, validator=validators.ge(1), metadata={"help": "attention heads of the fold"})
    mlp_ratio: int = field(
        default=2,
        validator=validators.ge(1),
        metadata={"help": "width of the hidden layer of the fold's perceptron, in widths of the model"},
    )

    @property
    def num_latents(self) -> int:
        """Tokens of memory when it is full; places not yet filled show learned tokens."""
        return self.num_summary * self.max_segments

    def build(self, width: int) -> "Accumulate":
        return Accumulate(self, width)


class Accumulate(Compressor):
    """State: `summaries`, `b k d`, normalised, the newest last, and `num_seen`, `b`, the segments so far."""

    def __init__(self, spec: AccumulateSpec, width: int) -> None:
        super().__init__()
        self.spec, self.num_latents = spec, spec.num_latents
        self.vacant = nn.Parameter(torch.randn(spec.num_latents, width))
        self.queries = nn.Parameter(torch.randn(spec.num_summary, width) * width**-0.5)
        self.place = Place(width)
        self.look = Look(width, spec.num_heads, spec.mlp_ratio)
        self.norm = nn.LayerNorm(width)
        self.show = Show(spec.num_latents, width)

    def begin(self, size: int) -> State:
        none = torch.zeros(size, dtype=torch.int64, device=self.vacant.device)
        return {"summaries": self.vacant.expand(size, -1, -1), "num_seen": none}

    def read(self, state: State) -> Tensor:
        prefix: Tensor = self.show(state["summaries"])
        return prefix

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        old, num_seen, p = state["summaries"], state["num_seen"], self.spec.num_summary
        mask = segment.mask
        if mask is not None:
            mask = torch.cat([mask.new_ones(old.shape[:2]), mask], 1)
        vectors = torch.cat([old, self.place(segment)], 1)  # the earlier summaries, then the segment
        fresh = self.norm(self.look(self.queries.expand(len(old), -1, -1), vectors, mask))
        kept = old[:, p:]
        if self.spec.at_bound == "merge-oldest":
            stands_for = (num_seen - self.spec.max_segments + 1).clamp(min=0)[:, None, None]  # 0: nothing falls out yet
            merged = (stands_for * old[:, :p] + old[:, p : 2 * p]) / (stands_for + 1)
            kept = torch.cat([merged, kept[:, p:]], 1)
        written = {"summaries": torch.cat([kept, fresh], 1), "num_seen": num_seen + 1}
        return keep_rows(written, state, segment.num_real() > 0), {}

    def flops_per_write(self, num_tokens: int) -> int:
        return self.look.flops(self.spec.num_summary, self.num_latents + num_tokens)
