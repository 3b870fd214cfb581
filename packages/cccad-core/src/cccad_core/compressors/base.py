"""The contract of a compressor: a fold over segments with explicit state.

A state is a dictionary of `b ...` tensors, never an attribute of the module, so rows can be cut out, put back, reset
and carried across processes. Nothing here may depend on other rows or on what a padding mask hides.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from attrs import define
from torch import Tensor, nn

State = dict[str, Tensor]
Think = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@define(kw_only=True)  # not frozen: torch.compile cannot follow the constructor that attrs gives frozen classes
class Segment:
    """What a write folds in: `tokens`, `b s d`, as they enter the backbone.

    `mask`, `b s`, is False at padding, which stands at the end of a row; None means that there is none. `think` is the
    policy's own backbone for those that write with it: hidden states `b n d` of vectors `b n d` at slots `n` or `b n`,
    under a mask `b 1 n n` (None: causal). `record`, where it is a dictionary, asks the write to say more about itself:
    a compressor may put numbers into it, each `b`, by name, such as `openness`, the mean share that its gate lets in.
    """

    tokens: Tensor
    mask: Tensor | None = None
    think: Think | None = None
    record: dict[str, Tensor] | None = None

    def num_real(self) -> Tensor:
        """Return how many tokens of each row are no padding, `b`."""
        if self.mask is not None:
            return self.mask.sum(1)
        return torch.full(self.tokens.shape[:1], self.tokens.shape[1], device=self.tokens.device)


class Compressor(nn.Module, ABC):
    """Fold segments into a bounded state, and show it to the backbone as `num_latents` tokens.

    `evicts` is False for the one reference whose window is never emptied, so that it never writes.
    """

    num_latents: int
    evicts = True

    @abstractmethod
    def begin(self, size: int) -> State:
        """Return the learned memory of *size* lives before their first write."""

    @abstractmethod
    def read(self, state: State) -> Tensor:
        """Return the prefix that the backbone sees, `b k d`."""

    @abstractmethod
    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        """Fold *segment* in; return the new state and auxiliary losses by name, each `b`, unreduced."""

    @property
    def state_bytes(self) -> int:
        """Bytes that one life's state takes, however old it is."""
        return sum(value.numel() * value.element_size() for value in self.begin(1).values())

    @abstractmethod
    def flops_per_write(self, num_tokens: int) -> int:
        """Return what one life's write of *num_tokens* costs: 2 for each multiply-add of its matrix products.

        Products alone, as torch's flop counter has it; what `Segment.think` does is left out, see `num_thought`.
        """

    def num_thought(self, num_tokens: int) -> int:
        """Return how many vectors a write of *num_tokens* hands to `Segment.think`."""
        return 0


def linear_flops(num_vectors: int, *layers: nn.Module) -> int:
    """Return what it costs to pass *num_vectors* through the linear ones among *layers*, each once."""
    return 2 * num_vectors * sum(part.weight.numel() for part in layers if isinstance(part, nn.Linear))


def take_rows(state: Mapping[str, Tensor], rows: Tensor | None) -> State:
    """Return the lives *rows* (indices; None: all) of a state."""
    return dict(state) if rows is None else {name: value[rows] for name, value in state.items()}


def put_rows(state: Mapping[str, Tensor], rows: Tensor | None, part: Mapping[str, Tensor]) -> State:
    """Return *state* with the lives *rows* (indices; None: all) replaced by *part*; the others stay bit-identical."""
    if rows is None:
        return dict(part)
    return {name: value.index_copy(0, rows, part[name]) for name, value in state.items()}


def add_rows(total: Tensor, rows: Tensor | None, part: Tensor) -> Tensor:
    """Return *total*, `b`, with *part* added in *rows* (indices; None: all)."""
    return total + part if rows is None else total.index_add(0, rows, part)


def keep_rows(state: Mapping[str, Tensor], other: Mapping[str, Tensor], is_kept: Tensor) -> State:
    """Return *state* where *is_kept*, `b`, is True, and *other* elsewhere."""
    return {
        name: torch.where(is_kept.view(-1, *[1] * (value.dim() - 1)), value, other[name])
        for name, value in state.items()
    }


def detach(state: Mapping[str, Tensor]) -> State:
    """Return *state* cut off from the writes that made it."""
    return {name: value.detach() for name, value in state.items()}


def sinusoids(length: int, width: int, like: Tensor) -> Tensor:
    """Return fixed features of places `0..length-1`, `s d` (arXiv 1706.03762, section 3.5)."""
    places = torch.arange(length, device=like.device, dtype=like.dtype)
    frequency = 1000.0 ** (-torch.arange(0, width, 2, device=like.device, dtype=like.dtype) / width)
    angle = torch.outer(places, frequency)
    return torch.cat([angle.sin(), angle.cos()], 1)
