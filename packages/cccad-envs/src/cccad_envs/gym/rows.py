"""Environments of several tasks, side by side, under the contract of our vector environments."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from attrs import define, field
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from cccad_envs.errors import NotResetError, PlayError, SettingError
from cccad_envs.gym.imports import in_one_line
from cccad_envs.gym.making import Env, Recipe, reset
from cccad_envs.gym.spaces import Side, acted, observed
from cccad_envs.plain import Array, Parameter, Table


@define(eq=False)
class Row:
    """One environment: its task's reset seed and options, and the chance of its dynamics."""

    env: Env
    name: str
    seed: int | None  # of every reset, where a seed is what makes the task
    options: Table
    is_seeded: bool = False
    chance: np.random.Generator = field(factory=lambda: np.random.default_rng(0))

    def begin(self, seed: int | None) -> object:
        """Return the first observation of an episode; with a *seed*, the row's random numbers begin anew.

        Where the seed of a reset makes the task, every reset has it, and what chance decides within the episode is
        drawn from the row's own numbers: else all episodes would be the same to the last detail.
        """
        self.is_seeded = self.is_seeded or seed is not None
        if self.seed is None:
            return reset(self.env, self.name, seed, self.options)
        if seed is not None:
            self.chance = np.random.Generator(np.random.PCG64(seed))
        first = reset(self.env, self.name, self.seed, self.options)
        self.env.unwrapped.np_random = self.chance
        return first


class GymRows(VectorEnv[Array, Array, Array]):
    """Row i plays the task with the i-th parameters; a row whose episode ends restarts in the same env step.

    `infos["final_obs"]`, `e o`, holds the true next observation of every row, and `infos["_final_obs"]`, `e`, says
    where it is the last one of an episode. `infos["success"]`, `e`, is there where the environments report success.
    """

    def __init__(
        self,
        recipe: Recipe,
        sides: Mapping[str, Side],
        params: Sequence[Mapping[str, Parameter]],
        *,
        horizon: int,
        success: str = "",
    ) -> None:
        """Make an environment for every row; each still needs its first reset."""
        if not params:
            raise SettingError("a vector environment needs at least one task to play")
        self.recipe, self.horizon, self.num_envs = recipe, horizon, len(params)
        self._observation, self._action, self._success = sides["observation"], sides["action"], success
        self.single_observation_space, self.single_action_space = self._observation.batched, self._action.batched
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.rows = [Row(recipe.build(each), recipe.name, *recipe.resets(each)) for each in params]
        self._now: list[object] = [None] * self.num_envs
        self._age = np.zeros(self.num_envs, np.int64)
        self._running = np.zeros(self.num_envs, np.bool_)

    @property
    def envs(self) -> list[Env]:
        """The environment of every row, for experts that look inside."""
        return [row.env for row in self.rows]

    @final
    def reset(self, *, seed: int | None = None, options: Table | None = None) -> tuple[Array, Table]:
        """Begin a new life in every row, or in those marked by `options["reset_mask"]`, bool `e`; row i has *seed* + i.

        Raises:
            SettingError: the mask is not a boolean array with one entry per row.
            PlayError: an environment fails.
        """
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise SettingError(f"'reset_mask' must be a boolean array of shape ({self.num_envs},): {mask!r}")
        for row in np.flatnonzero(mask).tolist():
            strange = seed is None and not self.rows[row].is_seeded
            number = int(np.random.SeedSequence().entropy or 0) if strange else None  # type: ignore[arg-type]
            self._now[row] = self.rows[row].begin(number if seed is None else seed + row)
        self._age[mask], self._running[mask] = 0, True
        return self._observe(self._now) if self._running.all() else self._partly(), {}

    def _partly(self) -> Array:
        """Return what the rows observe where some were never reset; theirs are those of the first that was."""
        first = next(now for now in self._now if now is not None)
        return self._observe([first if now is None else now for now in self._now])

    @final
    def step(self, actions: Any) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_], Table]:
        """Take one env step in every row: (observations `e o`, rewards, terminations, truncations `e`, infos).

        Raises:
            ActionError: *actions* are not one action per row.
            NotResetError: a row has not been reset yet.
            PlayError: an environment fails, or returns no finite reward.
        """
        if not self._running.all():
            raise NotResetError(f"row {int(self._running.argmin())} has never been reset: call reset() first")
        chosen = acted(self._action, actions, self.num_envs)
        rewards = np.zeros(self.num_envs)
        terminations, truncations, success = (np.zeros(self.num_envs, np.bool_) for _ in range(3))
        for index, action in enumerate(chosen):
            outcome = self._step_one(index, action)
            self._now[index], rewards[index], terminations[index], truncations[index], info = outcome
            success[index] = bool(info.get(self._success, False)) if self._success else False
        if not np.isfinite(rewards).all():
            raise PlayError(f"a reward of {self.recipe.name} is not finite: {rewards[~np.isfinite(rewards)][0]}")
        self._age += 1
        truncations |= (self._age >= self.horizon) & ~terminations
        ended = terminations | truncations
        true_next = self._observe(self._now)
        observations = true_next.copy()
        if ended.any():
            for index in np.flatnonzero(ended).tolist():
                self._now[index] = self.rows[index].begin(None)
            self._age[ended] = 0
            observations = self._observe(self._now)
        infos: Table = {"final_obs": true_next, "_final_obs": ended}
        return observations, rewards, terminations, truncations, infos | ({"success": success} if self._success else {})

    def _step_one(self, index: int, action: object) -> tuple[object, float, bool, bool, Table]:
        try:
            following, reward, is_terminated, is_truncated, info = self.rows[index].env.step(action)
            return following, float(reward), bool(is_terminated), bool(is_truncated), info
        except (Exception, SystemExit) as error:  # whatever the environment of a stranger raises
            what = f"{self.recipe.name} fails on action {action!r:.60} in env step {self._age[index]} of an episode"
            raise PlayError(f"{what}: {in_one_line(error)}") from error

    def _observe(self, values: Sequence[object]) -> Array:
        return observed(self._observation, values, self.recipe.name)

    def close_extras(self, **_: object) -> None:
        """Close every environment."""
        for row in self.rows:
            row.env.close()
