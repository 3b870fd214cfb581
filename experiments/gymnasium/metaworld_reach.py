"""Meta-World's reach-v3 with its goal hidden, and Meta-World's own expert, who is given the goal."""

from collections.abc import Callable
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from metaworld import ML1
from metaworld.policies import ENV_POLICY_MAP
from numpy.typing import NDArray

NAME = "reach-v3"
REPEATS = 3  # physics steps for one action, so that an episode of 75 is one of 25 decisions


@cache
def _ml1() -> ML1:
    """Return the benchmark: it makes the same 50 + 50 tasks whenever it is asked, which takes seconds."""
    return ML1(NAME, seed=0)


def make(task: int) -> "HiddenGoal":
    """Return the environment of a task of ML1: 0 to 49 are those that it trains on, 50 to 99 those that it tests on."""
    env = _ml1().train_classes[NAME]()
    env.set_task([*_ml1().train_tasks, *_ml1().test_tasks][task])
    return HiddenGoal(env)


class HiddenGoal(gym.Wrapper):  # type: ignore[type-arg]
    """The hand's place and the gripper are observed: not the goal, which ML1 hides, nor an object that has no part.

    The puck lies elsewhere in every task, so it would give each of them away by something that is not the goal. The
    reward is the mean of those of an action's physics steps, and success once is success of the episode.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.has_succeeded = False
        self.observation_space = gym.spaces.Box(-2.0, 2.0, (4,), np.float32)

    def reset(self, **settings: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode."""
        whole, infos = self.env.reset(**settings)
        self.has_succeeded = False
        return whole[:4].astype(np.float32), infos

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Hold an action for some physics steps."""
        rewards = []
        for _ in range(REPEATS):
            whole, reward, *_, infos = self.env.step(action)
            rewards.append(float(reward))
            self.has_succeeded = self.has_succeeded or bool(infos["success"])
        return (
            whole[:4].astype(np.float32),
            float(np.mean(rewards)),
            False,
            False,
            {**infos, "success": self.has_succeeded},
        )


def expert(environment: gym.Env[Any, Any]) -> Callable[[Any], NDArray[np.float32]]:
    """Return Meta-World's expert for this environment, told where the goal is, which it reads from an observation."""
    bare: Any = environment.unwrapped
    policy = ENV_POLICY_MAP[NAME]()

    def act(observation: NDArray[np.float32]) -> NDArray[np.float32]:
        whole = np.zeros(39)
        whole[:4], whole[-3:] = observation, bare._target_pos  # noqa: SLF001  # there is no other way to know it
        return np.clip(policy.get_action(whole), -1.0, 1.0).astype(np.float32)

    return act
