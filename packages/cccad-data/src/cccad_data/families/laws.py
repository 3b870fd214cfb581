"""The laws of a task family, against which any can be held; each breach names its law.

from cccad_data.families.laws import check_family
check_family(MySpec())
"""

import json
import math
import pickle
from collections.abc import Sequence

import numpy as np

from cccad_data import spaces
from cccad_data.families.played_laws import FEW_ENV_STEPS, check_earned, check_played
from cccad_data.family import (
    FamilySpec,
    HasOptimum,
    HasRandomReturn,
    Task,
    TaskFamily,
    episodes_per_cycle,
    has_scores,
)
from cccad_data.jobs.portable import packed
from cccad_data.laws import require
from cccad_data.plain import Array

_MOST_TASKS = 500  # that are looked at one by one
_MEMBERS = ("name", "spec", "horizon", "spaces", "tasks", "task", "split", "make_vec")
_MOST_SPLITS = 20  # of few tasks, which two seeds may well split alike
_STRANGE_ID = "no task of any family / ?"


def check_family(spec: FamilySpec, *, is_quick: bool = False) -> None:
    """Check every law of the task family that *spec* builds.

    Args:
        spec: The settings of the family.
        is_quick: On fewer env steps, and without what takes long: other processes, and playing for declared returns.

    Raises:
        LawBrokenError: A law is broken; the message names it.
        UnfitValueError: An observation or an action lies outside its space.
    """
    family = spec.build()
    _check_members(family)
    _check_tasks(family)
    _check_rebuilt(family, spec.build(), "building the same spec again gives")
    _check_split(family, spec.build())
    first, last = family.tasks[0], family.tasks[len(family.tasks) - 1]
    _check_declared(family, [first, last])
    num_env_steps = FEW_ENV_STEPS if is_quick else 3 * FEW_ENV_STEPS
    check_played(family, [first, last, first], num_env_steps=num_env_steps)
    if is_quick:
        return
    try:
        elsewhere: FamilySpec = pickle.loads(packed(spec))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        require("specs travel", False, f"the spec cannot be sent to another process: {error}")
    _check_rebuilt(family, elsewhere.build(), "the spec, sent to another process, gives")
    if has_scores(family):
        check_earned(family, [first, last])


def _check_members(family: TaskFamily) -> None:
    law, missing = "a family is whole", [name for name in _MEMBERS if not hasattr(family, name)]
    require(law, not missing, f"it has no {', '.join(missing)}")
    require(law, isinstance(family.name, str) and bool(family.name), f"its name is {family.name!r}")
    require(law, type(family.horizon) is int and family.horizon >= 1, f"its horizon is {family.horizon!r}")
    require(law, set(family.spaces) == {"observation", "action"}, f"its spaces are those of {', '.join(family.spaces)}")
    for side, space in family.spaces.items():
        spaces.check(space, f"law '{law}' is broken: the space of the {side}")
    require(law, episodes_per_cycle(family) >= 1, f"its episodes_per_cycle are {episodes_per_cycle(family)}")


def _some(tasks: Sequence[Task]) -> list[Task]:
    return [tasks[place] for place in range(0, len(tasks), max(1, len(tasks) // _MOST_TASKS))]


def _check_tasks(family: TaskFamily) -> None:
    law, num_tasks, listed = "tasks are told apart", len(family.tasks), _some(family.tasks)
    require(law, num_tasks >= 2, f"it has {num_tasks} tasks; one must be held out and one trained on")
    ids = [task.task_id for task in listed]
    are_texts = all(isinstance(name, str) and name.isprintable() and name for name in ids)
    require(law, are_texts, "an id is no printable text")
    twins = sorted(name for name in set(ids) if ids.count(name) > 1)
    require(law, not twins, f"two tasks have the id {twins[:1]}")
    for task in listed:
        same = family.task(task.task_id)
        require(law, same.task_id == task.task_id, f"task({task.task_id!r}) returns {same.task_id!r}")
        require(law, dict(same.params) == dict(task.params), f"task({task.task_id!r}) has other parameters")
        for name, value in dict(task.params).items():
            what = f"{name!r} of {task.task_id!r} is {value!r}, no text, finite number, truth value or list of these"
            require("task parameters are plain", isinstance(name, str) and _is_plain(value), what)
    try:
        stranger = family.task(_STRANGE_ID)
    except LookupError:
        return
    require("unknown ids are refused", False, f"task({_STRANGE_ID!r}) returns {stranger.task_id!r}")


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return type(value) in {str, bool, int} or (type(value) is float and math.isfinite(value))


def _check_rebuilt(family: TaskFamily, rebuilt: TaskFamily, what: str) -> None:
    ours, theirs = ([(task.task_id, dict(task.params)) for task in _some(one.tasks)] for one in (family, rebuilt))
    require("ids are stable", ours == theirs and len(family.tasks) == len(rebuilt.tasks), f"{what} other ids")
    is_same = json.dumps(dict(rebuilt.spaces)) == json.dumps(dict(family.spaces))
    require("spaces are stable", is_same, f"{what} other spaces")
    require("the horizon is stable", rebuilt.horizon == family.horizon, f"{what} another horizon")


def _check_split(family: TaskFamily, rebuilt: TaskFamily) -> None:
    law, parts = "a split is disjoint and complete", family.split(seed=3, held_out_frac=0.5)
    train, held_out = ([task.task_id for task in side] for side in (parts.train, parts.held_out))
    require(law, bool(train) and bool(held_out), f"it has {len(train)} training and {len(held_out)} held-out tasks")
    require(law, not set(train) & set(held_out), "a task is on both sides")
    num_tasks = len(family.tasks)
    require(law, len(train) + len(held_out) == num_tasks, "a task is on neither side")
    for name in (*train[:_MOST_TASKS], *held_out[:_MOST_TASKS]):
        family.task(name)
    is_half = abs(len(held_out) - num_tasks / 2) <= 1
    what = f"of {num_tasks} tasks, 'held_out_frac' 0.5 holds out {len(held_out)}"
    require("a split holds out its fraction", is_half, what)
    law = "a split follows from its seed"
    for other in (family, rebuilt):
        again = other.split(seed=3, held_out_frac=0.5)
        sides = ([task.task_id for task in side] for side in (again.train, again.held_out))
        require(law, [*sides] == [train, held_out], "the same seed gives another split")
    splits = (family.split(seed=seed, held_out_frac=0.5) for seed in range(_MOST_SPLITS if num_tasks < 1_000 else 3))
    sets = {frozenset(task.task_id for task in split.held_out) for split in splits}
    require(law, len(sets) > 1, "all seeds hold out the same tasks")


def _check_declared(family: TaskFamily, tasks: Sequence[Task]) -> None:
    law = "declared returns"
    declared: dict[str, Array] = {}
    if isinstance(family, HasOptimum):
        declared["optimal_returns"] = np.asarray(family.optimal_returns(tasks))
        alone = [float(np.asarray(family.optimal_returns([task]))[0]) for task in tasks]
    if isinstance(family, HasRandomReturn):
        declared["random_returns"] = np.asarray(family.random_returns(tasks))
    for name, values in declared.items():
        is_right = values.shape == (len(tasks),) and values.dtype.kind in "fiu" and bool(np.isfinite(values).all())
        require(law, is_right, f"{name}() of {len(tasks)} tasks gives {values}, not as many finite numbers")
    if "optimal_returns" in declared:
        is_same = bool(np.allclose(declared["optimal_returns"], alone))
        require(law, is_same, "optimal_returns() of a task depends on the tasks beside it")
    if len(declared) == 2:
        best, chance = declared.values()
        above = bool((best > chance).all())
        require(law, above, f"the optimum must lie above the random policy: {best.tolist()} and {chance.tolist()}")
