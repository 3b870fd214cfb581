"""Dark rooms with invisible landmarks that pay when they are reached in order: what several families share.

A family of this shape says what its landmarks are called, when they pay, and whether each task has its own order of the
actions. All that is hard in it is that the agent does not see this: the observation is its own cell, and only rewards
(and where actions lead) tell the task.
"""

import math
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, Unpack, final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cccad_envs.affordable import refuse_too_slow
from cccad_envs.drawing import frame_of
from cccad_envs.errors import SettingError, UnknownTaskError
from cccad_envs.family import FamilySpec, TaskFamily
from cccad_envs.grid import MOVES, Grid
from cccad_envs.plain import Array
from cccad_envs.recorded import Recording
from cccad_envs.rows import Frame, Modes, RowsEnv
from cccad_envs.spaces import multi_discrete
from cccad_envs.tasks import AnyTask, Task, Tasks, in_order

AS_NAMED = tuple(range(len(MOVES)))  # every action makes the move of its own number
NOTHING_LEFT = -1  # no cell: where an agent is headed once every landmark is used up
_LEAST_NUMBERS = 3_000  # in a small room, a move of its mass costs as much as if it had so many cells
_MOST_DIGITS = 20  # of a number in an id: more are no cell of any room
CHUNK_ELEMENTS = 4_000_000  # of probability mass at once, 32 MB


class RoomSpec(FamilySpec, Protocol):
    """What every spec of such a family has."""

    @property
    def horizon(self) -> int:
        """Env steps in an episode."""


@frozen(kw_only=True)
class Rules:
    """What distinguishes one family of this shape from another."""

    name: str
    landmarks: tuple[str, ...]  # in the order in which they must be reached
    is_used_up: bool  # a landmark pays once, then the next one counts; else it pays on every env step that ends on it
    num_episodes_each: int = 1  # where they are not used up: so many episodes with the first landmark, then the next
    permutations: tuple[tuple[int, ...], ...] = ()  # a task has one of these: the move that each action makes

    @property
    def num_stages(self) -> int:
        """The number of landmarks."""
        return len(self.landmarks)

    def first_stage(self, episode: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which landmark pays first in these episodes of a life, counted from 0; any shape."""
        return episode // self.num_episodes_each % (1 if self.is_used_up else self.num_stages)


@final
class LandmarkRows(RowsEnv):
    """Rooms side by side: all that changes is a cell per row and which landmark is next."""

    def __init__(self, family: "LandmarkFamily", tasks: Sequence[AnyTask], **modes: Unpack[Modes]) -> None:
        """Put every agent at the centre."""
        super().__init__(family, tasks, **modes)
        self._grid = family.grid
        self._rules = family.rules
        landmarks, moves = family.layouts(tasks)
        self._landmarks = np.pad(landmarks, ((0, 0), (0, 1)), constant_values=NOTHING_LEFT)  # e stages+1
        self._moves = moves if family.rules.permutations else None  # e a
        self._stage = np.zeros(len(tasks), dtype=np.int64)
        self._cells = np.full(len(tasks), family.grid.centre)
        self._targets = self._landmarks[:, 0].copy()

    def _observe(self) -> Array:
        return self._grid.points(self._cells)

    def _restart(self, rows: NDArray[np.bool_]) -> None:
        self._cells[rows] = self._grid.centre
        self._stage[rows] = self._rules.first_stage(self._episode[rows])
        self._targets[rows] = self._landmarks[rows, self._stage[rows]]

    def _advance(self, actions: Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        moves = actions if self._moves is None else self._moves[np.arange(self.num_envs), actions]
        self._cells = self._grid.moved(self._cells, moves)
        is_paid = self._cells == self._targets
        if self._rules.is_used_up:
            paid = np.flatnonzero(is_paid)
            self._stage[paid] += 1
            self._targets[paid] = self._landmarks[paid, self._stage[paid]]
        return is_paid.astype(np.float32), np.zeros(self.num_envs, dtype=np.bool_)

    def _best_actions(self) -> NDArray[np.int64]:
        targets = np.where(self._targets == NOTHING_LEFT, self._cells, self._targets)
        moves = self._grid.nearer(self._cells, targets)
        return moves if self._moves is None else (self._moves == moves[:, None]).argmax(axis=1)

    def _draw(self, row: int, mode: str) -> Frame:
        stage = int(self._stage[row])
        left = slice(stage, self._rules.num_stages if self._rules.is_used_up else stage + 1)
        marks = dict(zip(self._landmarks[row, left].tolist(), self._rules.landmarks[left], strict=True))
        return frame_of(mode, self._grid, int(self._cells[row]), marks)


@final
class LandmarkFamily(TaskFamily):
    """Every placement of the landmarks on different cells is a task, in order of x, then y, landmark by landmark.

    Where actions are permuted, every placement with every permutation is one.
    """

    rows_class = LandmarkRows

    def __init__(self, spec: RoomSpec, rules: Rules, grid: Grid) -> None:
        """Play by *rules* in the room *grid*; *spec* is what built the family."""
        self.spec = spec
        self.rules = rules
        self.name = rules.name
        self.horizon = spec.horizon
        self.grid = grid
        self.spaces = multi_discrete([grid.width, grid.height], len(MOVES))
        self._reach = grid.around(grid.centre, spec.horizon)
        self.random_return_operations = self._operations(1)
        self.episodes_per_cycle = 1 if rules.is_used_up else rules.num_stages * rules.num_episodes_each

    @cached_property
    def tasks(self) -> tuple[Task, ...] | Tasks:
        """Every task, in canonical order."""
        num_placements = math.perm(self.grid.num_cells, self.rules.num_stages)
        return in_order(num_placements * len(self._permutations), self._task_at, self._position)

    def place(self, *, permutation: int = 0, **cells: Sequence[int]) -> Task:
        """Return the task whose landmarks stand at these (x, y), for example `place(goal=(4, 2))`.

        *permutation* counts among the rules' permutations of the actions.

        Raises:
            SettingError: a landmark is missing, unknown, outside the room, or on the cell of another, or there is no
                such permutation.
        """
        names = self.rules.landmarks
        if set(cells) != set(names):
            raise SettingError(f"{self.name} is placed by {' and '.join(map(repr, names))}, got {sorted(cells)}")
        for name, xy in cells.items():
            point = np.asarray(xy)
            is_point = point.shape == (2,) and point.dtype.kind in "iu"
            if not is_point or (point < 0).any() or (point >= [self.grid.width, self.grid.height]).any():
                raise SettingError(f"'{name}' must be two whole numbers, a cell (x, y) of the {self.grid} room: {xy!r}")
        placed = tuple(self.grid.cell(*map(int, cells[name])) for name in names)
        if len(set(placed)) < len(placed):
            raise SettingError(f"{' and '.join(map(repr, names))} must stand on different cells: {cells}")
        if permutation not in range(len(self._permutations)):
            raise SettingError(f"'permutation' must be 0 to {len(self._permutations) - 1}: {permutation!r}")
        return self._task_on(placed, self._permutations[permutation])

    def layouts(self, tasks: Sequence[AnyTask]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the landmarks' cells, `e stages`, and the move that each action makes, `e a`.

        Raises:
            UnknownTaskError: a task is not one of this family.
        """
        layouts = {task.task_id: self._layout(task) for task in dict.fromkeys(tasks)}
        num_stages = self.rules.num_stages
        flat = np.array([layouts[task.task_id] for task in tasks], dtype=np.int64).reshape(-1, num_stages + len(MOVES))
        return flat[:, :num_stages], flat[:, num_stages:]

    def optimal_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the highest return of one episode of each task, `e`: the walk from landmark to landmark.

        Where the landmark changes from episode to episode, it is the mean over a cycle.
        """
        by_landmark = self._optima(tasks)
        return np.asarray(by_landmark.sum(axis=1) if self.rules.is_used_up else by_landmark.mean(axis=1))

    def optimal_returns_by_episode(self, tasks: Sequence[AnyTask], num_episodes: int) -> NDArray[np.float64]:
        """Return the highest return of each of the first *num_episodes* episodes of a life on each task, `e n`."""
        if self.rules.is_used_up:
            return np.repeat(self.optimal_returns(tasks)[:, None], num_episodes, axis=1)
        return self._optima(tasks)[:, self.rules.first_stage(np.arange(num_episodes))]

    def random_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the expected return of the uniformly random policy, `e`, from its exact state distribution."""
        refuse_too_slow(f"the random return of {len(tasks):,} tasks of {self.name}", self._operations(len(tasks)))
        landmarks = self._within_reach(self.layouts(tasks)[0])
        if not self.rules.is_used_up:
            return np.asarray(self._visits[landmarks].mean(axis=1))
        rows = max(1, CHUNK_ELEMENTS // (self.rules.num_stages * self._reach[0].num_cells))
        chunks = [self._expected_returns(landmarks[first : first + rows]) for first in range(0, len(tasks), rows)]
        return np.concatenate(chunks) if chunks else np.zeros(0)

    def _led_to(self, task: AnyTask, observations: Array, actions: Array) -> Array:
        (moves,) = self.layouts([task])[1]
        return self.grid.points(self.grid.moved(self.grid.cell(*observations.T), moves[actions]))

    def _replayed(self, task: AnyTask, recording: Recording) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        (placed,) = self.layouts([task])[0]
        reached, starts, lengths = self.grid.cell(*recording.next_observations.T), recording.starts, recording.lengths
        if not self.rules.is_used_up:
            target = placed[self.rules.first_stage(np.arange(len(starts)))]
            return np.asarray(reached == np.repeat(target, lengths), dtype=np.float32), recording.never
        length = len(reached)
        rewards = np.zeros(length, dtype=np.float32)
        clock = np.arange(length)
        paid_at = np.full(len(starts), -1)  # per episode: when the landmark before this one paid
        for cell in placed:
            counts = (reached == cell) & (clock > np.repeat(paid_at, lengths))
            paid_at = np.minimum.reduceat(np.where(counts, clock, length), starts) if length else paid_at
            rewards[paid_at[paid_at < length]] = 1.0
        return rewards, recording.never

    @property
    def _permutations(self) -> tuple[tuple[int, ...], ...]:
        return self.rules.permutations or (AS_NAMED,)

    def _operations(self, num_tasks: int) -> float:
        """Return how many numbers are reckoned with for the random returns of so many tasks."""
        num_masses = self.rules.num_stages * num_tasks if self.rules.is_used_up else 1  # one walk tells of all tasks
        return float(self.horizon) * max(num_masses * self._reach[0].num_cells, _LEAST_NUMBERS)

    def _within_reach(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of *cells* in the room that an episode can reach, and one too many for those beyond it."""
        room, first_x, first_y = self._reach
        x, y = np.divmod(cells, self.grid.height)
        x, y = x - first_x, y - first_y
        is_inside = (x >= 0) & (x < room.width) & (y >= 0) & (y < room.height)
        return np.where(is_inside, room.cell(x, y), room.num_cells)

    @cached_property
    def _visits(self) -> NDArray[np.float64]:
        """How often the random policy ends an env step on each cell within reach in one episode; 0 beyond."""
        room = self._reach[0]
        mass, visits = self._start(1)[0], np.zeros(room.num_cells)
        for _ in range(self.horizon):
            mass = room.spread(mass)
            visits += mass
        return np.append(visits, 0.0)

    def _start(self, num_rows: int) -> NDArray[np.float64]:
        """Return all mass at the centre, `e cells`, of the room within reach."""
        mass = np.zeros((num_rows, self._reach[0].num_cells))
        mass[:, self._within_reach(np.array(self.grid.centre))] = 1.0
        return mass

    def _optima(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the most that each landmark can pay in an episode, `e stages`.

        A landmark pays on an env step that *ends* on it, so one at the start takes one env step (stay).
        """
        there, _ = self.layouts(tasks)
        here = np.full_like(there, self.grid.centre)
        if self.rules.is_used_up:
            here[:, 1:] = there[:, :-1]
        arrival = np.maximum(self.grid.distances(here, there), 1)
        if self.rules.is_used_up:
            return np.asarray(arrival.cumsum(axis=1) <= self.horizon, dtype=np.float64)
        return np.maximum(self.horizon - arrival + 1.0, 0.0)

    def _task_on(self, placed: Sequence[int], moves: Sequence[int]) -> Task:
        named = zip(self.rules.landmarks, placed, strict=True)
        points = [(name, *divmod(cell, self.grid.height)) for name, cell in named]
        place = "-".join(f"{name}-{x}-{y}" for name, x, y in points)
        params = {f"{name}_{axis}": value for name, x, y in points for axis, value in (("x", x), ("y", y))}
        if self.rules.permutations:
            place += f"-actions-{''.join(map(str, moves))}"
            params |= {f"action_{action}": move for action, move in enumerate(moves)}
        return Task(task_id=f"{self.name}-{self.grid}/{place}", params=params)

    def _task_at(self, position: int) -> Task:
        """Return the task at this place in canonical order."""
        rank, permutation = divmod(position, len(self._permutations))
        placed: list[int] = []
        num_rest = math.perm(self.grid.num_cells, self.rules.num_stages)
        for stage in range(self.rules.num_stages):
            num_rest //= self.grid.num_cells - stage
            cell, rank = divmod(rank, num_rest)
            for taken in sorted(placed):
                cell += cell >= taken
            placed.append(cell)
        return self._task_on(placed, self._permutations[permutation])

    def _position(self, task_id: str) -> int:
        """Read the place of a task from its id; what is no id gives ValueError or any number."""
        numbers = re.findall(r"\d+", task_id.rpartition("/")[2])
        moves = tuple(map(int, numbers.pop())) if self.rules.permutations and numbers else AS_NAMED
        points = [int(number[:_MOST_DIGITS]) for number in numbers]
        placed = [self.grid.cell(x, y) for x, y in zip(points[::2], points[1::2], strict=True)]
        rank = 0
        for stage, cell in enumerate(placed):
            rank = rank * (self.grid.num_cells - stage) + cell - sum(taken < cell for taken in placed[:stage])
        return rank * len(self._permutations) + self._permutations.index(moves)

    def _layout(self, task: AnyTask) -> tuple[int, ...]:
        """Return the landmarks' cells, then the move of each action."""
        numbers = {name: value for name, value in task.params.items() if isinstance(value, int)}
        moves = AS_NAMED
        try:
            placed = tuple(self.grid.cell(numbers[f"{name}_x"], numbers[f"{name}_y"]) for name in self.rules.landmarks)
            if self.rules.permutations:
                moves = tuple(numbers[f"action_{action}"] for action in AS_NAMED)
            is_ours = self._task_on(placed, moves) == task and len(set(placed)) == len(placed)
        except KeyError:
            is_ours = False
        if not is_ours or max(placed) >= self.grid.num_cells or moves not in self._permutations:
            raise UnknownTaskError(
                f"task {task.task_id!r} with {dict(task.params)} is none of {self.name} in a {self.grid} room"
            )
        return (*placed, *moves)

    def _expected_returns(self, landmarks: NDArray[np.int64]) -> NDArray[np.float64]:
        num_rows, num_stages = landmarks.shape
        room, rows = self._reach[0], np.arange(num_rows)
        mass = np.zeros((num_rows, num_stages, room.num_cells + 1))  # the last cell stands for all beyond reach
        mass[:, 0, :-1] = self._start(num_rows)
        returns = np.zeros(num_rows)
        for _ in range(self.horizon):
            mass[..., :-1] = room.spread(mass[..., :-1])
            for stage in reversed(range(num_stages)):  # the last first: nobody passes two landmarks in one env step
                there = landmarks[:, stage]
                paid = mass[rows, stage, there]
                returns += paid
                mass[rows, stage, there] = 0.0
                if stage + 1 < num_stages:
                    mass[rows, stage + 1, there] += paid
        return returns
