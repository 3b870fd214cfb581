"""The laws of a source, against which any can be held; each breach names its law."""

from collections.abc import Sequence

import numpy as np
from attrs import evolve

from cccad_data import spaces
from cccad_data.collecting.source import Source, SourceSpec
from cccad_data.family import Task, TaskFamily
from cccad_data.histories.history import TaskHistories
from cccad_data.laws import require
from cccad_data.plain import Array

_FEW_ENV_STEPS = 300


def check_source(spec: SourceSpec, family: TaskFamily, *, is_quick: bool = False) -> None:
    """Check every law of the source that *spec* builds, on two tasks of *family*; raises LawBrokenError.

    Histories are shortened to five episodes, or 300 env steps; *is_quick*: to two episodes.
    """
    most = 2 * family.horizon if is_quick else max(5 * family.horizon, _FEW_ENV_STEPS)
    spec = evolve(spec, num_envs=min(spec.num_envs, 2), env_steps=min(spec.env_steps, most))  # type: ignore[misc]  # an attrs class
    pair = [family.tasks[0], family.tasks[len(family.tasks) - 1]]
    source = spec.build()
    missing = [name for name in ("name", "spec", "collect") if not hasattr(source, name)]
    require("a source is whole", not missing, f"it has no {', '.join(missing)}")
    both = _collected(source, family, pair, 3)
    require("one set of histories per task", len(both) == 2, f"it returns {len(both)} for 2 tasks")
    for task, histories in zip(pair, both, strict=True):
        law, number = "one set of histories per task", histories.num_histories
        require(law, histories.task_id == task.task_id, f"for {task.task_id!r} it returns {histories.task_id!r}")
        require(law, number == spec.num_envs, f"it makes {number} histories of a task; its spec says {spec.num_envs}")
        longest = int(np.diff(histories.history_ends, prepend=0).max())
        require(law, longest <= spec.env_steps, f"a history has {longest} env steps; its spec says {spec.env_steps}")
        outside = spaces.outside(family.spaces["observation"], np.asarray(histories.observations)).any()
        require("observations lie in their space", not outside, "at least one does not")
    for other, law in (
        (_collected(source, family, pair, 3)[1], "the same seed gives the same arrays"),
        (_collected(spec.build(), family, pair[1:], 3)[0], "a task's arrays do not depend on the tasks beside it"),
    ):
        differing = [name for name, values in both[1].arrays().items() if not _same(values, other.arrays().get(name))]
        require(law, not differing, f"{', '.join(differing)} differ")


def _collected(source: Source, family: TaskFamily, tasks: Sequence[Task], seed: int) -> Sequence[TaskHistories]:
    histories: Sequence[TaskHistories] = source.collect(family, tasks, seed=seed)
    is_right = isinstance(histories, Sequence) and all(isinstance(part, TaskHistories) for part in histories)
    require("one set of histories per task", is_right, "collect() must return a list of TaskHistories")
    return histories


def _same(values: Array, other: Array | None) -> bool:
    return other is not None and np.array_equal(np.asarray(values), np.asarray(other))
