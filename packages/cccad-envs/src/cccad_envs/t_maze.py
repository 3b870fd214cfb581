"""T-maze: a cue at the start says which way to turn at the end of a corridor, which may be very long."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Unpack, final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cccad_envs.drawing import frame_of
from cccad_envs.errors import SettingError
from cccad_envs.family import whole
from cccad_envs.grid import Grid
from cccad_envs.numbered import NumberedFamily, number_of
from cccad_envs.plain import Array
from cccad_envs.recorded import Recording
from cccad_envs.rows import Frame, Modes, RowsEnv
from cccad_envs.spaces import multi_discrete
from cccad_envs.tasks import AnyTask, Task, Tasks, in_order

MOST_CELLS = 10**6  # of a corridor
FORWARD = 0  # action 1 turns left, action 2 turns right
NUM_ACTIONS = 3
CORRIDOR, JUNCTION = 0, 3  # what is seen; between them 1 is the cue for left, and 2 is that for right
_PICTURE_CELLS = 20


@frozen(kw_only=True)
class TMazeSpec:
    """A corridor with a cue at its start and a junction at its end; turning there as the cue said pays 1.

    The observation is one symbol: 1 or 2 at the start, the cue for left or right; 0 in the corridor, whose cells all
    look alike; 3 at the junction. Actions: 0 goes forward, 1 turns left, 2 turns right. A turn anywhere but at the
    junction, and going forward at the junction, is an env step that leads nowhere. A turn at the junction ends the
    episode: it pays 1 if it is right and 0 otherwise. Every episode draws its cue anew, so that nothing can be learned
    from earlier episodes but the habit. One task per length of the corridor, in env steps from the start to the
    junction. After Bakker (2001).
    """

    shortest: int = whole(20, at_least=1, at_most=MOST_CELLS, tells="length of the shortest corridor, in env steps")
    longest: int = whole(100, at_least=1, at_most=MOST_CELLS, tells="most length of a corridor, in env steps")
    spacing: int = whole(1, at_least=1, at_most=MOST_CELLS, tells="difference of one length to the next")
    patience: int = whole(
        2, at_least=1, at_most=1000, tells="time limit of an episode, in multiples of the env steps that it takes"
    )

    def __attrs_post_init__(self) -> None:
        """Check that there are two lengths at least: raises SettingError."""
        if self.shortest + self.spacing > self.longest:
            raise SettingError(
                f"'longest' must be 'shortest' + 'spacing' or more, so that there are two tasks: {self.longest}"
            )

    def build(self) -> "TMazeFamily":
        """Return the family of all corridors."""
        return TMazeFamily(self)


@final
class TMazeRows(RowsEnv):
    """Mazes side by side: a row has three numbers, whatever its length."""

    def __init__(self, family: "TMazeFamily", tasks: Sequence[AnyTask], **modes: Unpack[Modes]) -> None:
        """Put every agent at its start."""
        super().__init__(family, tasks, **modes)
        self._lengths = family.lengths(tasks)
        self._places = np.zeros(len(tasks), dtype=np.int64)  # 0 is the start; beyond the junction is an arm
        self._cues = np.ones(len(tasks), dtype=np.int64)  # 1 or 2

    def _observe(self) -> Array:
        shown = np.where(self._places == self._lengths, JUNCTION, CORRIDOR)
        return np.where(self._places == 0, self._cues, shown).astype(np.uint8)[:, None]

    def _restart(self, rows: NDArray[np.bool_]) -> None:
        self._places[rows] = 0
        self._cues[rows] = self._streams.words(rows, 1)[:, 0] % np.uint64(2) + np.uint64(1)

    def _advance(self, actions: Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        is_turn = (self._places == self._lengths) & (actions != FORWARD)
        is_right = is_turn & (actions == self._cues)
        self._places += is_turn | ((actions == FORWARD) & (self._places < self._lengths))
        return is_right.astype(np.float32), is_turn

    def _best_actions(self) -> NDArray[np.int64]:
        return np.where(self._places == self._lengths, self._cues, FORWARD)

    def _draw(self, row: int, mode: str) -> Frame:
        """Show the corridor from left to right, shortened to a few cells, and the arm that pays."""
        length = int(self._lengths[row])
        end = min(length, _PICTURE_CELLS)
        grid = Grid(end + 1, 3)
        place = min(int(self._places[row]), length) * end // length
        goal = grid.cell(end, 2 if self._cues[row] == 1 else 0)
        return frame_of(mode, grid, grid.cell(place, 1), {goal: "goal"})


@final
class TMazeFamily(NumberedFamily):
    """Corridors from the shortest to the longest."""

    spec: TMazeSpec
    name = "t-maze"
    rows_class = TMazeRows

    def __init__(self, spec: TMazeSpec) -> None:
        """Offer the corridors that *spec* describes."""
        self.spec = spec
        self._all_lengths = range(spec.shortest, spec.longest + 1, spec.spacing)
        self.horizon = spec.patience * (self._all_lengths[-1] + 1)
        self.random_return_operations = float(self.horizon)
        self.spaces = multi_discrete([JUNCTION + 1], NUM_ACTIONS)

    @cached_property
    def tasks(self) -> tuple[Task, ...] | Tasks:
        """Every task, in canonical order."""
        return in_order(len(self._all_lengths), self._task_at, lambda name: self._all_lengths.index(number_of(name)))

    def _task_at(self, number: int) -> Task:
        length = self._all_lengths[number]
        return Task(task_id=f"t-maze/corridor-{length}", params={"length": length})

    def lengths(self, tasks: Sequence[AnyTask]) -> NDArray[np.int64]:
        """Return the env steps from the start to the junction, `e`."""
        return self.parameters(tasks)[:, 0]

    def time_limits(self, tasks: Sequence[AnyTask]) -> NDArray[np.int64]:
        """Return after how many env steps an episode of each task is cut off, `e`."""
        return np.asarray(self.spec.patience * (self.lengths(tasks) + 1))

    def optimal_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return 1 for each task, `e`: every turn is right."""
        return np.ones(len(self.lengths(tasks)))

    def random_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return half the chance of the uniformly random policy to turn at the junction in time, `e`."""
        lengths = self.lengths(tasks).tolist()
        chances = {length: self._chance_of_a_turn(length) for length in set(lengths)}
        return np.array([chances[length] / 2 for length in lengths])

    def _chance_of_a_turn(self, length: int) -> float:
        """Return how likely the random policy is to turn at the junction before an episode is cut off."""
        limit, forward = self.spec.patience * (length + 1), 1 / NUM_ACTIONS
        arrivals = np.arange(length, limit)  # after how many env steps it comes to the junction: negative binomial
        ratios = np.log(arrivals[:-1] / (arrivals[:-1] - length + 1) * (1 - forward))
        log_chances = length * math.log(forward) + np.concatenate([np.zeros(1), ratios.cumsum()])
        stays = (limit - arrivals) * math.log(forward)  # goes on forward at the junction until the end
        return float((np.exp(log_chances) * -np.expm1(stays)).sum())

    def _led_to(self, task: AnyTask, observations: Array, actions: Array) -> Array:
        (length,) = self.lengths([task])
        places, cues = self._whereabouts(length, observations[:, 0], actions)
        is_turn = (places == length) & (actions != FORWARD)
        following = np.minimum(places + (actions == FORWARD), length)
        shown = np.where((following == length) & ~is_turn, JUNCTION, CORRIDOR)
        return np.where(following == 0, cues, shown)[:, None]

    def _replayed(self, task: AnyTask, recording: Recording) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        (length,) = self.lengths([task])
        places, cues = self._whereabouts(length, recording.observations[:, 0], recording.actions)
        is_turn = (places == length) & (recording.actions != FORWARD)
        return (is_turn & (recording.actions == cues)).astype(np.float32), is_turn

    @staticmethod
    def _whereabouts(length: int, symbols: Array, actions: Array) -> tuple[Array, Array]:
        """Return the place of the agent and the cue of its episode, `t` each, in a history from its birth on.

        The agent is at the start wherever it sees a cue, and has gone forward since then as often as it tried to.
        """
        now = np.arange(len(symbols))
        is_start = (symbols != CORRIDOR) & (symbols != JUNCTION)
        started = np.maximum.accumulate(np.where(is_start, now, 0)) if len(now) else now
        steps = np.cumsum(actions == FORWARD) - (actions == FORWARD)  # before each env step
        return np.minimum(steps - steps[started], length), symbols[started]
