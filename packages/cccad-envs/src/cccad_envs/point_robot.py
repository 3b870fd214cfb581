"""Point robot: navigation in the plane to a hidden goal, the usual test of meta-RL with real actions."""

from collections.abc import Sequence
from functools import cached_property
from typing import Unpack, final

import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray

from cccad_envs.drawing import frame_of
from cccad_envs.errors import SettingError
from cccad_envs.family import MOST_SEED, drawn_words, whole
from cccad_envs.grid import Grid
from cccad_envs.numbered import NumberedFamily, number_of
from cccad_envs.plain import Array
from cccad_envs.recorded import Recording
from cccad_envs.rows import Frame, Modes, RowsEnv
from cccad_envs.spaces import box
from cccad_envs.tasks import AnyTask, Task, Tasks, in_order

_DIGITS = 6  # of a goal, so that it is the same on every platform
_MEASURED_WALKS = 4_000  # of the random policy
_MEASURED_AT_ONCE = 16  # tasks
_PICTURE_CELLS = 21


def _positive(default: float, tells: str) -> float:
    """Return a spec's field that is a number above 0; *tells* is its help."""
    checks = [validators.gt(0.0), validators.lt(1e6)]
    return field(default=default, validator=checks, metadata={"help": tells})


@frozen(kw_only=True)
class PointRobotSpec:
    """A point in the plane that must find a hidden goal: sparse as in VariBAD (arXiv 1910.08348), or dense as in PEARL.

    The agent starts at the origin and sees its own place (x, y). An action is two numbers from -1 to 1, by which it
    moves *step_size* times as far in x and in y; walls stop it at *arena* on each side. With the sparse reward an env
    step that ends within *goal_radius* of the goal pays one minus the distance to it, any other pays 0; with the dense
    reward every env step pays minus the distance. An episode is cut off at the horizon and never terminates. One task
    per drawn goal: on a half circle above the origin, on a whole circle, or in a square around it.
    """

    reward: str = field(
        default="sparse",
        validator=validators.in_(("sparse", "dense")),
        metadata={"help": "sparse (near the goal alone) or dense (minus the distance everywhere)"},
    )
    goals: str = field(
        default="half-circle",
        validator=validators.in_(("half-circle", "circle", "square")),
        metadata={"help": "where goals lie: half-circle, circle or square"},
    )
    distance: float = _positive(1.0, tells="of the goals from the origin; in a square, the most in x and in y")
    goal_radius: float = _positive(0.2, tells="how near counts as being there, for the sparse reward")
    step_size: float = _positive(0.1, tells="the furthest that an env step leads in x and in y")
    arena: float = _positive(1.5, tells="half the side of the square in which the agent can move")
    horizon: int = whole(20, at_least=1, tells="env steps in an episode")
    num_tasks: int = whole(100, at_least=2, tells="goals")
    task_seed: int = whole(0, at_least=0, at_most=MOST_SEED, tells="which goals are drawn")

    def __attrs_post_init__(self) -> None:
        """Check that goals can be reached and rewards be had: raises SettingError."""
        if self.distance > self.arena:
            raise SettingError(f"'distance' must be at most 'arena', which is {self.arena}: {self.distance}")
        if self.reward == "sparse" and self.goal_radius >= 1:
            raise SettingError(f"'goal_radius' must be below 1, so that a sparse reward is above 0: {self.goal_radius}")

        short = (self.distance - self.horizon * self.step_size) * (2**0.5 if self.goals == "square" else 1.0)
        if self.reward == "sparse" and short > self.goal_radius:
            raise SettingError(f"'horizon' must be long enough to come near the furthest goal: {self.horizon}")

    def build(self) -> "PointRobotFamily":
        """Return the family of all drawn goals."""
        return PointRobotFamily(self)


@final
class PointRobotRows(RowsEnv):
    """Planes side by side: all that changes is a place per row."""

    def __init__(self, family: "PointRobotFamily", tasks: Sequence[AnyTask], **modes: Unpack[Modes]) -> None:
        """Put every agent at the origin."""
        super().__init__(family, tasks, **modes)
        self._family = family
        self._goals = family.goals(tasks)
        self._places = np.zeros((len(tasks), 2), dtype=np.float32)

    def _observe(self) -> Array:
        return self._places.copy()

    def _restart(self, rows: NDArray[np.bool_]) -> None:
        self._places[rows] = 0.0

    def _advance(self, actions: Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        self._places = self._family.moved(self._places, actions)
        rewards = self._family.rewards(self._places, self._goals)
        return rewards, np.zeros(self.num_envs, dtype=np.bool_)

    def _best_actions(self) -> NDArray[np.float32]:
        missing = (self._goals - self._places) / self._family.spec.step_size
        return missing.clip(-1.0, 1.0).astype(np.float32)

    def _draw(self, row: int, mode: str) -> Frame:
        """Show the plane in a few cells a side."""
        grid = Grid(_PICTURE_CELLS, _PICTURE_CELLS)
        scale = (_PICTURE_CELLS - 1) / 2 / self._family.spec.arena
        (agent, goal) = (
            grid.cell(*np.rint((point + self._family.spec.arena) * scale).astype(int).tolist())
            for point in (self._places[row], self._goals[row])
        )
        return frame_of(mode, grid, agent, {goal: "goal"})


@final
class PointRobotFamily(NumberedFamily):
    """Goals in drawn order; goal i is the same however many are drawn. Shapes: `e` rows, `t` env steps, `w` walks."""

    spec: PointRobotSpec
    name = "point-robot"
    rows_class = PointRobotRows

    def __init__(self, spec: PointRobotSpec) -> None:
        """Offer the goals that *spec* describes."""
        self.spec = spec
        self.horizon = spec.horizon
        self.spaces = {"observation": box(2, spec.arena), "action": box(2, 1.0)}
        self.random_return_operations = float(_MEASURED_WALKS * spec.horizon)
        self._measured: dict[str, tuple[float, float]] = {}

    @cached_property
    def tasks(self) -> tuple[Task, ...] | Tasks:
        """Every task, in canonical order."""
        return in_order(self.spec.num_tasks, self._task_at, number_of)

    def _task_at(self, number: int) -> Task:
        spec = self.spec
        first, second = (drawn_words(spec.task_seed, 2, first=2 * number) >> np.uint64(11)) * 2.0**-53
        if spec.goals == "square":
            x, y = spec.distance * (2 * first - 1), spec.distance * (2 * second - 1)
        else:
            angle = (1 if spec.goals == "half-circle" else 2) * np.pi * first
            x, y = spec.distance * np.cos(angle), spec.distance * np.sin(angle)
        params = {"goal_x": round(float(x), _DIGITS), "goal_y": round(float(y), _DIGITS)}
        group = f"point-robot-{spec.goals}-{spec.distance:g}-seed-{spec.task_seed}"
        return Task(task_id=f"{group}/{number:04d}", params=params)

    def goals(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the goals of *tasks*, `e 2`."""
        return np.array([list(task.params.values()) for task in self.own(tasks)], np.float64).reshape(-1, 2)

    def moved(self, places: Array, actions: Array) -> NDArray[np.float32]:
        """Return where *actions*, `... 2`, lead from *places*, `... 2`, in float32 throughout, so that all replays."""
        arena, step = np.float32(self.spec.arena), np.float32(self.spec.step_size)
        return np.asarray((places + step * actions).clip(-arena, arena), np.float32)

    def rewards(self, places: Array, goals: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return what env steps pay that end at *places*, `... 2`, when the goals are at *goals*, `... 2`."""
        return self._paid(np.hypot(*np.moveaxis(places - goals, -1, 0))).astype(np.float32)

    def _paid(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.spec.reward == "dense":
            return -distances
        return np.where(distances <= self.spec.goal_radius, 1 - distances, 0.0)

    def optimal_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the return of going straight to the goal in x and in y at once, and staying there, `e`.

        No other way is nearer to the goal after any number of env steps, and nearer never pays less.
        """
        away = np.abs(self.goals(tasks))[:, None]  # e 1 2
        walked = self.spec.step_size * np.arange(1, self.horizon + 1)[:, None]  # t 1
        return np.asarray(self._paid(np.hypot(*np.moveaxis((away - walked).clip(0), -1, 0))).sum(axis=1))

    def random_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return what the uniformly random policy earned in 4,000 episodes of each task, `e`: an estimate.

        It has no closed form; `random_return_errors` says how exact it is. The walks are the same for all tasks.
        """
        return self._measurements(tasks)[:, 0]

    def random_return_errors(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the standard error of each of the `random_returns`, `e`."""
        return self._measurements(tasks)[:, 1]

    def _measurements(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        own = {task.task_id: task for task in self.own(tasks)}
        missing = [task for task_id, task in own.items() if task_id not in self._measured]
        for first in range(0, len(missing), _MEASURED_AT_ONCE):
            some = missing[first : first + _MEASURED_AT_ONCE]
            returns = self._returns_of_walks(self.goals(some))
            # Where no walk was paid, the error is as if one had been.
            errors = np.maximum(returns.std(axis=1, ddof=1) / _MEASURED_WALKS**0.5, 1 / _MEASURED_WALKS)
            for task, mean, error in zip(some, returns.mean(axis=1).tolist(), errors.tolist(), strict=True):
                self._measured[task.task_id] = (mean, error)
        return np.array([self._measured[task.task_id] for task in tasks]).reshape(-1, 2)

    def _returns_of_walks(self, goals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the return of the same random walks for each of *goals*, `e w`."""
        returns = np.zeros((len(goals), _MEASURED_WALKS))
        places = np.zeros((_MEASURED_WALKS, 2), np.float32)
        for now in range(self.horizon):
            words = drawn_words(0, places.size, first=now * places.size).reshape(places.shape)
            actions = ((words >> np.uint64(40)) * 2.0**-23 - 1).astype(np.float32)
            places = self.moved(places, actions)
            returns += self.rewards(places, goals[:, None])
        return returns

    def _led_to(self, task: AnyTask, observations: Array, actions: Array) -> Array:
        return self.moved(observations, actions)

    def _replayed(self, task: AnyTask, recording: Recording) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return self.rewards(recording.next_observations, self.goals([task])), recording.never
