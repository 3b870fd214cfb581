"""When a write comes before the window is full: small rules, each the same for training, evaluation and the agent.

A spec class of kind `trigger` has, besides its fields:

- `by_row`: whether rows of one pass may write at different decisions, since it asks where their episodes end;
- `limits(segment, ends, moment)`: for a pass, a function of where a window begins that says how many decisions the
  window may make at most, at least 1. *segment* is how many it has room for, *ends* are the decisions that end an
  episode of the row, ascending, and *moment* is the chance of the pass;
- `is_due(num_new, ended)`: for a life, whether a write comes now, `b`, after *num_new* decisions since the last one
  (at least 1 where a write comes); *ended*: whether the newest of them ended an episode.
"""

import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import torch
from attrs import field, frozen, validators
from torch import Tensor

from cccad_core.memory.moment import Moment

Limit = Callable[[int], int]


class Trigger(Protocol):
    """What the rolling context asks of a trigger."""

    by_row: bool

    def limits(self, segment: int, ends: Sequence[int], moment: Moment) -> Limit:
        """Return how many decisions a window may make at most, by where it begins."""
        ...

    def is_due(self, num_new: Tensor, ended: Tensor) -> Tensor:
        """Return whether a write comes now, `b`."""
        ...


def no_limit(_start: int) -> int:
    """Return more decisions than any window has room for."""
    return sys.maxsize


@frozen(kw_only=True)
class FullTrigger:
    """Write when the window is full, and never before."""

    by_row = False

    def build(self) -> "FullTrigger":
        """Return the trigger, which has no state."""
        return self

    def limits(self, segment: int, ends: Sequence[int], moment: Moment) -> Limit:
        return no_limit

    def is_due(self, num_new: Tensor, ended: Tensor) -> Tensor:
        return torch.zeros_like(ended)


@frozen(kw_only=True)
class EveryTrigger:
    """Write after so many decisions, too."""

    by_row = False

    decisions: int = field(validator=validators.ge(1), metadata={"help": "decisions between two writes"})

    def build(self) -> "EveryTrigger":
        """Return the trigger, which has no state."""
        return self

    def limits(self, segment: int, ends: Sequence[int], moment: Moment) -> Limit:
        return lambda _start: self.decisions

    def is_due(self, num_new: Tensor, ended: Tensor) -> Tensor:
        return num_new >= self.decisions


@frozen(kw_only=True)
class EpisodeTrigger:
    """Write where an episode ends, too; rows whose episodes end apart then write apart."""

    by_row = True

    def build(self) -> "EpisodeTrigger":
        """Return the trigger, which has no state."""
        return self

    def limits(self, segment: int, ends: Sequence[int], moment: Moment) -> Limit:
        def limit(start: int) -> int:
            later = bisect_left(ends, start)
            return ends[later] + 1 - start if later < len(ends) else sys.maxsize

        return limit

    def is_due(self, num_new: Tensor, ended: Tensor) -> Tensor:
        return ended & (num_new > 0)


@frozen(kw_only=True)
class RandomTrigger:
    """In training, write after segments of random length, 1 to as many as there is room for, all equally likely.

    Without a shared seed, as in a life, a write comes when the window is full.
    """

    by_row = False

    def build(self) -> "RandomTrigger":
        """Return the trigger, which has no state."""
        return self

    def limits(self, segment: int, ends: Sequence[int], moment: Moment) -> Limit:
        if moment.shared_seed is None:  # read here alone: a compiled pass would be compiled anew for every seed
            return no_limit
        chance = Random(moment.shared_seed)
        return lambda _start: chance.randint(1, segment)

    def is_due(self, num_new: Tensor, ended: Tensor) -> Tensor:
        return torch.zeros_like(ended)
