"""The contract of a compressor: a fold over segments with explicit state.

A state is a dictionary of `b ...` tensors, never an attribute of the module, so rows can be cut out, put back, reset
and carried across processes. Nothing here may depend on other rows or on what a padding mask hides.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from attrs import frozen
from torch import Tensor, nn

State = dict[str, Tensor]


@frozen(kw_only=True)
class Segment:
    """What a write folds in: `tokens`, `b s d`, as they enter the backbone.

    `mask`, `b s`, is False at padding; None means that there is none.
    """

    tokens: Tensor
    mask: Tensor | None = None


class Compressor(nn.Module, ABC):
    """Fold segments into a bounded state, and show it to the backbone as `num_latents` tokens."""

    num_latents: int

    @abstractmethod
    def begin(self, size: int) -> State:
        """Return the learned memory of *size* lives before their first write."""

    @abstractmethod
    def read(self, state: State) -> Tensor:
        """Return the prefix that the backbone sees, `b k d`."""

    @abstractmethod
    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        """Fold *segment* in; return the new state and auxiliary losses by name, each `b`, unreduced."""


def take_rows(state: Mapping[str, Tensor], rows: Tensor) -> State:
    """Return the lives *rows* (indices) of a state."""
    return {name: value[rows] for name, value in state.items()}


def put_rows(state: Mapping[str, Tensor], rows: Tensor, part: Mapping[str, Tensor]) -> State:
    """Return *state* with the lives *rows* (indices) replaced by *part*; the others stay bit-identical."""
    return {name: value.index_copy(0, rows, part[name]) for name, value in state.items()}


def detach(state: Mapping[str, Tensor]) -> State:
    """Return *state* cut off from the writes that made it."""
    return {name: value.detach() for name, value in state.items()}


def sinusoids(length: int, width: int, like: Tensor) -> Tensor:
    """Return fixed features of places `0..length-1`, `s d` (arXiv 1706.03762, section 3.5)."""
    places = torch.arange(length, device=like.device, dtype=like.dtype)
    frequency = 1000.0 ** (-torch.arange(0, width, 2, device=like.device, dtype=like.dtype) / width)
    angle = torch.outer(places, frequency)
    return torch.cat([angle.sin(), angle.cos()], 1)
