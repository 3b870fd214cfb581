"""Task families: finite sets of tasks that share spaces and dynamics, split into train and held-out tasks.

The tasks of one family differ only in what is hidden from the agent. Task ids are readable and stable: they
travel in data files, checkpoints and results, so that a held-out task can be recognised wherever it turns up.
"""

import bisect
import difflib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Protocol, final

import attrs
import numpy as np
from attrs import AttrsInstance, field, frozen, validators
from gymnasium.vector import AutoresetMode
from numpy.typing import ArrayLike, NDArray

from cccad_envs.affordable import refuse_too_large, refuse_too_slow
from cccad_envs.errors import SettingError, TransitionError, UnknownTaskError
from cccad_envs.plain import Array, Table
from cccad_envs.recorded import Recording, checked_actions, checked_observations
from cccad_envs.rows import RowsEnv
from cccad_envs.single import SingleEnv
from cccad_envs.spaces import element_type
from cccad_envs.tasks import AnyTask, Task, Tasks

_SPLIT_BYTES_PER_TASK = 64  # of words, their order, and the ids that a dataset lists
MOST_SEED = 2**128 - 1


def whole_number(_instance: object, attribute: "attrs.Attribute[int]", value: object) -> None:
    """Refuse what is not an int; a validator for spec fields, to stand before a range check."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise SettingError(f"'{attribute.name}' must be a whole number: {value!r}")


def whole(default: int, *, at_least: int, at_most: int = 1 << 53, tells: str) -> int:
    """Return a spec's field that is a whole number within these bounds; *tells* is its help."""
    checks = [whole_number, validators.ge(at_least), validators.le(at_most)]
    return field(default=default, validator=checks, metadata={"help": tells})


def drawn_words(seed: int, count: int, *, first: int = 0) -> NDArray[np.uint64]:
    """Return *count* raw words, from word *first* on, of a Philox generator whose key is *seed*: on every platform.

    NumPy promises only its raw bit streams to stay as they are, hence no `Generator` methods.
    """
    block, skipped = divmod(first, 4)  # it makes four words at a time
    return np.random.Philox(key=int(seed)).advance(block).random_raw(skipped + count)[skipped:]


@lru_cache(maxsize=2)
def _drawn_order(seed: int, num_tasks: int) -> NDArray[np.int64]:
    """Return the places of the tasks in the order of their words."""
    order = np.argsort(drawn_words(seed, num_tasks), kind="stable")
    order.flags.writeable = False
    return order


class FamilySpec(AttrsInstance, Protocol):
    """An attrs class whose fields are a family's settings."""

    def build(self) -> "TaskFamily":
        """Return the family; the same settings always make the same family."""


@frozen(kw_only=True)
class Split:
    """Train and held-out tasks, disjoint and together complete.

    Both are in drawn order, not in canonical order, so that any prefix is a uniform sample. They are tuples, or `Tasks`
    where there are very many.
    """

    train: tuple[Task, ...] | Tasks
    held_out: tuple[Task, ...] | Tasks


def drawn_split(name: str, tasks: tuple[Task, ...] | Tasks, seed: int, held_out_frac: float) -> Split:
    """Return the split of the *tasks* of the family *name*; `TaskFamily.split` says how it is drawn, and raises."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed <= MOST_SEED:
        raise SettingError(f"'seed' of a split must be a whole number >= 0 and < 2**128: {seed!r}")
    if not 0 < held_out_frac < 1:
        raise SettingError(f"'held_out_frac' must be > 0 and < 1: {held_out_frac!r}")
    num_tasks = tasks.size if isinstance(tasks, Tasks) else len(tasks)
    refuse_too_large(f"a split of the {num_tasks:,} tasks of {name}", num_tasks * _SPLIT_BYTES_PER_TASK)
    refuse_too_slow(f"a split of the {num_tasks:,} tasks of {name}", 2 * num_tasks * num_tasks.bit_length())
    num_held_out = round(held_out_frac * num_tasks)
    if not 0 < num_held_out < num_tasks:
        side = "held-out" if num_held_out == 0 else "training"
        raise SettingError(f"'held_out_frac' of {held_out_frac} leaves no {side} task among the {num_tasks:,}")
    order = _drawn_order(int(seed), num_tasks)
    if isinstance(tasks, Tasks):
        return Split(train=tasks.chosen(order[num_held_out:]), held_out=tasks.chosen(order[:num_held_out]))
    drawn = [tasks[position] for position in order]
    return Split(train=tuple(drawn[num_held_out:]), held_out=tuple(drawn[:num_held_out]))


class TaskFamily(ABC):
    """What a data source, a trainer and an evaluation may ask of a set of tasks.

    Shapes: `e` rows (one per task given), `t` env steps, `o` observation features.

    A family sets `name` (as registered), `spec` (what built it), `horizon` (most env steps in an episode) and
    `spaces` (plain dicts, for example `{"observation": {"kind": "multi-discrete", "sizes": [9, 9]}, "action":
    {"kind": "discrete", "n": 5}}`); `rows_class` is what plays its tasks.

    `episodes_per_cycle` is above 1 where a task changes from episode to episode: the returns of an episode are then
    means over so many. `has_random_rewards` says that chance decides rewards, so that no replay can compute them, and
    `has_random_transitions` that it decides where actions lead: such a family must say what is `_possible`.
    `random_return_operations` is how many numbers are reckoned with for the random return of one task.
    """

    name: str
    spec: FamilySpec
    horizon: int
    spaces: dict[str, Table]
    rows_class: type[RowsEnv]
    episodes_per_cycle: int = 1
    has_random_rewards: bool = False
    has_random_transitions: bool = False
    random_return_operations: float = 0.0

    @cached_property
    @abstractmethod
    def tasks(self) -> tuple[Task, ...] | Tasks:
        """Every task, in canonical order."""

    @abstractmethod
    def optimal_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the highest expected return of one episode of each task, `e`, in closed form."""

    @abstractmethod
    def random_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the expected return of the uniformly random policy in one episode of each task, `e`, exactly."""

    @abstractmethod
    def _led_to(self, task: AnyTask, observations: Array, actions: Array) -> Array:
        """Return what follows the *observations*, `t o`, when *actions* are taken, `t` or `t a`; `t o`."""

    def _possible(self, task: AnyTask, observations: Array, actions: Array, reached: Array) -> Array:
        """Return what was *reached*, `t o`, where chance can lead there, and a place where it can instead of others.

        For families that `has_random_transitions`; without chance, only one thing is possible. *reached* holds the last
        observations of episodes, too.
        """
        return self._led_to(task, observations, actions)

    @abstractmethod
    def _replayed(self, task: AnyTask, recording: Recording) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the rewards and terminations that a history should have recorded, `t`."""

    def time_limits(self, tasks: Sequence[AnyTask]) -> NDArray[np.int64]:
        """Return after how many env steps an episode of each task is cut off, `e`: the horizon, or less."""
        return np.full(len(tasks), self.horizon)

    @final
    def make_vec(
        self,
        tasks: Sequence[AnyTask],
        *,
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> RowsEnv:
        """Return a vector environment whose row i plays `tasks[i]`; a task may be given many times.

        Raises:
            UnknownTaskError: a task is not one of this family.
            SettingError: no task is given, or the mode is not known.
        """
        return self.rows_class(self, tasks, autoreset_mode=autoreset_mode, render_mode=render_mode)

    @final
    def next_observations(
        self, task: AnyTask, observations: ArrayLike, actions: ArrayLike, *, recorded: ArrayLike | None = None
    ) -> Array:
        """Return what the dynamics make of *observations* `t o` and *actions* `t` or `t a`: the true next ones, `t o`.

        Where these two do not tell the next observation alone, they must be a history from its birth on. A family that
        `has_random_transitions` needs those that were *recorded*, `t o`; it returns the ones that can be, and
        possible ones in place of others. Other families ignore them.

        Raises:
            TransitionError: an observation or an action lies outside its space, the lengths differ, or recorded next
                observations are needed and not given.
        """
        space = self.spaces["observation"]
        checked = checked_observations("observations", observations, space)
        taken = checked_actions(actions, len(checked), self.spaces["action"])
        if not self.has_random_transitions:
            return self._led_to(task, checked, taken).astype(element_type(space))
        if recorded is None or len(np.asarray(recorded)) != len(checked):
            raise TransitionError(f"in {self.name} chance decides what follows: give what was 'recorded' for each")
        reached = checked_observations("recorded", recorded, space)
        return self._possible(task, checked, taken, reached).astype(element_type(space))

    @final
    def replay(
        self,
        task: AnyTask,
        observations: ArrayLike,
        actions: ArrayLike,
        next_observations: ArrayLike,
        episode_ends: ArrayLike,
        *,
        rewards: ArrayLike | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return (rewards, terminations, truncations), each `t`, recomputed from one history's transitions alone.

        *observations* and *next_observations* are `t o`, *actions* `t` or `t a`; *episode_ends* holds the exclusive end
        of each finished episode. Env steps after the last end belong to an unfinished episode. A family that
        `has_random_rewards` needs the recorded *rewards*, `t`; it returns those that the task can give, and the
        nearest possible ones in place of others. Other families ignore them.

        Raises:
            TransitionError: the arrays do not fit together, or an observation or action lies outside its space, or
                recorded rewards are needed and not given.
        """
        if rewards is None and self.has_random_rewards:
            raise TransitionError(f"rewards of {self.name} are drawn by chance: give the recorded ones as 'rewards'")
        recording = Recording.of(self.spaces, observations, actions, next_observations, episode_ends, rewards)
        return *self._replayed(task, recording), recording.clock == self.time_limits([task])[0] - 1

    @final
    @cached_property
    def positions(self) -> dict[str, int]:
        """The position of every task id in `tasks`."""
        return {task.task_id: position for position, task in enumerate(self.tasks)}

    @final
    def task(self, task_id: str) -> Task:
        """Return the task of this id.

        Raises:
            UnknownTaskError: there is no such task; the message gives near ids.
        """
        tasks = self.tasks
        if isinstance(tasks, Tasks):
            named = tasks.find(task_id)
            if named is not None:
                return named
        elif task_id in self.positions:
            return tasks[self.positions[task_id]]
        near = self._near_ids(str(task_id))
        hint = f"Did you mean {', '.join(map(repr, near))}?" if near else f"Ids look like {tasks[0].task_id!r}."
        raise UnknownTaskError(f"{self.name} has no task {task_id!r} among its {self._num_tasks:,}. {hint}")

    @property
    def _num_tasks(self) -> int:
        return self.tasks.size if isinstance(self.tasks, Tasks) else len(self.tasks)

    def _near_ids(self, task_id: str) -> list[str]:
        if isinstance(self.tasks, Tasks):
            return []
        ids = sorted(self.positions)
        here = bisect.bisect(ids, task_id)  # the ids around it begin alike: enough, and quick in a large family
        near = difflib.get_close_matches(task_id, ids[max(0, here - 100) : here + 100], n=200)
        return sorted(near, key=lambda name: -len(os.path.commonprefix([name, task_id])))[:3]  # noqa: RUF071  # no paths

    @final
    def split(self, seed: int = 0, held_out_frac: float = 0.1) -> Split:
        """Draw held-out tasks, the same on every platform and in every NumPy.

        Task i gets the i-th raw 64-bit word of a Philox generator whose key is *seed*; tasks are sorted by their word
        (ties by canonical order), and the first `round(held_out_frac * number of tasks)` are held out.

        Raises:
            SettingError: *held_out_frac* is not inside (0, 1) or leaves a side empty, or *seed* is negative or no int,
                or so many tasks do not fit into memory, or nobody could wait for a random return.
        """
        refuse_too_slow(f"the random return of a task of {self.name}", self.random_return_operations)
        return drawn_split(self.name, self.tasks, seed, held_out_frac)

    @final
    def make(self, task: AnyTask, render_mode: str | None = None) -> SingleEnv:
        """Return one ordinary environment that plays *task*; *render_mode* is `ansi`, `rgb_array` or None."""
        return SingleEnv(self.make_vec([task], autoreset_mode=AutoresetMode.DISABLED, render_mode=render_mode))

    @final
    def optimal_return(self, task: AnyTask) -> float:
        """Return the highest expected return of one episode of *task*."""
        return float(self.optimal_returns([task])[0])

    @final
    def random_return(self, task: AnyTask) -> float:
        """Return the expected return of the uniformly random policy in one episode of *task*."""
        return float(self.random_returns([task])[0])
