"""A corridor: the smallest task family that has all a source, a collection and an audit ask of one. For tests.

The walker starts in the middle of ``size`` cells and sees its place. Actions: 0 right, 1 left, 2 stay. Each env step
that ends on the task's goal is worth 1. The episode is truncated at the horizon or, where the spec says so, terminated
on the goal.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attrs import field, frozen, validators

from cccad_data.history import Array

_MOVES = np.array([1, -1, 0])


@frozen(kw_only=True)
class CorridorTask:
    """A goal cell."""

    task_id: str
    params: Mapping[str, int]


@frozen(kw_only=True)
class CorridorSplit:
    """Tasks to learn from, and tasks kept apart."""

    train: tuple[CorridorTask, ...]
    held_out: tuple[CorridorTask, ...]


@frozen(kw_only=True)
class CorridorSpec:
    """A corridor of *size* cells."""

    size: int = field(default=7, validator=validators.ge(2))
    horizon: int = field(default=8, validator=validators.ge(1))
    ends_on_goal: bool = False
    breaks_on: str = ""
    "Id of a task that cannot be played, to test what a failure does."

    def build(self) -> "Corridor":
        """Return the family."""
        return Corridor(self)


class Corridor:
    """One task per cell."""

    name = "corridor"

    def __init__(self, spec: CorridorSpec) -> None:
        self.spec, self.horizon = spec, spec.horizon
        self.spaces = {
            "observation": {"kind": "multi-discrete", "sizes": [spec.size]},
            "action": {"kind": "discrete", "n": 3},
        }
        self.tasks = tuple(
            CorridorTask(task_id=f"corridor-{spec.size}/goal-{goal}", params={"goal": goal})
            for goal in range(spec.size)
        )

    def task(self, task_id: str) -> CorridorTask:
        """Return the task of that id; raises LookupError when there is none."""
        for task in self.tasks:
            if task.task_id == task_id:
                return task
        raise LookupError(f"there is no task {task_id!r}")

    def split(self, seed: int = 0, held_out_frac: float = 0.2) -> CorridorSplit:
        """Hold out a fraction of the tasks, chosen by *seed*."""
        order = np.random.Generator(np.random.PCG64(seed)).permutation(len(self.tasks))
        held_out = set(order[: max(1, round(held_out_frac * len(order)))].tolist())
        return CorridorSplit(
            train=tuple(task for i, task in enumerate(self.tasks) if i not in held_out),
            held_out=tuple(task for i, task in enumerate(self.tasks) if i in held_out),
        )

    def make_vec(self, tasks: Sequence[CorridorTask]) -> "CorridorVec":
        """Return a vector environment whose row ``i`` plays ``tasks[i]``."""
        if any(task.task_id == self.spec.breaks_on for task in tasks):
            raise RuntimeError(f"the corridor of {self.spec.breaks_on} has fallen in")
        return CorridorVec(self.spec, np.array([task.params["goal"] for task in tasks]))

    def next_observations(self, task: CorridorTask, observations: Array, actions: Array) -> Array:
        """Return where each action leads, ``t o``."""
        places: Array = np.clip(observations + _MOVES[actions][:, None], 0, self.spec.size - 1)
        return places

    def replay(
        self, task: CorridorTask, observations: Array, actions: Array, next_observations: Array, episode_ends: Array
    ) -> tuple[Array, Array, Array]:
        """Return the rewards, terminations and truncations that the transitions must have had."""
        is_on_goal = next_observations[:, 0] == task.params["goal"]
        begins = np.concatenate(([0], episode_ends[:-1]))
        age = np.arange(len(actions)) - np.repeat(begins, np.diff(episode_ends, prepend=0)) + 1
        terminations = is_on_goal & self.spec.ends_on_goal
        return is_on_goal.astype(np.float32), terminations, (age == self.horizon) & ~terminations

    def optimal_return(self, task: CorridorTask) -> float:
        """Return the return of walking straight to the goal and staying there."""
        if self.spec.ends_on_goal:
            return 1.0
        return float(self.horizon - max(abs(task.params["goal"] - self.spec.size // 2), 1) + 1)

    def random_return(self, task: CorridorTask) -> float:
        """Return the expected return of uniformly random actions."""
        place = np.zeros(self.spec.size)
        place[self.spec.size // 2] = 1.0
        total = 0.0
        for _ in range(self.horizon):
            moved = np.zeros_like(place)
            for move in _MOVES:
                np.add.at(moved, np.clip(np.arange(self.spec.size) + move, 0, self.spec.size - 1), place / 3)
            total += moved[task.params["goal"]]
            place = moved
            if self.spec.ends_on_goal:
                place[task.params["goal"]] = 0.0
        return total


class CorridorVec:
    """Corridors played together; an episode's end is followed by the next one's start in the same env step."""

    def __init__(self, spec: CorridorSpec, goals: Array) -> None:
        self.spec, self.goals, self.num_envs = spec, goals, len(goals)
        self.places, self.ages = np.full(len(goals), spec.size // 2), np.zeros(len(goals), np.int64)

    def reset(self, *, seed: int | None = None) -> tuple[Array, dict[str, Any]]:
        """Put every walker in the middle."""
        self.places[:], self.ages[:] = self.spec.size // 2, 0
        return self.places[:, None].astype(np.uint8), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Move every walker."""
        self.places = np.clip(self.places + _MOVES[actions], 0, self.spec.size - 1)
        self.ages += 1
        rewards = (self.places == self.goals).astype(np.float64)
        terminations = (rewards > 0) & self.spec.ends_on_goal
        truncations = (self.ages == self.spec.horizon) & ~terminations
        ended = terminations | truncations
        infos = {"final_obs": self.places[:, None].astype(np.uint8), "_final_obs": ended}
        self.places = np.where(ended, self.spec.size // 2, self.places)
        self.ages[ended] = 0
        return self.places[:, None].astype(np.uint8), rewards, terminations, truncations, infos

    def optimal_actions(self) -> Array:
        """Return the way to the goal."""
        return np.select([self.goals > self.places, self.goals < self.places], [0, 1], 2)
