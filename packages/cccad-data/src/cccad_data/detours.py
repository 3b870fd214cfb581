"""Detours: episodes of *other* tasks' learners at the head of a stretch, paid as this task pays them.

A learner with many environments knows more than one of its histories shows: what it does gives the goal away before
any reward was seen there. An imitator takes that for evidence, and, acting alone, takes its *own* actions for evidence:
it goes somewhere, finds nothing, and keeps going there (self-delusion, arXiv 2110.10819). Behind a detour, which the
imitator is never asked to imitate, the later half of this task's history follows: a learner that knows goes elsewhere.
So the only thing that a fruitless visit says is where the goal is not, and whoever found nothing yet goes and looks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray

from cccad_data.errors import SamplingError
from cccad_data.history import Array, TaskHistories

_MOST_OF_A_STRETCH = 0.75  # detours never take more


@frozen(kw_only=True)
class DetourSpec:
    """How often, and for how many episodes, a stretch begins with detours; off by default."""

    frac: float = field(default=0.0, validator=[validators.ge(0.0), validators.le(1.0)])
    "Fraction of the stretches that begin with detours."
    max_episodes: int = field(default=10, validator=validators.ge(1))
    "Their number is uniform from 1 to this."

    def build(self, tasks: list[TaskHistories], columns: Mapping[str, Array], family: Any) -> "Detours | None":
        """Return the detours among *tasks*, None when they are off; *family* says what each task would pay.

        *columns* are the env steps of all tasks, end to end.

        Raises SamplingError unless there are two tasks and only rewards tell them apart.
        """
        if not self.frac:
            return None
        if family is None:
            raise SamplingError("detours need the task family, which says what a task pays for the episodes of another")
        if getattr(family, "has_random_rewards", False) or getattr(family, "episodes_per_cycle", 1) > 1:
            raise SamplingError(f"detours need rewards that follow from an episode; {family.name!r} pays otherwise")
        if len(tasks) < 2:
            raise SamplingError("detours need histories of at least two tasks")
        return Detours(self, tasks, columns, family)


@frozen(kw_only=True)
class Plan:
    """What a batch begins with: *places* ``b t`` in the columns, meaningful for the first *lengths* ``b`` env steps."""

    places: NDArray[np.int64]
    lengths: NDArray[np.int64]


class Detours:
    """Every episode of every history, by task."""

    def __init__(self, spec: DetourSpec, tasks: list[TaskHistories], columns: Mapping[str, Array], family: Any) -> None:
        self.spec, self._family = spec, family
        self._tasks = [family.task(task.task_id) for task in tasks]
        self._counts = np.concatenate([np.diff(np.asarray(task.episode_ends), prepend=0) for task in tasks])
        self._begins = np.cumsum(self._counts) - self._counts  # in the columns
        self._num_of_task = np.array([task.num_episodes for task in tasks])
        self._first_of_task = np.cumsum(self._num_of_task) - self._num_of_task
        self._check(columns)

    def episode_begin(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where in the columns the episodes begin that *places* belong to."""
        return np.asarray(self._begins[np.searchsorted(self._begins, places, side="right") - 1])

    def plan(self, random: np.random.Generator, task: NDArray[np.int64], length: int) -> Plan:
        """Choose the detours of a batch whose rows belong to the tasks *task*, ``b``, in stretches of *length*."""
        size, most = len(task), self.spec.max_episodes
        wanted = np.where(random.random(size) < self.spec.frac, random.integers(1, most + 1, size), 0)
        others = len(self._begins) - self._num_of_task[task]
        chosen = (random.random((size, most)) * others[:, None]).astype(np.int64)
        chosen += np.where(chosen >= self._first_of_task[task][:, None], self._num_of_task[task][:, None], 0)
        counts = self._counts[chosen]
        counts *= (np.arange(most) < wanted[:, None]) & (counts.cumsum(1) <= _MOST_OF_A_STRETCH * length)
        ends = counts.cumsum(1)
        age = np.arange(length)
        episode = np.minimum((age[None, :, None] >= ends[:, None, :]).sum(2), most - 1)  # b t
        first = self._begins[chosen] - (ends - counts)
        return Plan(places=np.take_along_axis(first, episode, 1) + age, lengths=ends[:, -1])

    def repay(self, batch: dict[str, NDArray[Any]], task: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Put into *batch*, in place, what each row's own task pays for its first *lengths* env steps.

        Raises SamplingError when an episode would have ended differently.
        """
        for row in np.flatnonzero(lengths):
            part = {name: batch[name][row, : lengths[row]] for name in _TOLD}
            batch["rewards"][row, : lengths[row]] = self._paid(self._tasks[task[row]], part)

    def _paid(self, task: Any, part: dict[str, Array]) -> Array:
        """Return the rewards that *task* pays for recorded env steps, whole episodes of another."""
        ends = np.flatnonzero(part["terminations"] | part["truncations"]) + 1
        moved = (part[name] for name in ("observations", "actions", "next_observations"))
        rewards, terminations, truncations = self._family.replay(task, *moved, ends)
        if (terminations != part["terminations"]).any() or (truncations != part["truncations"]).any():
            raise SamplingError(f"detours need episodes that end alike in every task; in {task.task_id!r} one does not")
        return np.asarray(rewards)

    def _check(self, columns: Mapping[str, Array]) -> None:
        """Play one episode of every task again as if it were the next task's."""
        for first, own, task in zip(self._first_of_task, self._tasks, [*self._tasks[1:], self._tasks[0]], strict=True):
            begin = int(self._begins[first])
            part = {name: columns[name][begin : begin + int(self._counts[first])] for name in _TOLD}
            led = self._family.next_observations(task, part["observations"], part["actions"])
            if (np.asarray(led) != part["next_observations"]).any():
                raise SamplingError(
                    f"detours need tasks that differ in their rewards alone: an episode of {own.task_id!r} goes "
                    f"another way in {task.task_id!r}; set 'detours.frac' to 0"
                )
            self._paid(task, part)


_TOLD = ("observations", "actions", "terminations", "truncations", "next_observations")
