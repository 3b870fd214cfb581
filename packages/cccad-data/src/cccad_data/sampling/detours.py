"""Detours: episodes of *other* tasks' learners at the head of a stretch, paid as this task pays them.

A learner with many environments knows more than one of its histories shows: what it does gives the goal away before
any reward was seen there. An imitator takes that for evidence, and, acting alone, takes its *own* actions for evidence:
it goes somewhere, finds nothing, and keeps going there (self-delusion, arXiv 2110.10819). Behind a detour, which the
imitator is never asked to imitate, the later half of this task's history follows: a learner that knows goes elsewhere.
So the only thing that a fruitless visit says is where the goal is not, and whoever found nothing yet goes and looks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray

from cccad_data.errors import SamplingError
from cccad_data.family import (
    KnowsDynamics,
    RepeatableFamily,
    Replayable,
    Task,
    TaskFamily,
    episodes_per_cycle,
    has_random_rewards,
    has_random_transitions,
)
from cccad_data.histories.history import TaskHistories
from cccad_data.plain import Array

_MOST_OF_A_STRETCH = 0.75  # detours never take more
_MOST_COMPARED = 100  # tasks, before there are histories


@frozen(kw_only=True)
class DetourSpec:
    """How often, and for how many episodes, a stretch begins with detours; off by default."""

    frac: float = field(
        default=0.0,
        validator=[validators.ge(0.0), validators.le(1.0)],
        metadata={"help": "fraction of the stretches that begin with detours"},
    )
    max_episodes: int = field(
        default=10, validator=validators.ge(1), metadata={"help": "their number is uniform from 1 to this"}
    )
    repeat_frac: float = field(
        default=0.0,
        validator=[validators.ge(0.0), validators.le(1.0)],
        metadata={"help": "chance that each further one is the next episode of the same history, a second visit"},
    )

    def build(
        self, tasks: list[TaskHistories], columns: Mapping[str, Array], family: TaskFamily | None
    ) -> "Detours | None":
        """Return the detours among *tasks*, None when they are off; *family* says what each task would pay.

        *columns* are the env steps of all tasks, end to end.

        Raises SamplingError unless there are two tasks and only rewards tell them apart.
        """
        if not self.frac:
            return None
        if family is None:
            raise SamplingError("detours need the task family, which says what a task pays for the episodes of another")
        return Detours(self, tasks, columns, self._repeatable(family, len(tasks)))

    def check(self, family: TaskFamily, tasks: Sequence[Task]) -> None:
        """Raise SamplingError where *family* tells, without any history, that its *tasks* can have no detours.

        What is done at random in an episode of the first of them must lead to the same in others.
        """
        if not self.frac:
            return
        repeatable = self._repeatable(family, len(tasks))
        if "n" not in family.spaces["action"]:
            return  # real actions are compared where there are histories
        environment, random, is_over = family.make_vec(tasks[:1]), np.random.default_rng(0), False
        now, _ = environment.reset(seed=0)
        observed, chosen = [], []
        while not is_over:
            observed.append(now[0])
            chosen.append(random.integers(family.spaces["action"]["n"]))
            now, _, terminations, truncations, _ = environment.step(np.array(chosen[-1:]))
            is_over = bool(terminations[0] | truncations[0])
        observations, actions = np.array(observed), np.array(chosen)
        own, *others = [repeatable.next_observations(task, observations, actions) for task in tasks[:_MOST_COMPARED]]
        for task, led in zip(tasks[1:], others, strict=False):
            _refuse_another_way(tasks[0], task, own, led)

    def _repeatable(self, family: TaskFamily, num_tasks: int) -> RepeatableFamily:
        """Return *family*, which can say what any task pays for an episode of another; raises SamplingError."""
        if has_random_rewards(family) or episodes_per_cycle(family) > 1:
            raise SamplingError(f"detours need rewards that follow from an episode; {family.name!r} pays otherwise")
        if has_random_transitions(family):
            raise SamplingError(f"detours need to know where actions lead; in {family.name!r} chance decides it")
        if not isinstance(family, KnowsDynamics):
            raise SamplingError(
                f"detours need a family whose 'next_observations' says where actions lead; {family.name!r} has none"
            )
        if not isinstance(family, Replayable):
            raise SamplingError(f"detours need a family whose 'replay' says what a task pays; {family.name!r} has none")
        if num_tasks < 2:
            raise SamplingError("detours need histories of at least two tasks")
        return family


@frozen(kw_only=True)
class Plan:
    """What a batch begins with: *places* `b t` in the columns, meaningful for the first *lengths* `b` env steps.

    The first episode is shown without its first *skipped* `b` env steps, so that a write may come at any of its ages.
    """

    places: NDArray[np.int64]
    lengths: NDArray[np.int64]
    skipped: NDArray[np.int64]

    def of(self, rows: slice) -> "Plan":
        """Return the plan of *rows* alone."""
        return Plan(places=self.places[rows], lengths=self.lengths[rows], skipped=self.skipped[rows])


class Detours:
    """Every episode of every history, by task."""

    def __init__(
        self, spec: DetourSpec, tasks: list[TaskHistories], columns: Mapping[str, Array], family: RepeatableFamily
    ) -> None:
        self.spec, self._family, self._columns = spec, family, columns
        self._tasks = [family.task(task.task_id) for task in tasks]
        self._counts = np.concatenate([np.diff(np.asarray(task.episode_ends), prepend=0) for task in tasks])
        self._begins = np.cumsum(self._counts) - self._counts  # in the columns
        self._num_of_task = np.array([task.num_episodes for task in tasks])
        self._first_of_task = np.cumsum(self._num_of_task) - self._num_of_task
        lives = np.concatenate([task.num_episodes_per_history() for task in tasks])
        self._newest = np.repeat(np.cumsum(lives) - 1, lives)  # by episode: the last one of its history
        self._check()

    def episode_begin(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where in the columns the episodes begin that *places* belong to."""
        return np.asarray(self._begins[np.searchsorted(self._begins, places, side="right") - 1])

    def plan(self, random: np.random.Generator, task: NDArray[np.int64], length: int) -> Plan:
        """Choose the detours of a batch whose rows belong to the tasks *task*, `b`, in stretches of *length*."""
        size, most = len(task), self.spec.max_episodes
        wanted = np.where(random.random(size) < self.spec.frac, random.integers(1, most + 1, size), 0)
        others = len(self._begins) - self._num_of_task[task]
        chosen = (random.random((size, most)) * others[:, None]).astype(np.int64)
        chosen += np.where(chosen >= self._first_of_task[task][:, None], self._num_of_task[task][:, None], 0)
        if self.spec.repeat_frac:
            again = random.random((size, most)) < self.spec.repeat_frac
            for number in range(1, most):
                before = chosen[:, number - 1]
                following = np.minimum(before + 1, self._newest[before])
                chosen[:, number] = np.where(again[:, number], following, chosen[:, number])
        counts = self._counts[chosen]
        counts *= (np.arange(most) < wanted[:, None]) & (counts.cumsum(1) <= _MOST_OF_A_STRETCH * length)
        ends = counts.cumsum(1)
        skipped = (random.random(size) * counts[:, 0]).astype(np.int64)
        age = skipped[:, None] + np.arange(length)  # b t
        episode = np.minimum((age[:, :, None] >= ends[:, None, :]).sum(2), most - 1)
        first = self._begins[chosen] - (ends - counts)
        places = np.take_along_axis(first, episode, 1) + age
        return Plan(places=places, lengths=ends[:, -1] - skipped, skipped=skipped)

    def repay(self, batch: dict[str, Array], task: NDArray[np.int64], plan: Plan) -> None:
        """Put into *batch*, in place, what each row's own task pays for the detours that *plan* begins it with.

        Raises SamplingError when an episode would have ended differently.
        """
        for row in np.flatnonzero(plan.lengths):
            begin, shown = int(plan.places[row, 0]), slice(0, int(plan.lengths[row]))
            unseen = slice(begin - int(plan.skipped[row]), begin)
            part = {name: np.concatenate([self._columns[name][unseen], batch[name][row, shown]]) for name in _RECORDED}
            batch["rewards"][row, shown] = self._paid(self._tasks[task[row]], part)[plan.skipped[row] :]

    def _paid(self, task: Task, part: dict[str, Array]) -> Array:
        """Return the rewards that *task* pays for recorded env steps, whole episodes of another."""
        ends = np.flatnonzero(part["terminations"] | part["truncations"]) + 1
        rewards, terminations, truncations = self._family.replay(
            task, part["observations"], part["actions"], part["next_observations"], ends
        )
        if (terminations != part["terminations"]).any() or (truncations != part["truncations"]).any():
            raise SamplingError(f"detours need episodes that end alike in every task; in {task.task_id!r} one does not")
        return np.asarray(rewards)

    def _check(self) -> None:
        """Play one episode of every task again as if it were the next task's."""
        for first, own, task in zip(self._first_of_task, self._tasks, [*self._tasks[1:], self._tasks[0]], strict=True):
            begin = int(self._begins[first])
            part = {name: self._columns[name][begin : begin + int(self._counts[first])] for name in _RECORDED}
            led = self._family.next_observations(task, part["observations"], part["actions"])
            _refuse_another_way(own, task, part["next_observations"], led)
            self._paid(task, part)


def _refuse_another_way(own: Task, other: Task, led: Array, led_there: Array) -> None:
    """Raise SamplingError unless what was done on the task *own* leads to the same in *other*."""
    if (np.asarray(led_there) != led).any():
        raise SamplingError(
            f"detours need tasks that differ in their rewards alone: an episode of {own.task_id!r} goes "
            f"another way in {other.task_id!r}; set 'detours.frac' to 0"
        )


_RECORDED = ("observations", "actions", "terminations", "truncations", "next_observations")
