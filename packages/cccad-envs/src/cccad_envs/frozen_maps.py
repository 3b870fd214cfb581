"""Frozen maps: Gymnasium's FrozenLake with a hidden map, in batches and with exact returns."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Unpack, final

import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray

from cccad_envs.affordable import refuse_too_large
from cccad_envs.drawing import frame_of
from cccad_envs.errors import SettingError
from cccad_envs.family import MOST_SEED, drawn_words, whole
from cccad_envs.grid import Grid
from cccad_envs.numbered import NumberedFamily
from cccad_envs.plain import Array
from cccad_envs.recorded import Recording
from cccad_envs.rows import Frame, Modes, RowsEnv
from cccad_envs.spaces import multi_discrete
from cccad_envs.tasks import MOST_LISTED, AnyTask, Task

MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # of row and column: left, down, right, up, as Gymnasium counts them
_ATTEMPTS_AT_ONCE = 1_000
_MOST_ATTEMPTS = 1_000  # for each task, to find a map that is new and has a way
_TIE = 1e-12  # expected returns that differ by less are equal
_HASTE = 0.95  # the discount by which an agent chooses among optimal actions


@frozen(kw_only=True)
class FrozenMapsSpec:
    """FrozenLake-v1 with a hidden map for each task: the agent sees only the number of its cell.

    The agent starts in the upper left corner; an env step that ends on the goal, in the lower right corner, pays 1.
    Goal and holes end the episode. Actions, observations and rewards are those of Gymnasium: 0 is left, 1 is down, 2 is
    right, 3 is up, and the cell is `row * size + column`. On slippery ice an action makes its own move or one of the
    two beside it, each with a chance of one third. The maps are drawn by a Philox generator whose key is the seed; all
    are distinct and can be crossed within the horizon.
    """

    size: int = whole(5, at_least=2, at_most=64, tells="cells along each side of a map")
    hole_frac: float = field(
        default=0.25,
        validator=[validators.gt(0.0), validators.lt(1.0)],
        metadata={"help": "the chance of a cell to be a hole, before maps without a way are dropped"},
    )
    is_slippery: bool = field(
        default=False, validator=validators.instance_of(bool), metadata={"help": "whether moves go astray by chance"}
    )
    horizon: int = whole(25, at_least=2, at_most=10_000, tells="most env steps in an episode")
    num_tasks: int = whole(200, at_least=2, at_most=MOST_LISTED, tells="distinct maps")
    task_seed: int = whole(0, at_least=0, at_most=MOST_SEED, tells="which maps are drawn")

    def build(self) -> "FrozenMapsFamily":
        """Return the family of all drawn maps."""
        return FrozenMapsFamily(self)


@final
class FrozenMapsRows(RowsEnv):
    """Lakes side by side: all that changes is a cell per row."""

    def __init__(self, family: "FrozenMapsFamily", tasks: Sequence[AnyTask], **modes: Unpack[Modes]) -> None:
        """Put every agent into its corner."""
        super().__init__(family, tasks, **modes)
        self._family = family
        self._distinct = list(dict.fromkeys(tasks))
        place = {task.task_id: index for index, task in enumerate(self._distinct)}
        self._maps = np.array([place[task.task_id] for task in tasks])  # which of the distinct ones, e
        self._is_hole = family.holes(self._distinct)
        self._cells = np.zeros(len(tasks), dtype=np.int64)

    def _observe(self) -> Array:
        return self._cells.astype(self.single_observation_space.dtype)[:, None]

    def _restart(self, rows: NDArray[np.bool_]) -> None:
        self._cells[rows] = 0

    def _advance(self, actions: Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        if self._family.spec.is_slippery:
            everyone = np.ones(self.num_envs, dtype=np.bool_)
            drift = (3 * self._streams.uniform(everyone, 1)[:, 0]).astype(np.int64) - 1
            actions = (actions + drift) % len(MOVES)
        self._cells = self._family.moved[self._cells, actions]
        is_goal = self._cells == self._family.goal
        return is_goal.astype(np.float32), is_goal | self._is_hole[self._maps, self._cells]

    @cached_property
    def _plans(self) -> NDArray[np.uint8]:
        return self._family.plans(self._distinct)

    def _best_actions(self) -> NDArray[np.int64]:
        left = self.horizon - self._elapsed_env_steps
        return np.asarray(self._plans[left - 1, self._maps, self._cells], np.int64)

    def _draw(self, row: int, mode: str) -> Frame:
        size = self._family.spec.size
        grid = Grid(size, size)

        def place(cell: int) -> int:
            """Return the cell of the picture, in which y runs up."""
            return grid.cell(cell % size, size - 1 - cell // size)

        marks = {place(int(cell)): "hole" for cell in np.flatnonzero(self._is_hole[self._maps[row]])}
        return frame_of(mode, grid, place(int(self._cells[row])), marks | {place(self._family.goal): "goal"})


@final
class FrozenMapsFamily(NumberedFamily):
    """Distinct maps in drawn order; map i is the same however many are drawn.

    Shapes: `m` maps, `c` cells, `a` actions. `moved`, `c a`, is where each action leads when it does not slip.
    """

    spec: FrozenMapsSpec
    name = "frozen-maps"
    rows_class = FrozenMapsRows

    def __init__(self, spec: FrozenMapsSpec) -> None:
        """Lay out the lake of *spec*; the maps are drawn when they are asked for."""
        self.spec = spec
        self.horizon = spec.horizon
        self.has_random_transitions = spec.is_slippery
        self.num_cells = spec.size**2
        self.goal = self.num_cells - 1
        row, column = np.divmod(np.arange(self.num_cells), spec.size)
        last = spec.size - 1
        ways = [(row + down).clip(0, last) * spec.size + (column + right).clip(0, last) for down, right in MOVES]
        self.moved = np.stack(ways, axis=1)
        self.spaces = multi_discrete([self.num_cells], len(MOVES))

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Every task, in canonical order.

        Raises:
            SettingError: there are not so many maps of this size and density that can be crossed in time.
        """
        spec = self.spec
        drawn: dict[bytes, NDArray[np.bool_]] = {}
        for attempt in range(0, _MOST_ATTEMPTS * spec.num_tasks, _ATTEMPTS_AT_ONCE):
            count = _ATTEMPTS_AT_ONCE * self.num_cells
            words = drawn_words(spec.task_seed, count, first=attempt * self.num_cells).reshape(-1, self.num_cells)
            is_hole = (words >> np.uint64(11)) * 2.0**-53 < spec.hole_frac
            is_hole[:, [0, self.goal]] = False
            drawn |= {holes.tobytes(): holes for holes in is_hole[self._can_be_crossed(is_hole)]}
            if len(drawn) >= spec.num_tasks:
                return tuple(map(self._task_of, list(drawn.values())[: spec.num_tasks]))
        raise SettingError(
            f"of {spec.num_tasks:,} maps of {spec.size}x{spec.size} cells with 'hole_frac' {spec.hole_frac}, only "
            f"{len(drawn):,} that can be crossed in {spec.horizon} env steps turned up; ask for fewer"
        )

    def _can_be_crossed(self, is_hole: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which maps, `m c`, have a way to the goal that is not longer than the horizon, `m`."""
        is_reached = np.zeros_like(is_hole)
        is_reached[:, 0] = True
        for _ in range(min(self.horizon, self.num_cells)):
            is_reached = (is_reached | is_reached[:, self.moved].any(axis=2)) & ~is_hole  # moves can be undone
        return np.asarray(is_reached[:, self.goal])

    def _task_of(self, holes: NDArray[np.bool_]) -> Task:
        letters = np.where(holes, "H", "F")
        letters[0], letters[self.goal] = "S", "G"
        text = "-".join("".join(row) for row in letters.reshape(self.spec.size, -1).tolist())
        return Task(task_id=f"frozen-maps-{self.spec.size}x{self.spec.size}/{text}", params={"map": text})

    def holes(self, tasks: Sequence[AnyTask]) -> NDArray[np.bool_]:
        """Return which cells of each task are holes, `m c`."""
        texts = [str(task.params["map"]).replace("-", "") for task in self.own(tasks)]
        return np.asarray(np.array([list(text) for text in texts]).reshape(len(texts), -1) == "H")

    def action_values(self, is_hole: NDArray[np.bool_], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the expected return of each action, `m c a`, when each cell is worth *values*, `m c`, afterwards."""
        worth = values.copy()
        worth[:, self.goal] = 1.0
        sure = worth[:, self.moved]
        if self.spec.is_slippery:
            sure = (np.roll(sure, 1, axis=2) + sure + np.roll(sure, -1, axis=2)) / 3
        sure[is_hole] = 0.0
        sure[:, self.goal] = 0.0
        return np.asarray(sure)

    def _induced(
        self, tasks: Sequence[AnyTask], choose: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Return what each cell is worth at the start of an episode, `m c`, where *choose* maps `m c a` to `m c`."""
        is_hole = self.holes(tasks)
        values = np.zeros(is_hole.shape)
        for _ in range(self.horizon):
            values = choose(self.action_values(is_hole, values))
        return values

    def optimal_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the chance to reach the goal by the best policy, `m`, by backward induction over the horizon."""
        values = self._induced(tasks, lambda action_values: action_values.max(axis=2))
        return np.asarray(values[:, 0])

    def random_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the chance to reach the goal by uniformly random actions, `m`, by backward induction likewise."""
        values = self._induced(tasks, lambda action_values: action_values.mean(axis=2))
        return np.asarray(values[:, 0])

    def plans(self, tasks: Sequence[AnyTask]) -> NDArray[np.uint8]:
        """Return an optimal action of each cell when `h` + 1 env steps are left, `h m c`.

        Of several, it is the one by which an agent without a time limit would be at the goal soonest.
        """
        num_bytes = self.horizon * len(tasks) * self.num_cells
        refuse_too_large(f"the optimal policy of {len(tasks):,} maps of {self.name}", num_bytes)
        is_hole = self.holes(tasks)
        soonness = values = np.zeros(is_hole.shape)
        for _ in range(max(self.num_cells, 300)):
            soonness = _HASTE * self.action_values(is_hole, soonness).max(axis=2)
        preference = self.action_values(is_hole, soonness)
        plans = np.empty((self.horizon, *is_hole.shape), dtype=np.uint8)
        for left in range(self.horizon):
            action_values = self.action_values(is_hole, values)
            values = action_values.max(axis=2)
            is_best = action_values >= values[..., None] - _TIE
            plans[left] = np.where(is_best, preference, -1.0).argmax(axis=2)
        return plans

    def _led_to(self, task: AnyTask, observations: Array, actions: Array) -> Array:
        return self._reached(task, observations[:, 0], actions)[:, None]

    def _possible(self, task: AnyTask, observations: Array, actions: Array, reached: Array) -> Array:
        cells = observations[:, 0]
        ways = np.stack([self._reached(task, cells, (actions + drift) % len(MOVES)) for drift in (-1, 0, 1)])
        is_possible = (ways == reached[:, 0]).any(axis=0)
        return np.where(is_possible, reached[:, 0], ways[1])[:, None]

    def _reached(self, task: AnyTask, cells: Array, moves: Array) -> Array:
        """Return where *moves* from *cells* lead, `t`; from a hole or the goal they lead nowhere."""
        is_end = self.holes([task])[0]
        is_end[self.goal] = True
        return np.where(is_end[cells], cells, self.moved[cells, moves])

    def _replayed(self, task: AnyTask, recording: Recording) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        reached = recording.next_observations[:, 0]
        is_goal = reached == self.goal
        return is_goal.astype(np.float32), is_goal | self.holes([task])[0][reached]
