"""No memory at all: every decision sees its own token and nothing else, which shows what a task asks of memory."""

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from cccad_core.memory.attention import AttentionRecord
from cccad_core.memory.base import Decisions, Memory, MemoryState, Tokens
from cccad_core.memory.moment import CALM, Moment


@frozen(kw_only=True)
class MemorylessSpec:
    """Every decision from its own token alone, by residual layers as wide as those of a backbone."""

    num_layers: int = field(
        default=2, validator=[validators.ge(1), validators.le(1_000)], metadata={"help": "residual layers"}
    )
    mlp_ratio: int = field(
        default=4, validator=validators.ge(1), metadata={"help": "width of hidden layers, in widths of the model"}
    )
    stretch: int = field(
        default=50,
        validator=validators.ge(1),
        metadata={"help": "decisions of a training stretch for each write that a curriculum asks for, and one more"},
    )

    def check(self, width: int, slots: int) -> None:
        """Fit any width and any layout."""

    def build(self, width: int, slots: int) -> "Memoryless":
        return Memoryless(self, width, slots)


class Memoryless(Memory[MemoryState]):
    """A token-wise network; a life holds nothing but its counter of writes, which stays 0."""

    def __init__(self, spec: MemorylessSpec, width: int, slots: int) -> None:
        super().__init__()
        self.stretch, self.slots, self.num_layers = spec.stretch, slots, spec.num_layers
        self.layers = nn.ModuleList(_layer(width, spec.mlp_ratio) for _ in range(spec.num_layers))
        self.norm = nn.LayerNorm(width)

    def _think(self, tokens: Tensor) -> Tensor:
        """Return the hidden state of each of *tokens*, `... d`."""
        for layer in self.layers:
            tokens = tokens + layer(tokens)
        hidden: Tensor = self.norm(tokens)
        return hidden

    def forward(self, tokens: Tokens, *, horizon: int | None = None, moment: Moment = CALM) -> Decisions:
        asking = tokens.history[:, :: self.slots] if tokens.queries is None else tokens.queries
        return Decisions(hidden=[self._think(asking)])

    def length_of(self, num_writes: float) -> int:
        return int(self.stretch * (1 + num_writes))

    def begin(self, size: int) -> MemoryState:
        return MemoryState(num_writes=torch.zeros(size, dtype=torch.int64, device=self.device))

    def decide(
        self, state: MemoryState, token: Tensor, *, is_query: bool, record: AttentionRecord | None = None
    ) -> Tensor:
        return self._think(token[:, None])

    def settle(self, state: MemoryState, tokens: list[Tensor]) -> None:
        """Forget them."""


def _layer(width: int, mlp_ratio: int) -> nn.Module:
    hidden = mlp_ratio * width
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
