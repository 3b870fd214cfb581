"""The contract of a memory, what a policy carries from one decision to the next: `(tokens, state) -> (hidden, state)`.

A spec class of kind `memory` has, besides its fields:

- `check(width, slots)`, which raises ValueError where sizes do not fit one another, before anything is built;
- `build(width, slots)`, which returns a `Memory` for tokens of that *width*, *slots* of them to a transition.

It may have more, which is asked for by `isinstance`: see the protocols at the end. A memory makes its decisions twice
over: all of a batch in one pass, for training, and those of a life one at a time. Both must be the same, which is the
first of the laws in `cccad_core.laws.memory`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import torch
from attrs import asdict, define
from torch import Tensor, nn

from cccad_core.batch import Flags, HistoryBatch
from cccad_core.memory.attention import AttentionRecord
from cccad_core.memory.moment import CALM, Moment


@define(kw_only=True)  # not frozen: see `cccad_core.compressors.base.Segment`
class Tokens:
    """What a memory reads in a pass over a batch.

    `history`, `b (t slots) d`, are the tokens of its transitions, in order. Where a layout asks with `queries`,
    `b t d`, decision *t* is made by query *t*, which sees the transitions before *t* and leaves no trace; without
    (None) it is made by the first token of transition *t*, which stays. `mask`, `b t`, is False at padding, which
    stands at the end of a row. `flags` are those of the batch, on the CPU.
    """

    history: Tensor
    queries: Tensor | None
    mask: Tensor
    flags: Flags


class Writes(Protocol):
    """What the writes of a pass left, for those who ask what was folded in: counts are on the CPU."""

    @property
    def num_writes(self) -> Tensor:
        """Writes in each row, `b`."""

    @property
    def most_writes(self) -> int:
        """Writes in the row with the most."""

    def folded(self, batch: HistoryBatch, behind: int) -> list[tuple[Tensor, HistoryBatch]]:
        """Return latents, `n k d`, with the transitions, `n s`, that lie wholly inside the tokens folded into them.

        The tokens of a segment do not say all of its last *behind* transitions.
        """


NO_LOSSES: Mapping[str, Tensor] = MappingProxyType({})


def _alone(values: list[Tensor]) -> Tensor:
    [value] = values
    return value


@define(kw_only=True)
class Decisions:
    """What one pass over a batch yields.

    `hidden`: the hidden states of all decisions, `n t d`, in groups that passed together; `in_time` puts values of
    those, one tensor for each group, in the order of the decisions, `b t ...`. A single group `b t d` is in order.
    `auxiliary`: the memory's own losses by name, each `b`; `writes`: what was written, where a memory writes.
    """

    hidden: Sequence[Tensor]
    in_time: Callable[[list[Tensor]], Tensor] = _alone
    auxiliary: Mapping[str, Tensor] = NO_LOSSES  # no factory: torch.compile cannot follow it
    writes: Writes | None = None

    @property
    def most_writes(self) -> int:
        """Writes in the row with the most."""
        return 0 if self.writes is None else self.writes.most_writes

    def ask(self, head: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what *head* says of every decision, `b t a`."""
        return self.in_time([head(hidden) for hidden in self.hidden])


@define(kw_only=True)
class MemoryState:
    """What the memory of *b* lives holds: an attrs class of tensors, each with one row for each life.

    They may stand in dictionaries, lists and attrs classes, too. `num_writes`, `b`, counts the writes of each life.
    """

    num_writes: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that is held, by name."""
        return dict(_tensors(asdict(self), ""))

    @property
    def num_bytes(self) -> int:
        """Bytes that these lives hold together; counters, one number for each life, aside."""
        return sum(value.numel() * value.element_size() for value in self.tensors().values() if value.dim() > 1)


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
        return
    for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _tensors(inner, f"{name}.{key}" if name else str(key))


S = TypeVar("S", bound=MemoryState)


class Memory(nn.Module, ABC, Generic[S]):
    """Turns tokens into a hidden state for every decision, by what came before it.

    `is_bounded`: a life's state stays as large as it is at birth. `shared`: the parts that an agent takes over when its
    training begins with another agent's weights, by name; all others stay its own. `num_layers`: how many layers a
    token passes, for estimates; `num_heads`: with how many its latents are read, if it has any.
    """

    is_bounded = True
    shared: ClassVar[tuple[str, ...]] = ()
    num_layers = 1
    num_heads = 1

    @abstractmethod
    def forward(self, tokens: Tokens, *, horizon: int | None = None, moment: Moment = CALM) -> Decisions:
        """Make every decision of a batch in one pass.

        Gradients of a row's last window reach its *horizon* newest writes (all when None). *moment* is all the chance
        that there is. A memory without writes may do without both.
        """

    @abstractmethod
    def length_of(self, num_writes: float) -> int:
        """Return how many decisions a stretch has in training when a curriculum asks for *num_writes* writes.

        A memory without writes counts stretches of a fixed length for them, so that others are given the same data.
        """

    @abstractmethod
    def begin(self, size: int) -> S:
        """Return the memory of *size* lives that have seen nothing."""

    def reset(self, state: S, rows: Tensor) -> None:
        """Start the lives *rows* (indices) anew, in place; the others stay bit-identical."""
        born = self.begin(len(rows)).tensors()
        for name, value in state.tensors().items():
            value[rows] = born[name]

    def prepare(self, state: S, ended: Tensor) -> None:
        """Make room for the next decision, in place; *ended*, `b`: whether the last one ended an episode.

        Here a memory writes. It may wait for the device, which `decide` must not.
        """
        return

    @abstractmethod
    def decide(self, state: S, token: Tensor, *, is_query: bool, record: AttentionRecord | None = None) -> Tensor:
        """Take in the token of a decision, `b d`, in place, and return the hidden state that decides, `b 1 d`.

        A query leaves no trace. *record*, if there is one, is filled by memories that attend.
        """

    @abstractmethod
    def settle(self, state: S, tokens: list[Tensor]) -> None:
        """Take in the last *tokens* of a transition that is over, each `b d`, in place; perhaps there are none."""

    @property
    def state_bytes(self) -> int:
        """Bytes that one life's state takes at birth, and ever after where it is bounded."""
        with torch.no_grad():
            return self.begin(1).num_bytes

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


# What some memories can do, too -------------------------------------------------------------------------------------


@runtime_checkable
class Rebuildable(Protocol):
    """A memory that can fold tokens in without deciding anything, and be asked what it folded."""

    def remember(self, tokens: Tokens, *, horizon: int | None = None, moment: Moment = CALM) -> Writes:
        """Fold the *tokens* of a batch in; *horizon* and *moment* are those of `Memory.forward`."""


@runtime_checkable
class HasLatents(Protocol):
    """A spec whose memory shows `num_latents` latents at every decision."""

    num_latents: int


@runtime_checkable
class HasPlainWindow(Protocol):
    """A spec whose memory may be a plain window, for which what leaves it is forgotten."""

    def is_plain(self, width: int) -> bool:
        """Say whether it is one in a policy of that *width*."""


@runtime_checkable
class HasLeastBytes(Protocol):
    """A spec that knows a lower bound of the memory that it takes, before anything is built."""

    def least_bytes(self, width: int) -> int:
        """Return that bound in a policy of that *width*."""
