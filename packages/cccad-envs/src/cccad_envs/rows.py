"""Vector environments in which each environment is a row of a few arrays, so that one call moves them all.

This module holds what every one of them shares: which rows need a reset, the clock, truncation at the horizon,
the checks. A family's environment adds its state and a handful of methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, TypeAlias, TypedDict, final

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from cccad_envs.errors import ActionError, NotResetError, SettingError
from cccad_envs.plain import Array, Table
from cccad_envs.spaces import checked_numbers, gymnasium_space, is_box
from cccad_envs.streams import RowStreams
from cccad_envs.tasks import AnyTask

Frame: TypeAlias = NDArray[np.uint8] | str
Outcome: TypeAlias = tuple[Array, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], Table]

RENDER_MODES = ("ansi", "rgb_array")
AUTORESET_MODES = (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)


class Modes(TypedDict):
    """How rows restart and are drawn: the keyword arguments of every `RowsEnv`."""

    autoreset_mode: AutoresetMode
    render_mode: str | None


class PlayedFamily(Protocol):
    """What rows need to know of the family whose tasks they play: its horizon and its spaces as plain dicts."""

    horizon: int
    spaces: dict[str, Table]

    def time_limits(self, tasks: Sequence[AnyTask], /) -> NDArray[np.int64]:
        """Return after how many env steps an episode of each task is cut off, `e`."""


class RowsEnv(VectorEnv[Array, Array, Array], ABC):
    """A vector environment of `e` rows, written without a loop over rows.

    With `AutoresetMode.SAME_STEP` a row whose episode ends restarts at once: its observation is the next episode's
    first. With `AutoresetMode.DISABLED` it must be reset by `reset(options={"reset_mask": ...})`. In either mode
    `infos["final_obs"]` holds the true next observation of *every* row, `e o`, and `infos["_final_obs"]`, `e`,
    tells the rows where it is the last one of an episode.

    A row lives one life after another, and a life is a row of episodes. A reset begins a new life, except in a row that
    waits for it with its episode over, when no seed is given: there the next episode of the same life begins. Row i
    draws its random numbers as if it were alone and had been reset with *seed* + i.
    """

    def __init__(
        self, family: PlayedFamily, tasks: Sequence[AnyTask], *, autoreset_mode: AutoresetMode, render_mode: str | None
    ) -> None:
        """Let row i play `tasks[i]`: set up spaces and the clock; every row still needs its first reset."""
        if not tasks:
            raise SettingError("a vector environment needs at least one task to play")
        if autoreset_mode not in AUTORESET_MODES:
            raise SettingError(f"'autoreset_mode' must be SAME_STEP or DISABLED: {autoreset_mode!r}")
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise SettingError(f"'render_mode' must be {' or '.join(map(repr, RENDER_MODES))} or None: {render_mode!r}")
        self.tasks = tuple(tasks)
        self.num_envs = num_envs = len(tasks)
        self.single_observation_space = gymnasium_space(family.spaces["observation"])
        self.single_action_space = gymnasium_space(family.spaces["action"])
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"render_modes": list(RENDER_MODES), "render_fps": 8, "autoreset_mode": autoreset_mode}
        self.render_mode = render_mode
        self.horizon = family.horizon
        self._action_space_table = family.spaces["action"]
        self._time_limits = family.time_limits(tasks)
        self._autoreset = autoreset_mode is AutoresetMode.SAME_STEP
        self._elapsed_env_steps = np.zeros(num_envs, dtype=np.int64)
        self._needs_reset = np.ones(num_envs, dtype=np.bool_)
        self._episode = np.zeros(num_envs, dtype=np.int64)  # within the row's life
        self._streams = RowStreams(num_envs)

    @abstractmethod
    def _observe(self) -> Array:
        """Return a fresh array of the observations of all rows, `e o`."""

    @abstractmethod
    def _restart(self, rows: NDArray[np.bool_]) -> None:
        """Put the marked rows, `e`, back to an episode's start."""

    @abstractmethod
    def _advance(self, actions: Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Move all rows by *actions*, `e` or `e a`; return rewards and terminations, `e`."""

    @abstractmethod
    def _best_actions(self) -> Array:
        """Return an optimal action of every row, `e` or `e a`."""

    @abstractmethod
    def _draw(self, row: int, mode: str) -> Frame:
        """Return one row as text (`ansi`) or as an image, `height width 3` (`rgb_array`)."""

    @final
    def reset(self, *, seed: int | None = None, options: Table | None = None) -> tuple[Array, Table]:
        """Start new episodes in all rows, or in those marked by `options["reset_mask"]`, bool `e`.

        Raises:
            SettingError: the mask is not a boolean array with one entry per row.
        """
        super().reset(seed=seed)
        rows = np.ones(self.num_envs, dtype=np.bool_)
        if options is not None and "reset_mask" in options:
            rows = options["reset_mask"]
            if not isinstance(rows, np.ndarray) or rows.dtype != np.bool_ or rows.shape != (self.num_envs,):
                raise SettingError(f"'reset_mask' must be a boolean array of shape ({self.num_envs},): {rows!r}")
        goes_on = self._needs_reset & (self._elapsed_env_steps > 0) & (seed is None)
        self._episode[rows & ~goes_on] = 0
        if seed is not None:
            self._streams.seed(seed, rows)
        elif (strange := rows & ~self._streams.is_seeded).any():
            self._streams.seed(int(self.np_random.integers(2**63)), strange)
        self._begin(rows)
        return self._observe(), {}

    @final
    def step(self, actions: Array) -> Outcome:
        """Take one env step in every row: (observations `e o`, rewards, terminations, truncations `e`, infos).

        Raises:
            ActionError: *actions* is not one action within the action space per row.
            NotResetError: a row has not been reset yet, or its episode is over and it does not restart by itself.
        """
        self._require_running()
        rewards, terminations = self._advance(self._checked(actions))
        self._elapsed_env_steps += 1
        truncations = self._elapsed_env_steps >= self._time_limits
        ended = terminations | truncations
        self._episode += ended
        true_next = self._observe()
        observations = true_next.copy()
        if ended.any():
            if self._autoreset:
                self._begin(ended)
                observations = self._observe()
            else:
                self._needs_reset |= ended
        return observations, rewards, terminations, truncations, {"final_obs": true_next, "_final_obs": ended}

    @final
    def optimal_actions(self) -> Array:
        """Return an action for every row, `e` or `e a`, that is optimal for an agent who knows the task.

        Raises:
            NotResetError: a row has not been reset yet, or its episode is over and it does not restart by itself.
        """
        self._require_running()
        return self._best_actions()

    @final
    def render(self) -> tuple[Frame, ...] | None:
        """Return one frame per row in the chosen `render_mode`, or None without one."""
        if self.render_mode is None:
            return None
        return tuple(self._draw(row, self.render_mode) for row in range(self.num_envs))

    def _begin(self, rows: NDArray[np.bool_]) -> None:
        self._restart(rows)
        self._elapsed_env_steps[rows] = 0
        self._needs_reset[rows] = False

    def _require_running(self) -> None:
        if self._needs_reset.any():
            row = int(self._needs_reset.argmax())
            fault = "its episode is over" if self._elapsed_env_steps[row] else "it has never been reset"
            raise NotResetError(f"row {row} of {self.num_envs} cannot go on, {fault}: call reset() first")

    def _checked(self, actions: Array) -> Array:
        space = self._action_space_table
        if is_box(space):
            return checked_numbers("actions", actions, space, self.num_envs, place="in row", error=ActionError)
        array, num_actions = np.asarray(actions), space["n"]
        if array.dtype.kind not in "iu":
            raise ActionError(f"actions must be whole numbers, got {array.dtype}")
        if array.shape != (self.num_envs,):
            raise ActionError(f"actions must have shape ({self.num_envs},), one for each row, got {array.shape}")
        wrong = (array < 0) | (array >= num_actions)
        if wrong.any():
            row = int(wrong.argmax())
            raise ActionError(f"actions must be 0 to {num_actions - 1}, got {array[row]} in row {row}")
        return array.astype(np.int64, copy=False)
