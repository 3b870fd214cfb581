"""One unit of collection: the environments of some tasks, all stepped together, and each task's own random stream.

Legend: `r` rows, task by task and `num_envs` of each; `o` observation features, `a` actions or their features.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Generic, Protocol, TypeVar

import numpy as np
from attrs import field, frozen, validators

from cccad_data import chance, spaces
from cccad_data.collecting.recorder import Outcome, Recorder, refuse_other_autoresets, same_step
from cccad_data.errors import SourceError
from cccad_data.family import KnowsOptimalActions, Task, TaskFamily
from cccad_data.histories.history import TaskHistories
from cccad_data.jobs.job import Progress
from cccad_data.plain import Array

_ABOVE_ROWS = 2**40  # keeps a task's seed less its first row positive


@frozen(kw_only=True)
class LifeSpec:
    """How many histories a source makes and how long they are: the fields that every source has."""

    num_envs: int = field(default=20, validator=validators.ge(1), metadata={"help": "histories per task"})
    env_steps: int = field(default=1000, validator=validators.ge(1), metadata={"help": "length of each history"})
    tasks_per_unit: int = field(
        default=64, validator=validators.ge(1), metadata={"help": "tasks that are collected, and written, together"}
    )
    store_optimal_actions: bool = field(
        default=False, metadata={"help": "keep what an optimal agent who knows the task would have done, too"}
    )


class LifeSource(Protocol):
    """What a `Unit` asks of the source that plays it."""

    @property
    def name(self) -> str:
        """The name under which the source's spec is registered."""

    @property
    def spec(self) -> LifeSpec:
        """The settings that built the source."""


class Unit:
    """The environments of *tasks* under *source*, played until every history has its length, and written down.

    A task's arrays depend on the seed and its id alone. For that, row i of a vector env that draws random numbers must
    draw as if it were alone and had been reset with seed + i, and `options["reset_mask"]` must reset some rows only.
    """

    def __init__(
        self, source: LifeSource, family: TaskFamily, tasks: Sequence[Task], seed: int, progress: Progress | None = None
    ) -> None:
        spec = source.spec
        self.num_tasks, self.num_envs, self.num_rows = len(tasks), spec.num_envs, len(tasks) * spec.num_envs
        self.family, self.tasks, self.action_space = family, tasks, family.spaces["action"]
        self.recorder = Recorder(family, tasks, num_envs=spec.num_envs, env_steps=spec.env_steps)
        self.streams = [chance.generator(seed, source.name, task.task_id) for task in tasks]
        self.environment = family.make_vec([task for task in tasks for _ in range(spec.num_envs)])
        refuse_other_autoresets(self.environment)
        self.oracle = self.environment if isinstance(self.environment, KnowsOptimalActions) else None
        if spec.store_optimal_actions and self.oracle is None:
            raise SourceError(
                f"'store_optimal_actions' needs them, and family {family.name!r} knows none; set it false"
            )
        self._space = family.spaces["observation"]
        self.observations = spaces.as_rows(self._space, self.environment.reset(seed=0)[0])
        for index, task in enumerate(tasks):
            rows = np.arange(self.num_rows) // spec.num_envs == index
            # The label is part of every seed, so that another word would change every dataset.
            number = chance.seed_of(seed, source.name, task.task_id, "worlds") + _ABOVE_ROWS - index * spec.num_envs
            shown = self.environment.reset(seed=number, options={"reset_mask": rows})[0]
            self.observations[rows] = spaces.as_rows(self._space, shown)[rows]
        self._spec, self._progress = spec, progress

    @property
    def now(self) -> int:
        """Env steps that every row has taken."""
        return self.recorder.length

    @property
    def length(self) -> int:
        """Env steps that every history gets."""
        return int(self._spec.env_steps)

    @property
    def is_over(self) -> bool:
        """Whether the histories have their length."""
        return self.now >= self.length

    def uniform(self, *shape: int, dtype: type[np.float32 | np.float64] = np.float64) -> Array:
        """Return numbers in [0, 1), `r *shape`, of each task's own stream."""
        return np.concatenate([stream.random((self.num_envs, *shape), dtype) for stream in self.streams])

    def optimal_actions(self) -> Array:
        """Return what is best to do now, `r` or `r a`; raises SourceError where nobody knows."""
        if self.oracle is None:
            raise SourceError(f"family {self.family.name!r} knows no optimal actions")
        return np.asarray(self.oracle.optimal_actions())

    def step(self, actions: Array) -> Outcome:
        """Take one env step in every row, write it down and return what the vector env returned.

        Raises UnfitValueError where a value lies outside its space or cannot be stored as it is.
        """
        optimal = self.optimal_actions() if self._spec.store_optimal_actions else None
        actions = actions.reshape(self.num_rows, *spaces.action_shape(self.action_space))
        outcome = same_step(self.environment.step(spaces.handed(self.action_space, actions)))
        self.recorder.add(self.observations, actions, outcome, optimal)
        self.observations = spaces.as_rows(self._space, outcome[0])
        if self._progress is not None:
            self._progress(self.now * self.num_rows)
        return outcome

    def histories(self) -> list[TaskHistories]:
        """Return what was written down, one `TaskHistories` per task."""
        return self.recorder.histories()


def num_discrete(source: LifeSource, family: TaskFamily, side: str = "action") -> tuple[int, ...]:
    """Return the sizes of the family's action or observation space; raises SourceError when it is not discrete."""
    kind = family.spaces[side]["kind"]
    if not spaces.is_discrete(family.spaces[side]):
        raise SourceError(f"{source.name} needs discrete {side}s; family {family.name!r} has {kind}")
    return spaces.sizes(family.spaces[side])


S = TypeVar("S", bound=LifeSpec)


class UnitSource(ABC, Generic[S]):
    """A source that plays the rows of a unit together, env step by env step."""

    name: ClassVar[str]

    def __init__(self, spec: S) -> None:
        self.spec = spec

    def collect(
        self, family: TaskFamily, tasks: Sequence[Task], *, seed: int, progress: Progress | None = None
    ) -> list[TaskHistories]:
        """Return `num_envs` histories of every task. *progress* gets the env steps done so far.

        Raises SourceError when the source is not for such a family.
        """
        unit = Unit(self, family, tasks, seed, progress)
        self.play(unit)
        return unit.histories()

    @abstractmethod
    def play(self, unit: Unit) -> None:
        """Take the env steps of *unit*; raises SourceError when the source is not for its family."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread inside: units in several processes use more cores better, and give the same arrays."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
