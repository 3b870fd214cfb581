"""A dark room with invisible landmarks that pay when they are reached in order: the shape shared by several worlds.

A world of this shape says what its landmarks are called and whether one that has paid is used up. All that is random or
hard in it is that the agent does not see them: the observation is its own cell, and only rewards tell the task.
"""

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol, final

import numpy as np
from attrs import field, frozen
from gymnasium.spaces import MultiDiscrete
from gymnasium.vector import AutoresetMode
from numpy.typing import ArrayLike, NDArray

from cccad_envs.drawing import image_of, text_of
from cccad_envs.errors import SettingError, TransitionError, UnknownTaskError
from cccad_envs.family import Task, TaskFamily
from cccad_envs.grid import MOVES, Grid
from cccad_envs.rows import Frame, RowsEnv

NOTHING_LEFT = -1  # no cell: where an agent is headed once every landmark is used up
CHUNK_ELEMENTS = 4_000_000  # of probability mass at once, 32 MB


class RoomSpec(Protocol):
    """What every spec of such a world has."""

    @property
    def size(self) -> int:
        """The room is *size* times *size* cells."""

    @property
    def horizon(self) -> int:
        """Env steps in an episode."""


@frozen(kw_only=True)
class Rules:
    """What tells one world of this shape from another."""

    name: str
    landmarks: tuple[str, ...]  # in the order in which they must be reached
    is_used_up: bool  # a landmark pays once, then the next one counts; else it pays on every env step that ends on it

    num_stages: int = field(init=False)

    @num_stages.default
    def _count(self) -> int:
        assert self.is_used_up or len(self.landmarks) == 1
        return len(self.landmarks)


@final
class LandmarkFamily(TaskFamily):
    """Every placement of the landmarks on different cells is a task, in order of x, then y, landmark by landmark."""

    def __init__(self, spec: RoomSpec, rules: Rules) -> None:
        """Lay out the room that *spec* describes under *rules*."""
        self.spec = spec
        self.rules = rules
        self.name = rules.name
        self.horizon = spec.horizon
        self.grid = Grid(spec.size)
        self.spaces = {
            "observation": {"kind": "multi-discrete", "sizes": [spec.size, spec.size]},
            "action": {"kind": "discrete", "n": len(MOVES)},
        }

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Every task, in canonical order."""
        cells = range(self.grid.num_cells)
        return tuple(self._task_on(placed) for placed in itertools.permutations(cells, self.rules.num_stages))

    def place(self, **cells: Sequence[int]) -> Task:
        """Return the task whose landmarks stand at these (x, y), for example ``place(goal=(4, 2))``.

        Raises:
            SettingError: a landmark is missing, unknown, outside the room, or on the cell of another.
        """
        names, size = self.rules.landmarks, self.grid.size
        if set(cells) != set(names):
            raise SettingError(f"{self.name} is placed by {' and '.join(map(repr, names))}, got {sorted(cells)}")
        for name, xy in cells.items():
            point = np.asarray(xy)
            if point.shape != (2,) or point.dtype.kind not in "iu" or point.min() < 0 or point.max() >= size:
                raise SettingError(f"'{name}' must be two whole numbers from 0 to {size - 1}: {xy!r}")
        placed = tuple(self.grid.cell(*map(int, cells[name])) for name in names)
        if len(set(placed)) < len(placed):
            raise SettingError(f"{' and '.join(map(repr, names))} must stand on different cells: {cells}")
        return self._task_on(placed)

    def make_vec(
        self,
        tasks: Sequence[Task],
        *,
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> "LandmarkRows":
        """Return a vector environment whose row i plays ``tasks[i]``; a task may be given many times."""
        return LandmarkRows(self, tasks, autoreset_mode=autoreset_mode, render_mode=render_mode)

    def cells(self, tasks: Sequence[Task]) -> NDArray[np.int64]:
        """Return the landmarks' cells, ``e stages``.

        Raises:
            UnknownTaskError: a task is not one of this family.
        """
        known = {task.task_id: self._placement(task) for task in dict.fromkeys(tasks)}
        flat = [known[task.task_id] for task in tasks]
        return np.array(flat, dtype=np.int64).reshape(len(tasks), self.rules.num_stages)

    def optimal_returns(self, tasks: Sequence[Task]) -> NDArray[np.float64]:
        """Return the highest return of one episode of each task, ``e``: the walk from landmark to landmark.

        A landmark pays on an env step that *ends* on it, so one at the start takes one env step (stay).
        """
        landmarks = self.cells(tasks)
        arrival = np.zeros(len(tasks), dtype=np.int64)  # env steps taken when the landmark pays
        returns = np.zeros(len(tasks))
        here = np.full(len(tasks), self.grid.centre)
        for there in landmarks.T:
            arrival += np.maximum(self.grid.distances(here, there), 1)
            env_steps_left = np.maximum(self.horizon - arrival + 1, 0)
            returns += np.minimum(env_steps_left, 1) if self.rules.is_used_up else env_steps_left
            here = there
        return returns

    def random_returns(self, tasks: Sequence[Task]) -> NDArray[np.float64]:
        """Return the expected return of the uniformly random policy, ``e``, from its exact state distribution."""
        landmarks = self.cells(tasks)
        rows = max(1, CHUNK_ELEMENTS // (self.rules.num_stages * self.grid.num_cells))
        chunks = [self._expected_returns(landmarks[first : first + rows]) for first in range(0, len(tasks), rows)]
        return np.concatenate(chunks) if chunks else np.zeros(0)

    def next_observations(self, task: Task, observations: ArrayLike, actions: ArrayLike) -> NDArray[np.integer[Any]]:
        """Return where *actions* ``t`` lead from *observations* ``t o``, ``t o``; the same in every task."""
        self._placement(task)
        here = self._recorded_cells("observations", observations)
        moves = np.asarray(actions)
        if moves.shape != here.shape or moves.dtype.kind not in "iu":
            raise TransitionError(f"actions must be {len(here):,} whole numbers, got {moves.dtype} {moves.shape}")
        wrong = (moves < 0) | (moves >= len(MOVES))
        if wrong.any():
            where = int(wrong.argmax())
            raise TransitionError(f"actions must be 0 to {len(MOVES) - 1}, got {moves[where]} at env step {where:,}")
        return self.grid.coordinates[self.grid.moved(here, moves.astype(np.int64))]

    def replay(
        self,
        task: Task,
        observations: ArrayLike,
        actions: ArrayLike,
        next_observations: ArrayLike,
        episode_ends: ArrayLike,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return (rewards, terminations, truncations), each ``t``, from where every env step ended."""
        reached = self._recorded_cells("next_observations", next_observations)
        length = len(reached)
        for name, array in {"observations": observations, "actions": actions}.items():
            if len(np.asarray(array)) != length:
                raise TransitionError(f"{name} must have {length:,} entries like next_observations")
        starts = _episode_starts(episode_ends, length)
        lengths = np.diff(starts, append=length)
        truncations = np.arange(length) - np.repeat(starts, lengths) == self.horizon - 1
        rewards = self._recorded_rewards(self._placement(task), reached, starts, lengths)
        return rewards, np.zeros(length, dtype=np.bool_), truncations

    def _task_on(self, placed: Sequence[int]) -> Task:
        named = zip(self.rules.landmarks, placed, strict=True)
        points = [(name, *divmod(cell, self.grid.size)) for name, cell in named]
        place = "-".join(f"{name}-{x}-{y}" for name, x, y in points)
        params = {f"{name}_{axis}": value for name, x, y in points for axis, value in (("x", x), ("y", y))}
        return Task(task_id=f"{self.name}-{self.grid.size}x{self.grid.size}/{place}", params=params)

    def _placement(self, task: Task) -> tuple[int, ...]:
        try:
            placed = tuple(self.grid.cell(task.params[f"{n}_x"], task.params[f"{n}_y"]) for n in self.rules.landmarks)
            is_ours = self._task_on(placed) == task and len(set(placed)) == len(placed)
        except (KeyError, TypeError):
            is_ours = False
        if not is_ours or max(placed) >= self.grid.num_cells:
            room = f"{self.grid.size}x{self.grid.size}"
            raise UnknownTaskError(f"task {task.task_id!r} with {task.params} is none of {self.name} in a {room} room")
        return placed

    def _expected_returns(self, landmarks: NDArray[np.int64]) -> NDArray[np.float64]:
        num_rows, num_stages = landmarks.shape
        rows = np.arange(num_rows)
        mass = np.zeros((num_rows, num_stages, self.grid.num_cells))
        mass[:, 0, self.grid.centre] = 1.0
        returns = np.zeros(num_rows)
        for _ in range(self.horizon):
            mass = self.grid.spread(mass)
            for stage in reversed(range(num_stages)):  # the last first: nobody passes two landmarks in one env step
                there = landmarks[:, stage]
                paid = mass[rows, stage, there]
                returns += paid
                if self.rules.is_used_up:
                    mass[rows, stage, there] = 0.0
                    if stage + 1 < num_stages:
                        mass[rows, stage + 1, there] += paid
        return returns

    def _recorded_rewards(
        self,
        placed: Sequence[int],
        reached: NDArray[np.int64],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        if not self.rules.is_used_up:
            return np.asarray(reached == placed[0], dtype=np.float32)
        never = len(reached)
        rewards = np.zeros(never, dtype=np.float32)
        clock = np.arange(never)
        paid_at = np.full(len(starts), -1)  # per episode: when the landmark before this one paid
        for cell in placed:
            counts = (reached == cell) & (clock > np.repeat(paid_at, lengths))
            paid_at = np.minimum.reduceat(np.where(counts, clock, never), starts) if never else paid_at
            rewards[paid_at[paid_at < never]] = 1.0
        return rewards

    def _recorded_cells(self, name: str, observations: ArrayLike) -> NDArray[np.int64]:
        points, size = np.asarray(observations), self.grid.size
        if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in "iu":
            raise TransitionError(f"{name} must be whole numbers of shape (t, 2), got {points.dtype} {points.shape}")
        outside = ((points < 0) | (points >= size)).any(axis=1)
        if outside.any():
            where = int(outside.argmax())
            point = tuple(points[where].tolist())
            raise TransitionError(f"{name} leave the {size}x{size} room at env step {where:,}: {point}")
        x, y = points.astype(np.int64).T
        cells: NDArray[np.int64] = x * size + y
        return cells


def _episode_starts(episode_ends: ArrayLike, length: int) -> NDArray[np.int64]:
    """Return the first env step of every episode, the unfinished one at the end included."""
    ends = np.asarray(episode_ends, dtype=np.int64)
    starts = np.concatenate([np.zeros(1, dtype=np.int64), ends])
    if ends.ndim != 1 or (np.diff(starts) <= 0).any() or starts[-1] > length:
        raise TransitionError(f"episode_ends must rise from above 0 to at most {length:,}")
    return starts[starts < length]


@final
class LandmarkRows(RowsEnv):
    """Rooms side by side: all that changes is a cell per row and, where landmarks are used up, which one is next."""

    def __init__(
        self,
        family: LandmarkFamily,
        tasks: Sequence[Task],
        *,
        autoreset_mode: AutoresetMode,
        render_mode: str | None,
    ) -> None:
        """Let row i play ``tasks[i]``."""
        grid = family.grid
        space = MultiDiscrete([grid.size, grid.size], dtype=grid.coordinates.dtype)
        super().__init__(
            len(tasks),
            space,
            len(MOVES),
            horizon=family.horizon,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
        )
        self.tasks = tuple(tasks)
        self._grid = grid
        self._rules = family.rules
        landmarks = family.cells(tasks)
        self._landmarks = np.pad(landmarks, ((0, 0), (0, 1)), constant_values=NOTHING_LEFT)  # e stages+1
        self._stage = np.zeros(len(tasks), dtype=np.int64)
        self._cells = np.full(len(tasks), grid.centre)
        self._targets = self._landmarks[:, 0].copy()

    def _observe(self) -> NDArray[Any]:
        return self._grid.coordinates.take(self._cells, axis=0)

    def _restart(self, rows: NDArray[np.bool_]) -> None:
        self._cells[rows] = self._grid.centre
        self._stage[rows] = 0
        self._targets[rows] = self._landmarks[rows, 0]

    def _advance(self, actions: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        self._cells = self._grid.moved(self._cells, actions)
        is_paid = self._cells == self._targets
        if self._rules.is_used_up:
            paid = np.flatnonzero(is_paid)
            self._stage[paid] += 1
            self._targets[paid] = self._landmarks[paid, self._stage[paid]]
        return is_paid.astype(np.float32), np.zeros(self.num_envs, dtype=np.bool_)

    def _best_actions(self) -> NDArray[np.int64]:
        targets = np.where(self._targets == NOTHING_LEFT, self._cells, self._targets)
        return self._grid.nearer(self._cells, targets)

    def _draw(self, row: int, mode: str) -> Frame:
        left = slice(int(self._stage[row]), self._rules.num_stages)
        marks = dict(zip(self._landmarks[row, left].tolist(), self._rules.landmarks[left], strict=True))
        draw = text_of if mode == "ansi" else image_of
        return draw(self._grid.size, int(self._cells[row]), marks)
