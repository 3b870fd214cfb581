"""Token layouts: how transitions and observations become the vectors that the backbone reads.

Two are offered. `fused`: token *t* carries the last transition's action and reward and the current observation, so it
is its own query. `transition`: one token per whole transition, and one query token per decision.
"""

from abc import ABC, abstractmethod
from typing import cast

import torch
from attrs import frozen
from torch import Tensor, nn

from cccad_core.batch import HistoryBatch
from cccad_core.spaces import Box, Space, Spaces

BIRTH, WITHIN, TERMINATED, TRUNCATED = range(4)
"""What came before a token: nothing, the same episode, an episode that terminated, one that was truncated."""


class Encoder(nn.Module):
    """Map values of one space to vectors, `... o -> ... d`; a discrete value has one feature, its index.

    Discrete coordinates are looked up in one table each and summed; a box is scaled to unit range and projected.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, space: Space, width: int) -> None:
        super().__init__()
        if isinstance(space, Box):
            low, high = (torch.tensor(bound) for bound in space.bounds())
            bounded = torch.isfinite(low) & torch.isfinite(high)
            self.register_buffer("centre", torch.where(bounded, (low + high) / 2, 0.0), persistent=False)
            self.register_buffer("scale", torch.where(bounded, (high - low) / 2, 1.0), persistent=False)
            self.project: nn.Linear | None = nn.Linear(low.numel(), width, bias=False)
            return
        sizes = space.sizes
        self.project = None
        self.offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        self.table = nn.Parameter(torch.randn(sum(sizes), width) * width**-0.5)

    def forward(self, values: Tensor) -> Tensor:
        if self.project is not None:
            scaled: Tensor = self.project((values - self.centre) / self.scale)
            return scaled
        total = nn.functional.embedding(values[..., 0], self.table)
        for i, offset in enumerate(self.offsets[1:], start=1):
            total = total + nn.functional.embedding(values[..., i] + offset, self.table)
        return total


def boundary(terminations: Tensor, truncations: Tensor) -> Tensor:
    """Return what a transition leaves behind it, `WITHIN`, `TERMINATED` or `TRUNCATED`, elementwise."""
    within = torch.full_like(terminations, WITHIN, dtype=torch.int64)
    return within.masked_fill(truncations, TRUNCATED).masked_fill(terminations, TERMINATED)


def as_features(values: Tensor) -> Tensor:
    """Give discrete actions, `b t`, the feature axis that an `Encoder` reads; boxes have it."""
    return values if values.is_floating_point() else values[..., None]


class TokenLayout(nn.Module, ABC):
    """Turn a `HistoryBatch` into tokens; a decision sees the same whether it is asked alone or in a training pass.

    Where `asks` is True, decisions need a query token of their own and token *t* is complete *after* decision *t*;
    where it is False, token *t* is its own query and is complete *before* decision *t*, one transition behind.
    """

    asks: bool

    @abstractmethod
    def after(self, batch: HistoryBatch) -> Tensor:
        """Return what each transition adds to the sequence, `b t d`."""

    @abstractmethod
    def asking(self, observations: Tensor) -> Tensor:
        """Return what an observation to act on adds, `b t o -> b t d`."""

    @abstractmethod
    def birth(self) -> Tensor:
        """Return what stands for the missing transition before a life begins, `d`."""

    @abstractmethod
    def sequence(self, batch: HistoryBatch) -> Tensor:
        """Return the tokens that make up the history, `b t d`."""


class Fused(TokenLayout):
    """Token *t* = last action + last reward + how the last transition ended + current observation."""

    asks = False

    def __init__(self, spaces: Spaces, width: int) -> None:
        super().__init__()
        self.observation = Encoder(spaces.observation, width)
        self.action = Encoder(spaces.action, width)
        self.reward = nn.Linear(1, width, bias=False)
        self.before = nn.Parameter(torch.randn(4, width) * width**-0.5)

    def after(self, batch: HistoryBatch) -> Tensor:
        ended = boundary(batch.terminations, batch.truncations)
        told: Tensor = self.action(as_features(batch.actions)) + self.reward(batch.rewards[..., None])
        return told + nn.functional.embedding(ended, self.before)

    def asking(self, observations: Tensor) -> Tensor:
        return cast(Tensor, self.observation(observations))

    def birth(self) -> Tensor:
        return self.before[BIRTH]

    def sequence(self, batch: HistoryBatch) -> Tensor:
        first = self.birth().expand(batch.size, 1, -1)
        last = torch.cat([first, self.after(batch.at(slice(0, batch.length - 1)))], 1)
        return self.asking(batch.observations) + last


class Transition(TokenLayout):
    """One token per transition (observation, action, reward, next observation, end), one query per decision."""

    asks = True

    def __init__(self, spaces: Spaces, width: int) -> None:
        super().__init__()
        self.observation = Encoder(spaces.observation, width)
        self.action = Encoder(spaces.action, width)
        self.reward = nn.Linear(1, width, bias=False)
        self.next_observation = Encoder(spaces.observation, width)
        self.before = nn.Parameter(torch.randn(4, width) * width**-0.5)
        self.query = Encoder(spaces.observation, width)

    def after(self, batch: HistoryBatch) -> Tensor:
        ended = boundary(batch.terminations, batch.truncations)
        told: Tensor = self.action(as_features(batch.actions)) + self.reward(batch.rewards[..., None])
        moved: Tensor = self.observation(batch.observations) + self.next_observation(batch.next_observations)
        return told + moved + nn.functional.embedding(ended, self.before)

    def asking(self, observations: Tensor) -> Tensor:
        return cast(Tensor, self.query(observations))

    def birth(self) -> Tensor:
        return self.before[BIRTH]

    def sequence(self, batch: HistoryBatch) -> Tensor:
        return self.after(batch)


@frozen(kw_only=True)
class FusedSpec:
    """One token per decision: the last transition and the current observation together."""

    def build(self, spaces: Spaces, width: int) -> Fused:
        return Fused(spaces, width)


@frozen(kw_only=True)
class TransitionSpec:
    """One token per whole transition and one query token per decision."""

    def build(self, spaces: Spaces, width: int) -> Transition:
        return Transition(spaces, width)
