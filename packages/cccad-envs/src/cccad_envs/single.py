"""Single environments: each is one row of a vector environment, so that the dynamics are written only once."""

from typing import final

import gymnasium
import numpy as np

from cccad_envs.plain import Array, Table
from cccad_envs.rows import RENDER_MODES, Frame, RowsEnv


@final
class SingleEnv(gymnasium.Env[Array, Array | np.int64 | int]):
    """An ordinary `gymnasium.Env` over *rows*, a one-row batch that does not restart by itself."""

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": 8}  # noqa: RUF012  # gymnasium reads it from the class

    def __init__(self, rows: RowsEnv) -> None:
        """Take over the spaces and the render mode of *rows*."""
        assert rows.num_envs == 1
        self._rows = rows
        self.observation_space = rows.single_observation_space
        self.action_space = rows.single_action_space
        self.render_mode = rows.render_mode

    def reset(self, *, seed: int | None = None, options: Table | None = None) -> tuple[Array, Table]:
        """Start a new episode; *options* are accepted and none is known."""
        super().reset(seed=seed, options=options)
        observations, _ = self._rows.reset(seed=seed)
        return observations[0], {}

    def step(self, action: Array | np.int64 | int) -> tuple[Array, float, bool, bool, Table]:
        """Take one env step.

        Raises:
            ActionError: *action* is not in the action space.
            NotResetError: the episode has not begun, or is over.
        """
        observations, rewards, terminations, truncations, _ = self._rows.step(np.asarray(action)[None])
        return observations[0], float(rewards[0]), bool(terminations[0]), bool(truncations[0]), {}

    def optimal_action(self) -> Array | np.int64:
        """Return the action that an optimal agent who knows the task would take now.

        Raises:
            NotResetError: the episode has not begun, or is over.
        """
        best: Array | np.int64 = self._rows.optimal_actions()[0]
        return best

    def render(self) -> Frame | None:
        """Return the present state as text or as an image, `height width 3`, or None without a render mode."""
        frames = self._rows.render()
        return None if frames is None else frames[0]
