"""Reacher-v5 with a hidden target, and an expert who knows it: inverse kinematics and a controller."""

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

UPPER, LOWER = 0.1, 0.11  # lengths of the arm, in metres
GAIN, DAMPING = 1.0, 0.2
SEEN = (0, 1, 2, 3, 6, 7)  # cosines and sines of both joints, and their velocities; not the target, nor the way to it


class HiddenTarget(gym.Wrapper):  # type: ignore[type-arg]
    """Reacher with its target always in one place, which is not observed.

    The target lies at *distance* from the base, in direction *angle* (radians). An episode is a success where it ends
    with the fingertip within 2 cm of the target.
    """

    def __init__(self, env: gym.Env[Any, Any], angle: float, distance: float) -> None:
        super().__init__(env)
        self.target = np.array(target_at(angle, distance))
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (len(SEEN),), np.float32)

    def reset(self, **settings: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode, with the target where it belongs."""
        _, infos = self.env.reset(**settings)
        bare: Any = self.env.unwrapped
        qpos, qvel = bare.data.qpos.copy(), bare.data.qvel.copy()
        qpos[-2:] = bare.goal = self.target
        bare.set_state(qpos, qvel)
        return self._seen(bare._get_obs()), infos  # noqa: SLF001  # Gymnasium offers no other way to look again

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one env step."""
        whole, reward, terminated, truncated, infos = self.env.step(action)
        success = bool(np.linalg.norm(whole[8:10]) < 0.02)
        return self._seen(whole), float(reward), terminated, truncated, {**infos, "success": success}

    def _seen(self, whole: NDArray[np.float64]) -> NDArray[np.float32]:
        return whole[list(SEEN)].astype(np.float32)


def target_at(angle: Any, distance: Any) -> tuple[Any, Any]:
    """Return the coordinates of a target."""
    return distance * np.cos(angle), distance * np.sin(angle)


def expert(observations: NDArray[np.float32], params: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float32]:
    """Return the torques, `r 2`, that bring the fingertip to the target: the angles to take up, and a controller."""
    x, y = target_at(params["angle"], params["distance"])
    cos1, cos2, sin1, sin2, velocity1, velocity2 = observations.T
    first, second = np.arctan2(sin1, cos1), np.arctan2(sin2, cos2)
    bend = np.clip((x**2 + y**2 - UPPER**2 - LOWER**2) / (2 * UPPER * LOWER), -1.0, 1.0)
    ways = []
    for elbow in (np.arccos(bend), -np.arccos(bend)):  # bent to either side: the nearer one is taken
        shoulder = np.arctan2(y, x) - np.arctan2(LOWER * np.sin(elbow), UPPER + LOWER * np.cos(elbow))
        ways.append((_turn(shoulder - first), _turn(elbow - second)))
    (turn1, turn2), (other1, other2) = ways
    is_nearer = np.abs(turn1) + np.abs(turn2) <= np.abs(other1) + np.abs(other2)
    turns = np.where(is_nearer, turn1, other1), np.where(is_nearer, turn2, other2)
    torques = [GAIN * turn - DAMPING * speed for turn, speed in zip(turns, (velocity1, velocity2), strict=True)]
    return np.clip(np.stack(torques, axis=1), -1.0, 1.0).astype(np.float32)


def _turn(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return *angle* as one from -pi to pi."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
