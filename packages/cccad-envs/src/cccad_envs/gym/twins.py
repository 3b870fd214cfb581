"""Finds tasks that are the same task under two ids: they would leak from training into what is held out."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Dict, Tuple

from cccad_envs.gym.rows import GymRows
from cccad_envs.plain import Array

_FIRST_ENV_STEPS, MOST_ENV_STEPS = 64, 4_096
_SEED = 23
_LONGEST_HOLD = 3  # env steps for which an action of a box is kept, so that it leads somewhere


def twins(count: int, make: Callable[[int], GymRows]) -> list[list[int]]:
    """Return the groups of tasks that cannot be told apart, by their numbers.

    All are explored from the same seed, at first for a few env steps, and those that are still alike for four times as
    many, and so on. What the explorer does follows from what it saw: equal tasks are explored alike to the end.
    """
    groups, length = [list(range(count))], _FIRST_ENV_STEPS
    while groups and length <= MOST_ENV_STEPS:
        groups = [part for group in groups for part in _alike(group, make, length)]
        length *= 4
    return groups


def _alike(group: list[int], make: Callable[[int], GymRows], length: int) -> list[list[int]]:
    by_digest: dict[bytes, list[int]] = {}
    for number in group:
        by_digest.setdefault(_digest(make(number), length), []).append(number)
    return [part for part in by_digest.values() if len(part) > 1]


def _digest(rows: GymRows, length: int) -> bytes:
    """Return a digest of what an explorer sees in the one row of *rows* in *length* env steps."""
    observation = rows.reset(seed=_SEED)[0]
    digest, explorer = hashlib.sha256(observation.tobytes()), _Explorer(rows)
    for _ in range(length):
        action = explorer.act(observation)
        observation, rewards, terminations, _, infos = rows.step(action)
        explorer.learn(is_over=bool(terminations[0]))
        for array in (infos["final_obs"], rewards, terminations):
            digest.update(array.tobytes())
    rows.close()
    return digest.digest()


class _Explorer:
    """Tries in every observation what it tried least there, and not again what ended an episode."""

    def __init__(self, rows: GymRows) -> None:
        self._space, self._random = rows.single_action_space, np.random.default_rng(_SEED)
        self._space.seed(_SEED)
        self._all = rows.action_space
        self._all.seed(_SEED)
        self._num_actions = int(getattr(self._space, "n", 0))
        self._merits: dict[bytes, Array] = {}
        self._merit, self._action = np.zeros(self._num_actions), 0
        self._held: Any = None
        self._left = 0

    def act(self, observation: Array) -> Any:
        """Return an action of the one row."""
        if not self._num_actions:
            if not self._left:
                has_parts = isinstance(self._space, Dict | Tuple)
                self._held = self._all.sample() if has_parts else np.asarray(self._space.sample())[None]
                self._left = int(self._random.integers(1, _LONGEST_HOLD + 1))
            self._left -= 1
            return self._held
        self._merit = self._merits.setdefault(observation.tobytes(), np.zeros(self._num_actions))
        self._action = int((self._merit + self._random.random(self._num_actions)).argmax())
        return np.array([self._action])

    def learn(self, *, is_over: bool) -> None:
        """Take in whether the last action ended the episode."""
        if self._num_actions:
            self._merit[self._action] -= 1_000 if is_over else 1
