"""Averages of what has left the window, over a life, over fading time scales and over parts of the newest segment.

Nothing in the fold is learned: the baseline that says what averaging alone can remember (compare the mean-pooled
memories of the Compressive Transformer, arXiv 1911.05507, section 3.2).
"""

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from cccad_core.compressors.base import Compressor, Segment, State
from cccad_core.compressors.latents import Show


@frozen(kw_only=True)
class MeanPoolSpec:
    """Running and pooled averages: of the whole life, of several fading time scales, and of the newest segment."""

    half_lives_tokens: tuple[float, ...] = field(
        default=(16.0, 128.0, 1024.0),
        validator=validators.deep_iterable(validators.gt(0.0)),
        metadata={"help": "tokens after which a fading average has half forgotten"},
    )
    num_blocks: int = field(default=4, validator=validators.ge(0), metadata={"help": "means of the newest segment"})

    @property
    def num_latents(self) -> int:
        """Tokens of memory: the mean of the life, one for each half-life, and the blocks."""
        return 1 + len(self.half_lives_tokens) + self.num_blocks

    def build(self, width: int) -> "MeanPool":
        return MeanPool(self, width)


class MeanPool(Compressor):
    """State: `means`, `b k d`, convex combinations of tokens, and `num_seen`, `b`, the tokens behind the first mean."""

    keep: Tensor

    def __init__(self, spec: MeanPoolSpec, width: int) -> None:
        super().__init__()
        self.num_latents, self.num_blocks = spec.num_latents, spec.num_blocks
        self.register_buffer("keep", 0.5 ** (1 / torch.tensor(spec.half_lives_tokens)), persistent=False)
        self.initial = nn.Parameter(torch.randn(spec.num_latents, width) * width**-0.5)
        self.show = Show(spec.num_latents, width)

    def begin(self, size: int) -> State:
        none = torch.zeros(size, dtype=torch.int64, device=self.keep.device)
        return {"means": self.initial.expand(size, -1, -1), "num_seen": none}

    def read(self, state: State) -> Tensor:
        prefix: Tensor = self.show(state["means"])
        return prefix

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        num_real, places = (
            segment.num_real()[:, None, None],
            torch.arange(segment.tokens.shape[1], device=self.keep.device),
        )
        is_real, num_before = places < num_real, state["num_seen"][:, None, None]  # b 1 s, b 1 1
        of_life = is_real / (num_before + num_real).clamp(min=1)
        keep = self.keep[:, None]
        fading = is_real * (1 - keep) * keep ** (num_real - 1 - places).clamp(min=0)  # b e s
        block = places * self.num_blocks // num_real.clamp(min=1)  # b 1 s
        in_block = is_real & (block == torch.arange(self.num_blocks, device=places.device)[:, None])  # b q s
        size = in_block.sum(2, keepdim=True)
        weights = torch.cat([of_life, fading, in_block / size.clamp(min=1)], 1)  # b k s
        kept = torch.cat(
            [num_before / (num_before + num_real).clamp(min=1), keep**num_real, (size == 0).float()], 1
        )  # b k 1
        means = kept * state["means"] + weights @ segment.tokens.masked_fill(~is_real.mT, 0.0)
        means = torch.where(num_real > 0, means, state["means"])
        return {"means": means, "num_seen": state["num_seen"] + num_real[:, 0, 0]}, {}

    def flops_per_write(self, num_tokens: int) -> int:
        return 2 * num_tokens * self.initial.numel()
