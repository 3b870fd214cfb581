"""A memory that is not ours, in one file: a GRU that reads a whole life, without a window and without writes.

In a spec, from `experiments/`:

    imports = ["../plugins/gru_memory.py"]

    [policy.memory]
    kind = "plain-gru"

`cccad check memory plain-gru --imports plugins/gru_memory.py` puts it to the laws of a memory.
"""

import torch
from attrs import define, field, frozen, validators
from cccad_core.memory.attention import AttentionRecord
from cccad_core.memory.base import Decisions, Memory, MemoryState, Tokens
from cccad_core.memory.moment import CALM, Moment
from cccad_core.registry import register
from torch import Tensor, nn


@register("memory", "plain-gru")
@frozen(kw_only=True)
class PlainGruSpec:
    """One vector that a GRU changes at every token (arXiv 1406.1078)."""

    segment: int = field(
        default=52,
        validator=validators.ge(1),
        metadata={"help": "decisions of a training stretch for each write that a curriculum asks for, and one more"},
    )

    def check(self, width: int, slots: int) -> None:
        """Fit any width and any layout."""

    def build(self, width: int, slots: int) -> "PlainGru":
        """Return the memory."""
        return PlainGru(self.segment, width, slots)


@define(kw_only=True)
class PlainGruState(MemoryState):
    """`hidden`, `b d`: all that a life remembers."""

    hidden: Tensor


class PlainGru(Memory[PlainGruState]):
    """The hidden state after a token decides; gradients flow through whole stretches, whatever the horizon."""

    def __init__(self, segment: int, width: int, slots: int) -> None:
        super().__init__()
        self.segment, self.slots = segment, slots
        self.birth = nn.Parameter(torch.zeros(width))
        self.gru = nn.GRU(width, width, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def _read(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Return the hidden state after each of *tokens*, `b n d`, read one after the other from *hidden*, `b d`."""
        states: Tensor = self.gru(tokens, hidden[None].contiguous())[0]
        return states

    def forward(self, tokens: Tokens, *, horizon: int | None = None, moment: Moment = CALM) -> Decisions:
        size, _, width = tokens.history.shape
        birth = self.birth.expand(size, width)
        states = self._read(tokens.history, birth)
        if tokens.queries is None:
            return Decisions(hidden=[self.norm(states[:, :: self.slots])])
        before = torch.cat([birth[:, None], states[:, self.slots - 1 :: self.slots][:, :-1]], 1)
        asked = self._read(tokens.queries.reshape(-1, 1, width), before.reshape(-1, width))
        return Decisions(hidden=[self.norm(asked.reshape(size, -1, width))])

    def length_of(self, num_writes: float) -> int:
        return int(self.segment * (1 + num_writes))

    def begin(self, size: int) -> PlainGruState:
        no_writes = torch.zeros(size, dtype=torch.int64, device=self.device)
        return PlainGruState(hidden=self.birth.detach().repeat(size, 1), num_writes=no_writes)

    def decide(
        self, state: PlainGruState, token: Tensor, *, is_query: bool, record: AttentionRecord | None = None
    ) -> Tensor:
        after = self._read(token[:, None], state.hidden)
        if not is_query:
            state.hidden = after[:, 0]
        hidden: Tensor = self.norm(after)
        return hidden

    def settle(self, state: PlainGruState, tokens: list[Tensor]) -> None:
        for token in tokens:
            state.hidden = self._read(token[:, None], state.hidden)[:, 0]
