"""Small wrappers that make an environment's actions mean something hidden, and observations say less."""

from collections.abc import Sequence
from typing import TypeAlias, final

import gymnasium
import numpy as np
from gymnasium import spaces

from cccad_envs.errors import SettingError
from cccad_envs.plain import Array

Index: TypeAlias = int | np.int64
"The number of a discrete action."


@final
class PermutedActions(gymnasium.ActionWrapper[object, Index, Index]):
    """Action i does what action `order[i]` did."""

    def __init__(self, env: gymnasium.Env[object, Index], order: Sequence[int] = ()) -> None:
        """Permute the actions of *env*; no *order* leaves them as they are.

        Raises:
            SettingError: the actions are not discrete, or *order* is no permutation of them.
        """
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Discrete):
            raise SettingError(f"actions that are permuted must be Discrete, not {env.action_space}")
        self._start, count = int(env.action_space.start), int(env.action_space.n)
        self._order = [int(place) for place in order] or list(range(count))
        if sorted(self._order) != list(range(count)):
            raise SettingError(f"'order' must have each of 0 to {count - 1} once: {list(order)}")

    def action(self, action: Index) -> Index:
        """Return what the environment is told."""
        return self._start + self._order[int(action) - self._start]


@final
class ScaledActions(gymnasium.ActionWrapper[object, Array, Array]):
    """Every action is multiplied by *gain*, which may be negative, and cut to the bounds of the space."""

    def __init__(self, env: gymnasium.Env[object, Array], gain: float = 1.0) -> None:
        """Scale the actions of *env*.

        Raises:
            SettingError: the actions are no box.
        """
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Box):
            raise SettingError(f"actions that are scaled must be a Box, not {env.action_space}")
        self._gain, self._low, self._high = gain, env.action_space.low, env.action_space.high

    def action(self, action: Array) -> Array:
        """Return what the environment is told."""
        return np.clip(self._gain * np.asarray(action), self._low, self._high).astype(self._low.dtype)


@final
class KeptFeatures(gymnasium.ObservationWrapper[Array, object, Array]):
    """Only the features *keep* of a vector are observed: what says which task it is can be left out."""

    def __init__(self, env: gymnasium.Env[Array, object], keep: Sequence[int]) -> None:
        """Observe a part of what *env* observes.

        Raises:
            SettingError: observations are no vector, or have no such features.
        """
        super().__init__(env)
        space, self._keep = env.observation_space, [int(place) for place in keep]
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise SettingError(f"features can be kept of a Box of one dimension, not of {space}")
        if not self._keep or not set(self._keep) <= set(range(space.shape[0])):
            raise SettingError(f"'keep' must have some of 0 to {space.shape[0] - 1}: {list(keep)}")
        self.observation_space = spaces.Box(space.low[self._keep], space.high[self._keep], dtype=space.dtype.type)

    def observation(self, observation: Array) -> Array:
        """Return the features that are kept."""
        return np.asarray(observation)[self._keep]
