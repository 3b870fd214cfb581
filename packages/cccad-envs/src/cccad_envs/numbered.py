"""Families whose tasks are counted: a task is found by its number, and its parameters are all that an episode needs."""

import re
from abc import ABC
from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from cccad_envs.errors import SettingError, UnknownTaskError
from cccad_envs.family import TaskFamily
from cccad_envs.tasks import AnyTask, Task

_MOST_DIGITS = 20


def number_of(task_id: str) -> int:
    """Read the number of a task from the end of its id; raises ValueError where there is none."""
    return int(re.split("[-/]", task_id)[-1][:_MOST_DIGITS])


class NumberedFamily(TaskFamily, ABC):
    """Tasks that are counted from 0. Shapes: `e` rows, `p` params."""

    @final
    def place(self, *, number: int) -> Task:
        """Return the task of this number.

        Raises:
            SettingError: there is no such task.
        """
        if number not in range(len(self.tasks)):
            raise SettingError(f"'number' of a task of {self.name} must be 0 to {len(self.tasks) - 1}: {number!r}")
        return self.tasks[number]

    @final
    def own(self, tasks: Sequence[AnyTask]) -> list[Task]:
        """Return every task as this family has it.

        Raises:
            UnknownTaskError: a task is not one of this family.
        """
        for task in dict.fromkeys(tasks):
            if self.task(task.task_id) != task:
                raise UnknownTaskError(f"task {task.task_id!r} has other params in this {self.name}: {task.params}")
        return [self.task(task.task_id) for task in tasks]

    @final
    def parameters(self, tasks: Sequence[AnyTask]) -> NDArray[np.int64]:
        """Return the params of every task, whole numbers, `e p`.

        Raises:
            UnknownTaskError: a task is not one of this family.
        """
        own = [list(task.params.values()) for task in self.own(tasks)]  # in the family's order of params
        return np.array(own, dtype=np.int64).reshape(len(tasks), -1)
