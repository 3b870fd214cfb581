"""Tabular Q-learning (Watkins 1989): every history has a table of its own, and all tables learn in the same few lines.

Legend: `r` rows (one history each), `a` actions. A table is `states a`; all of them lie in one flat array.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from attrs import field, frozen, validators

from cccad_data.errors import SourceError
from cccad_data.plain import Array
from cccad_data.sources.unit import LifeSpec, Unit, UnitSource, num_discrete
from cccad_data.spaces import uniform_actions

MAX_ENTRIES = 2**29
_FRACTION = [validators.ge(0.0), validators.le(1.0)]
_TIE = 1e-4  # values that differ by less are as good as equal
_UNTRIED = 1e-12  # tries of what was never tried: its bonus beats any value, and all are equal in a new state


@frozen(kw_only=True)
class QLearningSpec(LifeSpec):
    """Batched tabular Q-learning for discrete observations, one table per history, explored by UCB or by epsilon."""

    num_envs: int = field(default=100, validator=validators.ge(1), metadata={"help": "histories, and tables, per task"})
    env_steps: int = field(default=2000, validator=validators.ge(1), metadata={"help": "length of each history"})
    learning_rate: float = field(
        default=0.8,
        validator=[validators.gt(0.0), validators.le(1.0)],
        metadata={"help": "share of the way that an entry moves towards its target"},
    )
    gamma: float = field(default=0.8, validator=_FRACTION, metadata={"help": "discount per env step"})
    initial_value: float = field(
        default=1.0,
        metadata={"help": "of every entry; above what a state is worth, it draws the learner to the unknown"},
    )
    exploration: Literal["ucb", "epsilon"] = field(
        default="ucb",
        validator=validators.in_(("ucb", "epsilon")),
        metadata={"help": "ucb: a bonus for actions that were rarely tried; epsilon: a random action now and then"},
    )
    ucb_scale: float = field(
        default=0.02, validator=validators.ge(0.0), metadata={"help": "of the bonus sqrt(ln(1 + visits) / tries)"}
    )
    epsilon_start: float = field(
        default=0.2, validator=_FRACTION, metadata={"help": "chance of a random action at birth, for epsilon"}
    )
    epsilon_end: float = field(
        default=0.0, validator=_FRACTION, metadata={"help": "the same chance once epsilon has fallen"}
    )
    epsilon_frac: float = field(
        default=0.7,
        validator=[validators.gt(0.0), validators.le(1.0)],
        metadata={"help": "of the life, over which epsilon goes linearly from start to end"},
    )

    def build(self) -> "QLearning":
        """Return the source."""
        return QLearning(self)


class QLearning(UnitSource[QLearningSpec]):
    """Histories of tables that fill up."""

    name = "q-learning"

    def play(self, unit: Unit) -> None:
        """Act by tables and fill them; raises SourceError when a space is not discrete or they do not fit in memory."""
        (num_actions,) = num_discrete(self, unit.family)
        sizes = num_discrete(self, unit.family, "observation")
        tables = Tables(self.spec, unit.num_rows, sizes, num_actions)
        while not unit.is_over:
            observations = unit.observations
            actions = tables.act(observations, unit.uniform(num_actions + 1, dtype=np.float32), unit.now)
            following, rewards, terminations, truncations, infos = unit.step(actions)
            ended = terminations | truncations
            if ended.any():
                following = np.where(ended[:, None], infos["final_obs"], following)
            tables.learn(rewards, following, terminations)


class Tables:
    """The value and the number of tries of every action in every state, per row."""

    def __init__(self, spec: QLearningSpec, num_rows: int, sizes: Sequence[int], num_actions: int) -> None:
        self.spec, self.num_actions = spec, num_actions
        self.radix = np.cumprod([1, *sizes[:0:-1]])[::-1]  # of each feature, the last one counts single states
        num_states = int(np.prod(sizes, dtype=np.float64))
        if num_rows * num_states * num_actions > MAX_ENTRIES:
            raise SourceError(
                f"q-learning would need {num_rows:,} tables of {num_states:,} states; at most {MAX_ENTRIES:,} entries "
                f"fit: lower 'num_envs' or 'tasks_per_unit'"
            )
        self.values = np.full((num_rows * num_states, num_actions), spec.initial_value, np.float32)
        self.tries = np.full((num_rows * num_states, num_actions), _UNTRIED, np.float32)
        self.first = np.arange(num_rows) * num_states
        self.entries = np.empty(num_rows, np.int64)  # where each row acted last, in the flat tables

    def act(self, observations: Array, uniform: Array, now: int) -> Array:
        """Return an action per row; *uniform*, `r a+1`, breaks ties; its last column decides who strays."""
        spec, states = self.spec, self._states(observations)
        merit = self.values.take(states, axis=0)
        merit += uniform[:, :-1] * _TIE
        if spec.exploration == "ucb":
            tries = self.tries.take(states, axis=0)
            visits = tries @ np.ones(self.num_actions, np.float32)
            merit += np.sqrt((spec.ucb_scale**2 * np.log1p(visits))[:, None] / tries)
        actions: Array = merit.argmax(1)
        if spec.exploration == "epsilon":
            progress = min(1.0, now / (spec.env_steps * spec.epsilon_frac))
            epsilon = spec.epsilon_start + (spec.epsilon_end - spec.epsilon_start) * progress
            strays = uniform[:, -1] < epsilon
            # u / epsilon is uniform where u < epsilon
            drawn = uniform_actions({"kind": "discrete", "n": self.num_actions}, uniform[strays, -1] / epsilon)
            actions[strays] = drawn
        self.entries = states * self.num_actions + actions
        return actions

    def learn(self, rewards: Array, following: Array, terminations: Array) -> None:
        """Move the values of the last actions towards what they led to; nothing follows a termination."""
        best = self.values.take(self._states(following), axis=0).max(1)
        targets = rewards + self.spec.gamma * best * ~terminations
        values, tries = self.values.reshape(-1), self.tries.reshape(-1)
        before = values[self.entries]
        values[self.entries] = before + self.spec.learning_rate * (targets - before)
        tries[self.entries] += 1.0

    def _states(self, observations: Array) -> Array:
        """Return where the states' rows are in the tables, `r`: a number in mixed radix."""
        states: Array = self.first + observations.reshape(len(self.first), -1).astype(np.int64) @ self.radix
        return states
