"""Layouts: how transitions and observations become the vectors that the backbone reads.

Three are offered. `fused`: token *t* carries the last transition's action and reward and the current observation, so it
is its own query. `transition`: one token per whole transition, and one query token per decision. `triple`: an
observation, an action and a reward token per transition, as in the paper (arXiv 2210.14215, section 3).
"""

from abc import ABC, abstractmethod
from typing import cast

import torch
from attrs import frozen
from einops import rearrange
from torch import Tensor, nn

from cccad_core.batch import HistoryBatch
from cccad_core.encoders.base import Encoder, Encoders

BIRTH, WITHIN, TERMINATED, TRUNCATED = range(4)
"""What came before a token: nothing, the same episode, an episode that terminated, one that was truncated."""


def boundary(terminations: Tensor, truncations: Tensor) -> Tensor:
    """Return what a transition leaves behind it, `WITHIN`, `TERMINATED` or `TRUNCATED`, elementwise."""
    within = torch.full_like(terminations, WITHIN, dtype=torch.int64)
    return within.masked_fill(truncations, TRUNCATED).masked_fill(terminations, TERMINATED)


def as_features(values: Tensor) -> Tensor:
    """Give actions of one choice, `b t`, the feature axis that an encoder reads; all others have it."""
    return values if values.dim() == 3 else values[..., None]


class TokenLayout(nn.Module, ABC):
    """Turn a `HistoryBatch` into tokens; a decision sees the same whether it is asked alone or in a training pass.

    A transition takes `slots` of the window, and is decided on in the first of them. Where `asks` is True a query token
    stands there until the transition is over, and a training pass puts the queries of all decisions beside its tokens.
    `behind`: how many of a segment's last transitions are not wholly in its tokens, next observation included.
    """

    asks = False
    slots = 1
    behind = 1

    @abstractmethod
    def sequence(self, batch: HistoryBatch) -> Tensor:
        """Return the tokens that make up the history, in its order, `b (t slots) d`."""

    @abstractmethod
    def asking(self, observations: Tensor) -> Tensor:
        """Return what an observation to act on adds to the token that decides, `b t o -> b t d`."""

    def queries(self, batch: HistoryBatch) -> Tensor | None:
        """Return the query tokens of all decisions, `b t d`, where the layout asks with them."""
        return self.asking(batch.observations) if self.asks else None

    @abstractmethod
    def settled(self, batch: HistoryBatch) -> list[Tensor]:
        """Return the tokens that a transition leaves in its last slots once it is over, each `b t d`."""

    def aftermath(self, last: HistoryBatch, has_last: Tensor) -> Tensor | float:
        """Return what the last transition, `b 1`, adds to the token that decides next, `b 1 d`."""
        return 0.0


class Encoded(TokenLayout):
    """What the three share: encoders of observations, *others* of these by name, of actions and of outcomes."""

    def __init__(self, encoders: Encoders, *others: str) -> None:
        super().__init__()
        width = encoders.width
        self.observation = encoders.observation()
        self.action = encoders.action()
        self.reward = nn.Linear(1, width, bias=False)
        for name in others:
            self.add_module(name, encoders.observation())
        self.before = nn.Parameter(torch.randn(4, width) * width**-0.5)

    def outcome(self, batch: HistoryBatch) -> Tensor:
        """Return what transitions earned and left behind them, `b t d`."""
        reward: Tensor = self.reward(batch.rewards[..., None])
        return reward + nn.functional.embedding(boundary(batch.terminations, batch.truncations), self.before)


class Fused(Encoded):
    """Token *t* = last action + last reward + how the last transition ended + current observation."""

    def after(self, batch: HistoryBatch) -> Tensor:
        """Return what each transition adds to the next token, `b t d`."""
        action: Tensor = self.action(as_features(batch.actions))
        return action + self.outcome(batch)

    def asking(self, observations: Tensor) -> Tensor:
        return cast(Tensor, self.observation(observations))

    def settled(self, batch: HistoryBatch) -> list[Tensor]:
        return []

    def aftermath(self, last: HistoryBatch, has_last: Tensor) -> Tensor:
        return torch.where(has_last[:, None, None], self.after(last), self.before[BIRTH])

    def sequence(self, batch: HistoryBatch) -> Tensor:
        first = self.before[BIRTH].expand(batch.size, 1, -1)
        last = torch.cat([first, self.after(batch.at(slice(0, batch.length - 1)))], 1)
        return self.asking(batch.observations) + last


class Transition(Encoded):
    """One token per transition (observation, action, reward, next observation, end), one query per decision."""

    asks = True
    behind = 0
    next_observation: Encoder

    def __init__(self, encoders: Encoders) -> None:
        super().__init__(encoders, "next_observation")
        self.query = encoders.observation()

    def asking(self, observations: Tensor) -> Tensor:
        return cast(Tensor, self.query(observations))

    def settled(self, batch: HistoryBatch) -> list[Tensor]:
        return [self.sequence(batch)]

    def sequence(self, batch: HistoryBatch) -> Tensor:
        done: Tensor = self.action(as_features(batch.actions)) + self.outcome(batch)
        moved: Tensor = self.observation(batch.observations) + self.next_observation(batch.next_observations)
        return done + moved


class Observation(TokenLayout):
    """The current observation and nothing of what came before it: what a task-blind control sees."""

    def __init__(self, encoders: Encoders) -> None:
        super().__init__()
        self.observation = encoders.observation()

    def asking(self, observations: Tensor) -> Tensor:
        return cast(Tensor, self.observation(observations))

    def settled(self, batch: HistoryBatch) -> list[Tensor]:
        return []

    def sequence(self, batch: HistoryBatch) -> Tensor:
        return self.asking(batch.observations)


class Triple(Encoded):
    """Tokens for the observation, the action, and the reward with the end that it came with; the first one decides."""

    slots = 3

    def asking(self, observations: Tensor) -> Tensor:
        return cast(Tensor, self.observation(observations))

    def settled(self, batch: HistoryBatch) -> list[Tensor]:
        return [self.action(as_features(batch.actions)), self.outcome(batch)]

    def sequence(self, batch: HistoryBatch) -> Tensor:
        tokens = torch.stack([self.asking(batch.observations), *self.settled(batch)])
        return rearrange(tokens, "slots b t d -> b (t slots) d")


@frozen(kw_only=True)
class FusedSpec:
    """One token per decision: the last transition and the current observation together."""

    slots = Fused.slots

    def build(self, encoders: Encoders) -> Fused:
        return Fused(encoders)


@frozen(kw_only=True)
class TransitionSpec:
    """One token per whole transition and one query token per decision."""

    slots = Transition.slots

    def build(self, encoders: Encoders) -> Transition:
        return Transition(encoders)


@frozen(kw_only=True)
class TripleSpec:
    """Three tokens per transition, observation, action and reward, each of which takes a slot of the window."""

    slots = Triple.slots

    def build(self, encoders: Encoders) -> Triple:
        return Triple(encoders)


@frozen(kw_only=True)
class ObservationSpec:
    """One token per decision: the current observation alone, without actions, rewards and ends."""

    slots = Observation.slots

    def build(self, encoders: Encoders) -> Observation:
        return Observation(encoders)
