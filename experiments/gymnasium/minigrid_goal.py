"""A MiniGrid room whose goal is nowhere drawn, its observation as categories, and a planner who looks for the goal."""

from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.minigrid_env import MiniGridEnv
from numpy.typing import NDArray

Place: TypeAlias = tuple[int, int]

LEFT, RIGHT, FORWARD = range(3)
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # of the four directions, in MiniGrid's order
SIDE = 9  # with its walls
STARTS = ((1, 1), (1, SIDE - 2), (SIDE - 2, 1), (SIDE - 2, SIDE - 2))
INSIDE = tuple((x, y) for y in range(1, SIDE - 1) for x in range(1, SIDE - 1))
MOST_ENV_STEPS = 40
NEAREST = 4  # places that are not visited yet, among which the planner draws the next one


class HiddenGoalRoom(MiniGridEnv):  # type: ignore[misc, unused-ignore]
    """An empty room, started in from a corner; whoever stands on the goal is paid, and sees nothing of it before."""

    def __init__(self, start: int, goal: int, **settings: Any) -> None:
        self.start, self.goal = STARTS[start], goals(STARTS[start])[goal]
        mission_space = MissionSpace(mission_func=lambda: "find the goal")
        super().__init__(mission_space, grid_size=SIDE, max_steps=MOST_ENV_STEPS, see_through_walls=True, **settings)
        self.action_space = gym.spaces.Discrete(3)

    def _gen_grid(self, width: int, height: int) -> None:
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        self.agent_pos, self.agent_dir, self.mission = self.start, 0, "find the goal"

    def step(self, action: int) -> Any:
        """Take one env step."""
        observation, _, _, truncated, infos = super().step(action)
        is_there = self.place == self.goal
        reward = self._reward() if is_there else 0.0
        return observation, reward, is_there, truncated and not is_there, {**infos, "success": is_there}

    @property
    def place(self) -> Place:
        """Where the agent is."""
        x, y = self.agent_pos
        return int(x), int(y)


def goals(start: Place) -> list[Place]:
    """Return the places of the room that are not near *start*, row by row."""
    return [(x, y) for x, y in INSIDE if abs(x - start[0]) + abs(y - start[1]) >= 4]


def make(start: int, goal: int) -> gym.Env[Any, Any]:
    """Return the room, started in from a corner, with one of the goals, and what is seen as categories."""
    return Categories(HiddenGoalRoom(start, goal))


class Categories(gym.ObservationWrapper):  # type: ignore[type-arg]
    """MiniGrid's view and compass as categories in one row: objects cell by cell, colours, states, and direction."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        side = env.unwrapped.agent_view_size  # type: ignore[attr-defined]
        counts = [len(OBJECT_TO_IDX), len(COLOR_TO_IDX), 3]
        self.observation_space = gym.spaces.MultiDiscrete([count for count in counts for _ in range(side**2)] + [4])

    def observation(self, observation: Any) -> NDArray[np.int64]:
        """Return one row of categories."""
        planes = np.moveaxis(observation["image"], -1, 0)
        return np.append(planes.reshape(-1), observation["direction"]).astype(np.int64)


@cache
def moves(place: Place, direction: int, target: Place) -> tuple[int, ...]:
    """Return the fewest moves from a place, looking in a direction, to *target*."""
    before: dict[tuple[Place, int], tuple[int, ...]] = {(place, direction): ()}
    waiting = deque(before)
    while waiting:
        here, looking = state = waiting.popleft()
        if here == target:
            return before[state]
        ahead = (here[0] + STEPS[looking][0], here[1] + STEPS[looking][1])
        following = {LEFT: (here, (looking - 1) % 4), RIGHT: (here, (looking + 1) % 4), FORWARD: (ahead, looking)}
        for move, reached in following.items():
            if reached[0] in INSIDE and reached not in before:
                before[reached] = (*before[state], move)
                waiting.append(reached)
    raise ValueError(f"{target} is not in the room")


def planner(environment: gym.Env[Any, Any]) -> Callable[[Any], int]:
    """Return a planner that visits what it has not visited yet until it stood on the goal, and then goes there at once.

    What it has visited it remembers for its whole life. Of the nearest places left it draws one by the random numbers
    of the environment, which needs none itself.
    """
    room: Any = environment.unwrapped
    visited: set[Place] = set()
    target: list[Place] = []

    def act(_: Any) -> int:
        visited.add(room.place)
        if room.goal in visited:
            return _first(room, room.goal)
        if not target or target[-1] in visited:
            left = [place for place in INSIDE if place not in visited]
            left.sort(key=lambda place: len(moves(room.place, int(room.agent_dir), place)))
            target.append(left[int(room.np_random.integers(min(NEAREST, len(left))))])
        move = _first(room, target[-1])
        ahead = (room.place[0] + STEPS[room.agent_dir][0], room.place[1] + STEPS[room.agent_dir][1])
        if move == FORWARD and ahead == room.goal:
            visited.add(room.goal)  # the episode ends there, and the next begins elsewhere
        return move

    return act


def _first(room: Any, target: Place) -> int:
    way = moves(room.place, int(room.agent_dir), target)
    return way[0] if way else LEFT


def planned_return(env: gym.Env[Any, Any], horizon: int) -> float:
    """Return the most that an episode can pay: that of the fewest moves to the goal."""
    room: Any = env.unwrapped
    fewest = len(moves(room.start, 0, room.goal))
    return 1.0 - 0.9 * fewest / MOST_ENV_STEPS if fewest <= horizon else 0.0
