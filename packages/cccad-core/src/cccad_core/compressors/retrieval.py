"""Keep the newest segments in a bank, and show those that are most like the present (RA-DT, arXiv 2410.07071).

RA-DT searches with a frozen embedding, so its gradient flows through what was found and not through the search. Here
the choice of the top few is hard too, and segments that were not chosen get none; but each one chosen is mixed with a
learned token by a soft weight that grows with its likeness, and through that weight the keys learn what to look for.
"""

import torch
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import normalize

from cccad_core.compressors.base import Compressor, Segment, State, keep_rows, linear_flops
from cccad_core.compressors.latents import Look, Place, Show


@frozen(kw_only=True)
class RetrievalSpec:
    """Keep a bank of segments; show the newest and the few that are most like it."""

    max_segments: int = field(default=64, validator=validators.ge(2), metadata={"help": "segments in the bank"})
    top: int = field(default=3, validator=validators.ge(1), metadata={"help": "segments shown beside the newest"})
    tokens_per_segment: int = field(default=2, validator=validators.ge(1), metadata={"help": "tokens that sum one up"})
    num_heads: int = field(default=4, validator=validators.ge(1), metadata={"help": "attention heads of the fold"})
    mlp_ratio: int = field(
        default=2,
        validator=validators.ge(1),
        metadata={"help": "width of the hidden layer of the fold's perceptron, in widths of the model"},
    )

    def __attrs_post_init__(self) -> None:
        """Check what no single field can: raises ValueError."""
        if self.top >= self.max_segments:
            raise ValueError(f"'top' must be < max_segments = {self.max_segments}: {self.top}")

    @property
    def num_latents(self) -> int:
        """Tokens of memory: those of the segments shown."""
        return (self.top + 1) * self.tokens_per_segment

    def build(self, width: int) -> "Retrieval":
        return Retrieval(self, width)


class Retrieval(Compressor):
    """State: by segment, the newest last, `keys`, `b m d`, and `summaries`, `b m p d`; `num_kept`, `b`, are real."""

    def __init__(self, spec: RetrievalSpec, width: int) -> None:
        super().__init__()
        self.spec, self.num_latents, self.width = spec, spec.num_latents, width
        self.queries = nn.Parameter(torch.randn(spec.tokens_per_segment, width) * width**-0.5)
        self.vacant = nn.Parameter(torch.randn(spec.num_latents, width))
        self.place = Place(width)
        self.look = Look(width, spec.num_heads, spec.mlp_ratio)
        self.norm = nn.LayerNorm(width)
        self.key = nn.Linear(width, width, bias=False)
        self.sharpness = nn.Parameter(torch.tensor([2.0, 1.0]))  # of the likeness, and what is added to it
        self.show = Show(spec.num_latents, width)

    def begin(self, size: int) -> State:
        zeros = self.vacant.new_zeros(size, self.spec.max_segments, 1, 1)
        return {
            "keys": zeros[..., 0].expand(-1, -1, self.width),
            "summaries": zeros.expand(-1, -1, self.spec.tokens_per_segment, self.width),
            "num_kept": torch.zeros(size, dtype=torch.int64, device=zeros.device),
        }

    def read(self, state: State) -> Tensor:
        keys, summaries, top = state["keys"], state["summaries"], self.spec.top
        older = torch.arange(keys.shape[1] - 1, 0, -1, device=keys.device)  # how many segments ago
        likeness = (keys[:, :-1] @ keys[:, -1:].mT)[..., 0]  # b m-1
        likeness = likeness.masked_fill(older >= state["num_kept"][:, None], -torch.inf)
        best, chosen = likeness.topk(top, 1)  # b n
        index = chosen[..., None, None].expand(-1, -1, *summaries.shape[2:])
        shown = torch.cat([summaries[:, :-1].gather(1, index), summaries[:, -1:]], 1)  # b n+1 p d
        weight = torch.sigmoid(self.sharpness[0] * best.clamp(min=-1.0) + self.sharpness[1]) * best.isfinite()
        newest = (state["num_kept"] > 0).to(weight.dtype)[:, None]
        weight = torch.cat([weight, newest], 1)[..., None].expand(-1, -1, summaries.shape[2])
        weight = rearrange(weight, "b n p -> b (n p) 1")
        mixed = weight * rearrange(shown, "b n p d -> b (n p) d") + (1 - weight) * self.vacant
        prefix: Tensor = self.show(mixed)
        return prefix

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        queries = self.queries.expand(len(segment.tokens), -1, -1)
        fresh = self.norm(self.look(queries, self.place(segment), segment.mask))  # b p d
        key = normalize(self.key(fresh.mean(1, keepdim=True)), dim=-1)
        written = {
            "keys": torch.cat([state["keys"][:, 1:], key], 1),
            "summaries": torch.cat([state["summaries"][:, 1:], fresh[:, None]], 1),
            "num_kept": (state["num_kept"] + 1).clamp(max=self.spec.max_segments),
        }
        return keep_rows(written, state, segment.num_real() > 0), {}

    def flops_per_write(self, num_tokens: int) -> int:
        return self.look.flops(self.spec.tokens_per_segment, num_tokens) + linear_flops(1, self.key)
