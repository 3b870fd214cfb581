"""CartPole as a task family: poles of many lengths, the rows of a few arrays, and the dynamics of Gymnasium's CartPole.

Barto, Sutton and Anderson 1983, as ``gymnasium``'s ``CartPole-v1`` has it; only the pole's length differs by task.
Legend: ``e`` environments; a state is place, speed, angle and angular speed (metres, radians, seconds).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen
from cccad_envs.streams import RowStreams
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

GRAVITY, CART_KG, POLE_KG, FORCE_N, FRAME_S = 9.8, 1.0, 0.1, 10.0, 0.02
ALL_KG = CART_KG + POLE_KG
EDGE = np.array([2.4, np.inf, np.radians(12.0), np.inf])  # beyond, the episode is over
START = 0.05  # every number of a first state is uniform within plus and minus this

Array = NDArray[Any]


@frozen(kw_only=True)
class CartPoleTask:
    """A pole of some length."""

    task_id: str
    params: Mapping[str, int]


class CartPole:
    """One task per length of the pole, in centimetres; Gymnasium's is 100."""

    name = "cart-pole"

    def __init__(self, lengths_cm: Sequence[int], horizon: int = 500) -> None:
        self.horizon = horizon
        high = [2.0 * edge for edge in EDGE.tolist()]
        self.spaces = {
            "observation": {"kind": "box", "shape": [4], "low": [-edge for edge in high], "high": high},
            "action": {"kind": "discrete", "n": 2},
        }
        self.tasks = tuple(CartPoleTask(task_id=f"cart-pole/{cm}-cm", params={"pole_cm": cm}) for cm in lengths_cm)

    def make_vec(self, tasks: Sequence[CartPoleTask]) -> "CartPoleRows":
        """Return the carts, one row for each of *tasks*."""
        return CartPoleRows(np.array([task.params["pole_cm"] / 100 for task in tasks]), self.horizon)


class CartPoleRows:
    """Carts with poles of these *lengths* in metres, ``e``; where an episode ends, the next one begins at once."""

    def __init__(self, lengths: Array, horizon: int) -> None:
        self.num_envs, self.horizon, self.half_lengths = len(lengths), horizon, lengths / 2
        self.single_observation_space = Box(-2.0 * EDGE.astype(np.float32), 2.0 * EDGE.astype(np.float32))
        self.single_action_space = Discrete(2)
        self.states, self.ages = np.zeros((self.num_envs, 4)), np.zeros(self.num_envs, np.int64)
        self._streams = RowStreams(self.num_envs)

    def reset(self, *, seed: int | None = None, options: Mapping[str, Array] | None = None) -> tuple[Array, Any]:
        """Begin episodes in all rows, or in those of ``options["reset_mask"]``."""
        rows = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_)))
        if seed is not None:
            self._streams.seed(seed, rows)
        self._begin(rows)
        return self.states.astype(np.float32), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Array]]:
        """Push every cart to the left (0) or to the right (1) for one frame; each frame pays 1."""
        _, speed, angle, turning = self.states.T
        cosine, sine = np.cos(angle), np.sin(angle)
        pushed = (np.where(actions == 1, FORCE_N, -FORCE_N) + POLE_KG * self.half_lengths * turning**2 * sine) / ALL_KG
        turned = (GRAVITY * sine - cosine * pushed) / (self.half_lengths * (4 / 3 - POLE_KG * cosine**2 / ALL_KG))
        moved = pushed - POLE_KG * self.half_lengths * turned * cosine / ALL_KG
        changes = np.stack([speed, moved, turning, turned], axis=1)
        self.states = self.states + FRAME_S * changes
        self.ages += 1
        terminations: Array = np.any(np.abs(self.states) > EDGE, axis=1)
        truncations = (self.ages >= self.horizon) & ~terminations
        ended = terminations | truncations
        infos = {"final_obs": self.states.astype(np.float32), "_final_obs": ended}
        self._begin(ended)
        rewards: Array = np.ones(self.num_envs)
        return self.states.astype(np.float32), rewards, terminations, truncations, infos

    def _begin(self, rows: Array) -> None:
        self.states[rows] = START * (2.0 * self._streams.uniform(rows, 4) - 1.0)
        self.ages[rows] = 0
