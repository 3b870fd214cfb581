"""The contract of an encoder, which reads the values of one space, and what a layout receives to read with.

A spec class of kind `encoder` has, besides its fields:

- `takes(space)`, whether values of that space can be read;
- `build(space, width)`, which returns an `Encoder` of fresh weights; it is asked only for spaces that are taken.
"""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from attrs import frozen
from torch import Tensor, nn

from cccad_core.spaces import Space, Spaces


class Encoder(nn.Module, ABC):
    """Map values of one space to vectors, `... o -> ... d`, each value for itself.

    Values are int64 for discrete kinds, float32 for boxes; a discrete value has one feature, its index.
    """

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """Return the vectors of *values*."""


@runtime_checkable
class Measures(Protocol):
    """An encoder that may look at what it is going to read, once, before it is trained."""

    is_measured: bool
    """Whether its spec asks for it."""

    def measure(self, values: Tensor) -> None:
        """Take the statistics of *values*, `n o`."""
        ...


def measured(module: nn.Module) -> list[Measures]:
    """Return the encoders in *module* that ask to be shown observations; an encoder shows its own parts theirs."""
    encoders: list[Measures] = []
    for child in module.children():
        if not isinstance(child, Encoder):
            encoders += measured(child)
        elif isinstance(child, Measures) and child.is_measured:
            encoders.append(child)
    return encoders


class EncoderSpec(Protocol):
    """What the spec of an encoder offers."""

    def takes(self, space: Space) -> bool:
        """Say whether values of *space* can be read."""
        ...

    def build(self, space: Space, width: int) -> Encoder:
        """Return an encoder of fresh weights, for a space that is taken."""
        ...


@frozen(kw_only=True)
class Encoders:
    """What a layout reads with: it asks for as many encoders as it needs, each with weights of its own."""

    spaces: Spaces
    width: int
    for_observations: EncoderSpec
    for_actions: EncoderSpec

    def observation(self) -> Encoder:
        """Return a fresh encoder of observations, `... o -> ... d`."""
        return self.for_observations.build(self.spaces.observation, self.width)

    def action(self) -> Encoder:
        """Return a fresh encoder of actions, `... a -> ... d`; a discrete action has an axis of one feature."""
        return self.for_actions.build(self.spaces.action, self.width)
