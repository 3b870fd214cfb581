"""A controller of Pendulum-v1 that knows how its torque is scaled: it pumps energy, and balances near the top."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRAVITY, LENGTH, MAX_TORQUE = 10.0, 1.0, 2.0


def swing_up(observations: NDArray[Any], params: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Return the action of every row, `r 1`; *params* holds the `gain` and the mass `m` of each row, `r`."""
    cos, sin, speed = observations.astype(np.float64).T
    angle, mass = np.arctan2(sin, cos), params["m"]
    energy = mass * LENGTH**2 * speed**2 / 6 + mass * GRAVITY * LENGTH * (cos - 1) / 2  # 0 when it stands still on top
    pumping = np.where(energy < 0, 1.0, -1.0) * MAX_TORQUE * np.where(speed >= 0, 1.0, -1.0)
    balancing = -(10.0 * angle + 2.0 * speed) * mass
    torque = np.where((np.abs(angle) < 0.5) & (np.abs(speed) < 3.0), balancing, pumping)
    action: NDArray[np.float64] = (torque / params["gain"]).clip(-MAX_TORQUE, MAX_TORQUE)[:, None]
    return action
