"""The smallest task families, for tests: a corridor, a track of real numbers and some levers.

The corridor has all that a source, a collection and an audit ask of a family; the others have what a source asks. In
the corridor the walker starts in the middle of `size` cells and sees its place. Actions: 0 right, 1 left, 2 stay.
Each env step that ends on the task's goal is worth 1. The episode is truncated at the horizon or, where the spec says
so, terminated on the goal.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from attrs import field, frozen, validators

from cccad_data.family import Task
from cccad_data.plain import Array, Parameter, Table

_MOVES = np.array([1, -1, 0])


@frozen(kw_only=True)
class CorridorTask:
    """A goal cell, a goal on the track, or the best lever."""

    task_id: str
    params: Mapping[str, Parameter]


@frozen(kw_only=True)
class CorridorSplit:
    """Tasks to learn from, and tasks kept apart."""

    train: tuple[CorridorTask, ...]
    held_out: tuple[CorridorTask, ...]


@frozen(kw_only=True)
class CorridorSpec:
    """A corridor of *size* cells."""

    size: int = field(
        default=7, validator=[validators.ge(2), validators.le(10_000)], metadata={"help": "cells of the corridor"}
    )
    horizon: int = field(
        default=8, validator=[validators.ge(1), validators.le(10_000)], metadata={"help": "env steps in an episode"}
    )
    ends_on_goal: bool = field(default=False, metadata={"help": "whether the goal terminates the episode"})
    breaks_on: str = field(
        default="", metadata={"help": "id of a task that cannot be played, to test what a failure does"}
    )

    def build(self) -> "Corridor":
        """Return the family."""
        return Corridor(self)


def _whole(task: Task, name: str) -> int:
    """Return a parameter of a toy's task, which is a whole number."""
    value = task.params[name]
    assert isinstance(value, int)
    return value


class _Listed:
    """A family whose tasks are a short list."""

    name: str
    tasks: tuple[CorridorTask, ...]

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


class Corridor(_Listed):
    """One task per cell."""

    name = "corridor"

    def __init__(self, spec: CorridorSpec) -> None:
        self.spec, self.horizon = spec, spec.horizon
        self.spaces: dict[str, Table] = {
            "observation": {"kind": "multi-discrete", "sizes": [spec.size]},
            "action": {"kind": "discrete", "n": 3},
        }
        self.tasks = tuple(
            CorridorTask(task_id=f"corridor-{spec.size}/goal-{goal}", params={"goal": goal})
            for goal in range(spec.size)
        )

    def make_vec(self, tasks: Sequence[Task]) -> "CorridorVec":
        """Return a vector environment whose row `i` plays `tasks[i]`."""
        if any(task.task_id == self.spec.breaks_on for task in tasks):
            raise RuntimeError(f"the corridor of {self.spec.breaks_on} has fallen in")
        return CorridorVec(self.spec, np.array([_whole(task, "goal") for task in tasks]))

    def next_observations(
        self, task: Task, observations: Array, actions: Array, *, recorded: Array | None = None
    ) -> Array:
        """Return where each action leads, `t o`."""
        places: Array = np.clip(observations + _MOVES[actions][:, None], 0, self.spec.size - 1)
        return places

    def replay(
        self,
        task: Task,
        observations: Array,
        actions: Array,
        next_observations: Array,
        episode_ends: Array,
        *,
        rewards: Array | None = None,
    ) -> tuple[Array, Array, Array]:
        """Return the rewards, terminations and truncations that the transitions must have had."""
        is_on_goal = next_observations[:, 0] == _whole(task, "goal")
        begins = np.concatenate(([0], episode_ends[:-1]))
        age = np.arange(len(actions)) - np.repeat(begins, np.diff(episode_ends, prepend=0)) + 1
        terminations = is_on_goal & self.spec.ends_on_goal
        return is_on_goal.astype(np.float32), terminations, (age == self.horizon) & ~terminations

    def optimal_return(self, task: Task) -> float:
        """Return the return of walking straight to the goal and staying there."""
        if self.spec.ends_on_goal:
            return 1.0
        return float(self.horizon - max(abs(_whole(task, "goal") - self.spec.size // 2), 1) + 1)

    def optimal_returns(self, tasks: Sequence[Task]) -> Array:
        """Return the optimum of every task, `e`."""
        return np.array([self.optimal_return(task) for task in tasks])

    def random_returns(self, tasks: Sequence[Task]) -> Array:
        """Return the random policy's return of every task, `e`."""
        return np.array([self.random_return(task) for task in tasks])

    def random_return(self, task: Task) -> float:
        """Return the expected return of uniformly random actions."""
        place = np.zeros(self.spec.size)
        place[self.spec.size // 2] = 1.0
        total = 0.0
        for _ in range(self.horizon):
            moved = np.zeros_like(place)
            for move in _MOVES:
                np.add.at(moved, np.clip(np.arange(self.spec.size) + move, 0, self.spec.size - 1), place / 3)
            total += moved[_whole(task, "goal")]
            place = moved
            if self.spec.ends_on_goal:
                place[_whole(task, "goal")] = 0.0
        return total


class _Vec(ABC):
    """Environments played together; an episode's end is followed by the next one's start in the same env step."""

    def __init__(self, horizon: int, goals: Array, start: Array) -> None:
        self.horizon, self.goals, self.start, self.num_envs = horizon, goals, start, len(goals)
        self.places, self.ages = np.tile(start, (len(goals), 1)), np.zeros(len(goals), np.int64)  # e o, e
        self.chance: dict[int, np.random.Generator] = {}

    def reset(self, *, seed: int | None = None, options: Mapping[str, Array] | None = None) -> tuple[Array, Table]:
        """Put everyone, or the rows of `options["reset_mask"]`, at the start; row i gets the stream of *seed* + i."""
        rows = np.flatnonzero((options or {}).get("reset_mask", np.ones(self.num_envs, bool)))
        self.places[rows], self.ages[rows] = self.start, 0
        self.chance |= {row: np.random.Generator(np.random.PCG64((seed or 0) + row)) for row in rows.tolist()}
        return self.places.copy(), {}

    @abstractmethod
    def _play(self, actions: Array) -> tuple[Array, Array]:
        """Change the places; return rewards and terminations."""

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, Table]:
        """Let everyone act."""
        rewards, terminations = self._play(actions)
        self.ages += 1
        truncations = (self.ages == self.horizon) & ~terminations
        ended = terminations | truncations
        infos = {"final_obs": self.places.copy(), "_final_obs": ended}
        self.places[ended], self.ages[ended] = self.start, 0
        return self.places.copy(), rewards, terminations, truncations, infos


class CorridorVec(_Vec):
    """Corridors."""

    def __init__(self, spec: CorridorSpec, goals: Array) -> None:
        super().__init__(spec.horizon, goals, np.array([spec.size // 2], np.uint8))
        self.spec = spec

    def _play(self, actions: Array) -> tuple[Array, Array]:
        moved = self.places.astype(np.int64) + _MOVES[actions][:, None]
        self.places = moved.clip(0, self.spec.size - 1).astype(np.uint8)
        is_on_goal = self.places[:, 0] == self.goals
        return is_on_goal.astype(np.float64), is_on_goal & self.spec.ends_on_goal

    def optimal_actions(self) -> Array:
        """Return the way to the goal."""
        return np.select([self.goals > self.places[:, 0], self.goals < self.places[:, 0]], [0, 1], 2)


@frozen(kw_only=True)
class TrackSpec:
    """A track from -1 to 1, where each env step pays the more the nearer it ends to the goal."""

    horizon: int = field(default=8, validator=validators.ge(1), metadata={"help": "env steps in an episode"})

    def build(self) -> "Track":
        """Return the family."""
        return Track(self)


class Track(_Listed):
    """Observations and actions are boxes; an action of 1 moves the runner by 0.25."""

    name = "track"

    def __init__(self, spec: TrackSpec) -> None:
        self.spec, self.horizon = spec, spec.horizon
        box = {"kind": "box", "shape": [1], "low": -1.0, "high": 1.0}
        self.spaces: dict[str, Table] = {"observation": box, "action": box}
        self.tasks = tuple(CorridorTask(task_id=f"track/{goal}", params={"goal": goal}) for goal in (-75, -25, 25, 75))

    def make_vec(self, tasks: Sequence[Task]) -> "TrackVec":
        """Return a vector environment whose row `i` plays `tasks[i]`."""
        goals = np.array([_whole(task, "goal") / 100 for task in tasks])
        return TrackVec(self.horizon, goals, np.zeros(1, np.float32))

    def optimal_return(self, task: Task) -> float:
        """Return the return of running to the goal and staying there."""
        away = abs(_whole(task, "goal")) / 100 - 0.25 * np.arange(1, self.horizon + 1)
        return float((1.0 - away.clip(0.0)).sum())

    def optimal_returns(self, tasks: Sequence[Task]) -> Array:
        """Return the optimum of every task, `e`."""
        return np.array([self.optimal_return(task) for task in tasks])


class TrackVec(_Vec):
    """Tracks."""

    def _play(self, actions: Array) -> tuple[Array, Array]:
        assert np.abs(actions).max() <= 1.0
        self.places = (self.places + 0.25 * actions).clip(-1.0, 1.0).astype(np.float32)
        return 1.0 - np.abs(self.places[:, 0] - self.goals), np.zeros(self.num_envs, bool)


@frozen(kw_only=True)
class LeversSpec:
    """Some levers that pay 1 or 0; one of them pays four times in five, the others once in five."""

    num_levers: int = field(default=4, validator=validators.ge(2), metadata={"help": "levers to choose from"})
    horizon: int = field(default=20, validator=validators.ge(1), metadata={"help": "env steps in an episode"})

    def build(self) -> "Levers":
        """Return the family."""
        return Levers(self)


class Levers(_Listed):
    """A bandit: one state, and rewards by chance."""

    name = "levers"
    has_random_rewards = True

    def __init__(self, spec: LeversSpec) -> None:
        self.spec, self.horizon = spec, spec.horizon
        self.spaces: dict[str, Table] = {
            "observation": {"kind": "multi-discrete", "sizes": [1]},
            "action": {"kind": "discrete", "n": spec.num_levers},
        }
        self.tasks = tuple(
            CorridorTask(task_id=f"levers/{best}", params={"best": best}) for best in range(spec.num_levers)
        )

    def make_vec(self, tasks: Sequence[Task]) -> "LeversVec":
        """Return a vector environment whose row `i` plays `tasks[i]`."""
        return LeversVec(self.horizon, np.array([_whole(task, "best") for task in tasks]), np.zeros(1, np.uint8))


class LeversVec(_Vec):
    """Levers, each row with a stream of random numbers of its own."""

    def _play(self, actions: Array) -> tuple[Array, Array]:
        drawn = np.array([self.chance[row].random() for row in range(self.num_envs)])
        pays = drawn < np.where(actions == self.goals, 0.8, 0.2)
        return pays.astype(np.float64), np.zeros(self.num_envs, bool)

    def optimal_actions(self) -> Array:
        """Return the best levers."""
        return self.goals
