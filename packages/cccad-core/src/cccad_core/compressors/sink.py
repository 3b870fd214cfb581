"""Keep the first tokens of a life for ever, beside the rolling window (StreamingLLM, arXiv 2309.17453)."""

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from cccad_core.compressors.base import Compressor, Segment, State


@frozen(kw_only=True)
class SinkSpec:
    """Keep the first tokens of a life as they are, and forget whatever else leaves the window."""

    num_sinks: int = field(default=4, validator=validators.ge(1), metadata={"help": "tokens kept for ever"})

    @property
    def num_latents(self) -> int:
        """Tokens of memory: the sinks."""
        return self.num_sinks

    def build(self, width: int) -> "Sink":
        return Sink(self, width)


class Sink(Compressor):
    """State: `tokens`, `b k d`, of which the first `num_kept`, `b`, are real; the others are learned place holders."""

    def __init__(self, spec: SinkSpec, width: int) -> None:
        super().__init__()
        self.num_latents = spec.num_sinks
        self.vacant = nn.Parameter(torch.randn(spec.num_sinks, width) * width**-0.5)
        self.slots = nn.Parameter(torch.randn(spec.num_sinks, width) * width**-0.5)

    def begin(self, size: int) -> State:
        none = torch.zeros(size, dtype=torch.int64, device=self.vacant.device)
        return {"tokens": self.vacant.expand(size, -1, -1), "num_kept": none}

    def read(self, state: State) -> Tensor:
        return state["tokens"] + self.slots

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        old, num_kept, tokens = state["tokens"], state["num_kept"], segment.tokens
        source = torch.arange(self.num_latents, device=tokens.device) - num_kept[:, None]  # b k
        is_new = (source >= 0) & (source < segment.num_real()[:, None])
        index = source.clamp(0, tokens.shape[1] - 1)[..., None].expand(-1, -1, tokens.shape[2])
        kept = torch.where(is_new[..., None], tokens.gather(1, index), old)
        return {"tokens": kept, "num_kept": num_kept + is_new.sum(1)}, {}

    def flops_per_write(self, num_tokens: int) -> int:
        return 0
