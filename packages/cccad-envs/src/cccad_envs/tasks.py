"""Tasks in canonical order: a tuple where they are few; otherwise each is built when it is asked for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, overload

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from cccad_envs.plain import Parameter

MOST_LISTED = 100_000


class AnyTask(Protocol):
    """A task as a family is given it, which may be another's: an id and parameters."""

    @property
    def task_id(self) -> str:
        """The id."""

    @property
    def params(self) -> Mapping[str, Parameter]:
        """The parameters by name."""


@frozen(kw_only=True)
class Task:
    """One task: a stable readable id such as `darkroom-9x9/goal-4-2`, and the parameters that make it up."""

    task_id: str
    params: Mapping[str, Parameter] = field(hash=False)


def in_order(size: int, build: Callable[[int], Task], position: Callable[[str], int]) -> "tuple[Task, ...] | Tasks":
    """Return *size* tasks, of which *build* makes the i-th: a tuple, or `Tasks` where there are very many.

    *position* reads the place of a task from its id. It may return any number, or raise ValueError, for what is no id.
    """
    return tuple(map(build, range(size))) if size <= MOST_LISTED else Tasks(build, position, range(size))


class Tasks(Sequence[Task]):
    """Tasks that cost nothing until they are asked for; slices are such sequences again."""

    def __init__(
        self, build: Callable[[int], Task], position: Callable[[str], int], places: range | NDArray[np.int64]
    ) -> None:
        """Offer the tasks at *places* in the order of all."""
        self._build, self._position, self._places = build, position, places

    @property
    def size(self) -> int:
        """How many there are; `len` cannot say so above 2^63."""
        places = self._places
        if isinstance(places, range):
            return (places[-1] - places[0]) // places.step + 1 if places else 0
        return len(places)

    def find(self, task_id: str) -> Task | None:
        """Return the task of this id if it is one of these."""
        try:
            place = self._position(task_id)
            task = self._build(place) if place in self._places else None
        except (ValueError, IndexError):
            return None
        return task if task is not None and task.task_id == task_id else None

    def chosen(self, places: NDArray[np.int64]) -> "Tasks":
        """Return the tasks at these *places* among all, in their order."""
        return Tasks(self._build, self._position, places)

    @overload
    def __getitem__(self, key: int) -> Task: ...
    @overload
    def __getitem__(self, key: slice) -> "Tasks": ...
    def __getitem__(self, key: int | slice) -> "Task | Tasks":
        if isinstance(key, slice):
            return Tasks(self._build, self._position, self._places[key])
        return self._build(int(self._places[key]))

    def __len__(self) -> int:
        return self.size

    def __contains__(self, task: object) -> bool:
        return bool(self.find(getattr(task, "task_id", "")) == task)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tasks) or self.size != other.size:
            return False
        are_placed_alike = np.all(self._places == other._places)  # numbers of arrays, or ranges as a whole
        return bool(are_placed_alike and (self.size == 0 or self[0] == other[0]))

    def __add__(self, other: Iterable[Task]) -> tuple[Task, ...]:
        return (*self, *other)

    def __radd__(self, other: Iterable[Task]) -> tuple[Task, ...]:
        return (*other, *self)

    def __mul__(self, times: int) -> tuple[Task, ...]:
        return tuple(self) * times

    __hash__ = None  # type: ignore[assignment]
