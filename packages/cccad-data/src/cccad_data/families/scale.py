"""What returns are measured by: the random policy is 0, and the optimum is 1, or else what the source reaches."""

from collections.abc import Iterable, Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cccad_data.collecting.source import Source
from cccad_data.errors import FamilyError
from cccad_data.family import (
    NeedsReference,
    Task,
    TaskFamily,
    optimal_returns,
    random_return_errors,
    random_returns,
)
from cccad_data.histories.history import TaskHistories

_LATE_FRAC, _FEWEST_LATE = 0.2, 10  # of a history's episodes


@frozen(kw_only=True, eq=False)
class Scale:
    """The best and the random return of every task, and their standard errors, `e`, which are 0 where they are exact.

    Where `is_optimum` is False, `best` is a reference: what the source of the histories reached in the end. On the
    tasks `not_learned` it reached nothing, and `best` is the mean of the others.
    """

    best: NDArray[np.float64]
    random: NDArray[np.float64]
    best_errors: NDArray[np.float64]
    random_errors: NDArray[np.float64]
    is_optimum: bool
    not_learned: tuple[str, ...] = ()

    @classmethod
    def of(cls, family: TaskFamily, tasks: Sequence[Task], references: Sequence[tuple[float, float]] = ()) -> "Scale":
        """Return the scale of *tasks*, by the family's optimum, or by a reference of each task and its error.

        Raises:
            FamilyError: the source does not learn: it is not above the random policy on most tasks.
        """
        random, errors = random_returns(family, tasks), random_return_errors(family, tasks)
        if not isinstance(family, NeedsReference):
            best, no_errors = optimal_returns(family, tasks), np.zeros(len(tasks))
            return cls(best=best, random=random, best_errors=no_errors, random_errors=errors, is_optimum=True)
        best, best_errors = np.array(references, np.float64).reshape(-1, 2).T
        low = best <= random
        not_learned = tuple(task.task_id for task, is_low in zip(tasks, low.tolist(), strict=True) if is_low)
        worst = int((best - random).argmin())
        if 2 * len(not_learned) <= len(tasks):
            best = np.where(low, best[~low].mean(), best)
        if (best <= random).any():
            raise FamilyError(
                f"the source does not learn {len(not_learned)} of {len(tasks)} tasks: on {tasks[worst].task_id} it "
                f"ends at {references[worst][0]:.4g}, where a random policy earns {random[worst]:.4g}; give another "
                "source, a longer life, or the return to measure by ('reference_return')"
            )
        return cls(
            best=best,
            random=random,
            best_errors=best_errors,
            random_errors=errors,
            is_optimum=False,
            not_learned=not_learned,
        )


def late_return(task: TaskHistories) -> tuple[float, float]:
    """Return what the best history of *task* earns in an episode in the end, and the standard error of that.

    The best history is chosen by every other of its late episodes and judged by those between, so that luck which made
    it look best does not count.
    """
    best, reached = -np.inf, (0.0, 0.0)
    for returns in np.split(task.episode_returns(), np.cumsum(task.num_episodes_per_history())[:-1]):
        late = returns[-max(_FEWEST_LATE, int(_LATE_FRAC * len(returns))) :]
        chosen_by, judged_by = (late[::2], late[1::2]) if len(late) > 3 else (late, late)
        if chosen_by.mean() > best:
            best = float(chosen_by.mean())
            spread = float(judged_by.std(ddof=1)) if len(judged_by) > 1 else 0.0
            reached = float(judged_by.mean()), spread / len(judged_by) ** 0.5
    return reached


def reached_by(source: Source, family: TaskFamily, tasks: Sequence[Task], *, seed: int) -> list[tuple[float, float]]:
    """Return what *source* reaches on every task, and the standard error of that; see `late_return`."""
    references: list[tuple[float, float]] = []
    size = source.spec.tasks_per_unit
    for first in range(0, len(tasks), size):
        references += map(late_return, source.collect(family, tasks[first : first + size], seed=seed))
    return references


def reached_on_average(histories: Iterable[TaskHistories]) -> tuple[float, float]:
    """Return what the source reached on its tasks, the mean over them, and the standard error of that."""
    returns = np.array([late_return(task)[0] for task in histories])
    error = float(returns.std(ddof=1)) / len(returns) ** 0.5 if len(returns) > 1 else 0.0
    return float(returns.mean()), error
