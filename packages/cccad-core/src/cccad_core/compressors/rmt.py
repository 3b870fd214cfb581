"""The backbone itself writes memory tokens (Recurrent Memory Transformer, arXiv 2207.06881).

A write passes `[memory, segment, memory again]` through the policy's own backbone; what becomes of the last part is the
new memory. So the weights that decide are those that remember, and the loss of the newest decisions trains them twice.
"""

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from cccad_core.compressors.base import Compressor, Segment, State, linear_flops
from cccad_core.compressors.latents import Show


@frozen(kw_only=True)
class RmtSpec:
    """The backbone writes memory tokens itself, behind the segment that it has just read."""

    num_latents: int = field(default=8, validator=validators.ge(1), metadata={"help": "tokens of memory"})

    def build(self, width: int) -> "Rmt":
        return Rmt(self, width)


class Rmt(Compressor):
    """State: `memory`, `b k d`, hidden states of the backbone, which its last norm bounds."""

    def __init__(self, spec: RmtSpec, width: int) -> None:
        super().__init__()
        self.num_latents = spec.num_latents
        self.initial = nn.Parameter(torch.randn(spec.num_latents, width))
        self.pen = nn.Parameter(torch.randn(spec.num_latents, width) * width**-0.5)
        self.show = Show(spec.num_latents, width)

    def begin(self, size: int) -> State:
        return {"memory": self.initial.expand(size, -1, -1)}

    def read(self, state: State) -> Tensor:
        prefix: Tensor = self.show(state["memory"])
        return prefix

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        if segment.think is None:
            raise ValueError("'rmt' writes with the policy's backbone: give the segment a 'think'")
        old, k, s = self.read(state), self.num_latents, segment.tokens.shape[1]
        sequence = torch.cat([old, segment.tokens, old + self.pen], 1)
        slots, mask = torch.arange(s + 2 * k, device=old.device), None
        if segment.mask is not None:  # the pen stands right behind the last real token, and does not see padding
            slots = slots - (slots >= k + s) * (s - segment.num_real())[:, None]  # b n
            real = torch.cat([old.new_ones(len(old), k), segment.mask, old.new_ones(len(old), k)], 1).bool()
            mask = (torch.ones_like(slots[0], dtype=torch.bool).expand(s + 2 * k, -1).tril() & real[:, None])[:, None]
            mask = mask | torch.eye(s + 2 * k, dtype=torch.bool, device=old.device)
        return {"memory": segment.think(sequence, slots, mask)[:, k + s :]}, {}

    def flops_per_write(self, num_tokens: int) -> int:
        return linear_flops(self.num_latents, self.show.project)

    def num_thought(self, num_tokens: int) -> int:
        return num_tokens + 2 * self.num_latents
