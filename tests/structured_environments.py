"""Tiny environments whose observations and actions have parts, for tests that cross the packages."""

import gymnasium
import numpy as np
from gymnasium import spaces

SIDE = 64


class Beacon(gymnasium.Env):
    """A corridor seen from above, 64x64x3: the agent is a white block; a hidden end of the corridor pays."""

    observation_space = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
    action_space = spaces.Discrete(3, start=1)

    def __init__(self, goal=0, length=5, noise=0):
        self.goal, self.length, self.noise = goal, length, noise
        rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
        self._ground = np.stack([columns * 2, rows, (columns // 8 + rows // 8) % 2 * 90], -1)

    def _frame(self):
        frame = self._ground.copy()
        frame[24:40, self.place * 12 : self.place * 12 + 12] = 255
        return frame

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.length // 2
        return self._frame(), {}

    def step(self, action):
        self.place = int(np.clip(self.place + action - 2, 0, self.length - 1))
        return self._frame(), float(self.place == self.goal), False, False, {}


class Parts(gymnasium.Env):
    """A needle to be turned to a hidden place by a move and a push; its mission is told in words."""

    observation_space = spaces.Dict(
        place=spaces.Box(-1.0, 1.0, (2,), np.float32),
        pair=spaces.Tuple((spaces.Discrete(4, start=1), spaces.MultiBinary(2))),
        mission=spaces.Text(20),
    )
    action_space = spaces.Dict(move=spaces.Discrete(3, start=-1), push=spaces.Box(-0.5, 0.5, (1,), np.float32))

    def __init__(self, goal=0.0):
        self.goal = goal

    def _shown(self):
        pair = (1 + self.count % 4, np.array([self.place > 0, self.place < 0], np.int8))
        return {"place": np.array([self.place, 0.0], np.float32), "pair": pair, "mission": "turn"}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.count = 0.0, 0
        return self._shown(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.count += 1
        self.place = float(np.clip(self.place + 0.3 * action["move"] + 0.2 * float(action["push"][0]), -1, 1))
        return self._shown(), 1.0 - abs(self.place - self.goal), False, False, {}


class Dials(gymnasium.Env):
    """Two dials that are to be set as a hidden code says, in one choice of several."""

    observation_space = spaces.MultiBinary(2)
    action_space = spaces.MultiDiscrete([3, 4], start=[0, 1])

    def __init__(self, first=0, second=1):
        self.code = np.array([first, second])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.int8), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        right = (action == self.code).astype(np.int8)
        return right, float(right.mean()), False, False, {}
