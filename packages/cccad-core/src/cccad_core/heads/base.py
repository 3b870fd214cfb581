"""The contract of a head: from a hidden state to a distribution over actions, its likelihood, and a draw from it.

A spec class of kind `head` has, besides its fields:

- `takes(space)`, whether actions of that space can be drawn;
- `build(space, width)`, which returns an `ActionHead` of fresh weights; it is asked only for spaces that are taken.
"""

from abc import ABC, abstractmethod
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cccad_core.spaces import Space


class ActionHead(nn.Module, ABC):
    """Parameters of a distribution over one action space, `b t d -> b t a`.

    `measure` names what `measured` returns: `accuracy`, 1 where the mode is the action and else 0, or for boxes
    `squared_error`, the mean over features.
    """

    measure: Literal["accuracy", "squared_error"]

    @abstractmethod
    def forward(self, hidden: Tensor) -> Tensor:
        """Return the distribution's parameters, `b t a`."""

    @abstractmethod
    def nats(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """Return the negative log-likelihood of *actions*, `b t`, in nats per decision."""

    @abstractmethod
    def measured(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """Return how the mode compares with *actions*, `b t`, by the head's `measure`."""

    @abstractmethod
    def draw(self, parameters: Tensor, generator: torch.Generator | None, *, greedy: bool) -> Tensor:
        """Return one action per row of `b a`: `b`, or `b a` for boxes."""


@runtime_checkable
class HasDivergence(Protocol):
    """A head whose distributions can be compared: what a teacher's lessons need."""

    def divergence(self, parameters: Tensor, wanted: Tensor) -> Tensor:
        """Return KL(wanted || parameters) of every decision, `b t`, in nats; both are parameters of such a head."""
        ...


class HeadSpec(Protocol):
    """What the spec of a head offers."""

    def takes(self, space: Space) -> bool:
        """Say whether actions of *space* can be drawn."""
        ...

    def build(self, space: Space, width: int) -> ActionHead:
        """Return a head of fresh weights, for a space that is taken."""
        ...
