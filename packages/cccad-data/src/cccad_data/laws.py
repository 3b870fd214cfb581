"""The laws of task families and of sources, as checks that any of them can be put to; each breach names its law.

from cccad_data.family import Task, TaskFamily
from cccad_data.laws import check_family, check_source
check_family(MySpec().build())
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from attrs import evolve, has

from cccad_data import spaces
from cccad_data.declared import contradiction
from cccad_data.errors import DataError
from cccad_data.family import (
    HasOptimum,
    HasRandomReturn,
    KnowsOptimalActions,
    Task,
    TaskFamily,
    VectorEnvironment,
    episodes_per_cycle,
    optimal_returns,
    random_returns,
)
from cccad_data.history import TaskHistories
from cccad_data.plain import Array
from cccad_data.recorder import Recorder, refuse_other_autoresets, same_step

FEW_ENV_STEPS, MANY_ENV_STEPS = 300, 4_000
_MOST_TASKS = 500  # that are looked at one by one
_FAMILY = ("name", "spec", "horizon", "spaces", "tasks", "task", "split", "make_vec")


class LawBrokenError(DataError):
    """A task family or a source does not keep a law that collection, training and evaluation rely on."""


def require(law: str, kept: bool, what: str) -> None:
    """Raise LawBrokenError, saying *what* is wrong, unless *law* is *kept*."""
    if not kept:
        raise LawBrokenError(f"law '{law}' is broken: {what}")


# Families -----------------------------------------------------------------------------------------------------------


def check_family(family: TaskFamily, *, is_quick: bool = False) -> None:
    """Check every law of a task *family*; raises LawBrokenError, and UnfitValueError for what lies outside its space.

    *is_quick*: on fewer env steps, and without comparing the declared returns with those that are played.
    """
    missing = [name for name in _FAMILY if not hasattr(family, name)]
    require("a family is whole", not missing, f"it has no {', '.join(missing)}")
    _check_tasks(family)
    _check_split(family)
    pair = [family.tasks[0], family.tasks[len(family.tasks) - 1]]
    _check_declared(family, pair)
    actions = _random_actions(family, FEW_ENV_STEPS if is_quick else 3 * FEW_ENV_STEPS, len(pair))
    first = _played(family, pair, actions, seed=7)
    again = _played(family, pair, actions, seed=7)
    alone = _played(family, pair[1:], actions[:, 1:], seed=8)  # row i draws as if it were reset with seed + i
    for name in first:
        law = "the same seed gives the same episodes"
        require(law, np.array_equal(first[name], again[name]), f"{name} differ when everything is done again")
        law = "rows do not mix"
        require(law, np.array_equal(first[name][:, 1:], alone[name]), f"{name} of row 1 differ when it is played alone")
    _check_masked_reset(family, pair)
    if not is_quick and isinstance(family, HasOptimum) and isinstance(family, HasRandomReturn):
        _check_earned(family, pair)


def _check_tasks(family: TaskFamily) -> None:
    num_tasks = len(family.tasks)
    law, some = "tasks are told apart", range(0, num_tasks, max(1, num_tasks // _MOST_TASKS))
    require(law, num_tasks >= 2, f"it has {num_tasks} tasks; one must be held out and one trained on")
    listed = [family.tasks[i] for i in some]
    ids = [task.task_id for task in listed]
    are_texts = all(isinstance(name, str) and name.isprintable() and name for name in ids)
    require(law, are_texts, "an id is no printable text")
    twins = sorted(name for name in set(ids) if ids.count(name) > 1)
    require(law, not twins, f"two tasks have the id {twins[:1]}")
    for task in listed:
        back = family.task(task.task_id).task_id
        require(law, back == task.task_id, f"task({task.task_id!r}) returns {back!r}")
    for task in listed:
        for name, value in dict(task.params).items():
            is_scalar = type(value) in {str, bool, int} or (type(value) is float and math.isfinite(value))
            what = f"{name!r} of {task.task_id!r} is {value!r}, no text, finite number or truth value"
            require("task parameters are scalars", isinstance(name, str) and is_scalar, what)
    law, rebuilt = "ids are stable", family.spec.build()
    is_same = len(rebuilt.tasks) == num_tasks and [rebuilt.tasks[i].task_id for i in some] == ids
    require(law, is_same, "building the same spec again gives other ids")
    is_same = json.dumps(rebuilt.spaces) == json.dumps(family.spaces)
    require("spaces are stable", is_same, "building the same spec again gives other spaces")


def _check_split(family: TaskFamily) -> None:
    law, parts = "a split is disjoint and complete", family.split(seed=3, held_out_frac=0.5)
    train, held_out = ([task.task_id for task in side] for side in (parts.train, parts.held_out))
    require(law, bool(train) and bool(held_out), f"it has {len(train)} training and {len(held_out)} held-out tasks")
    require(law, not set(train) & set(held_out), "a task is on both sides")
    require(law, len(train) + len(held_out) == len(family.tasks), "a task is on neither side")
    again = family.split(seed=3, held_out_frac=0.5)
    is_same = [task.task_id for task in again.held_out] == held_out
    require("a split follows from its seed", is_same, "the same seed holds out other tasks")


def _check_declared(family: TaskFamily, tasks: Sequence[Task]) -> None:
    law = "declared returns"
    declared: dict[str, Array] = {}
    if isinstance(family, HasOptimum):
        declared["optimal_returns"] = np.asarray(family.optimal_returns(tasks))
    if isinstance(family, HasRandomReturn):
        declared["random_returns"] = np.asarray(family.random_returns(tasks))
    for name, values in declared.items():
        is_right = values.shape == (len(tasks),) and values.dtype.kind in "fiu" and bool(np.isfinite(values).all())
        require(law, is_right, f"{name}() of {len(tasks)} tasks gives {values}, not as many finite numbers")
    if len(declared) == 2:
        best, chance = declared.values()
        above = bool((best > chance).all())
        require(law, above, f"the optimum must lie above the random policy: {best.tolist()} and {chance.tolist()}")


def _random_actions(family: TaskFamily, num_env_steps: int, num_rows: int) -> Array:
    space, generator = family.spaces["action"], np.random.default_rng(5)
    if space["kind"] == "box":
        low, high = (bound.clip(-1e3, 1e3) for bound in spaces.bounds(space))
        drawn = generator.uniform(low, high, (num_env_steps, num_rows, len(low)))
        return drawn.astype(np.float32).reshape(num_env_steps, num_rows, *space["shape"])
    return generator.integers(0, spaces.sizes(space)[0], (num_env_steps, num_rows))


def _played(family: TaskFamily, tasks: Sequence[Task], actions: Array, seed: int) -> dict[str, Array]:
    """Return what *actions*, ``t e ...``, lead to; the recorder refuses what lies outside its space."""
    worlds, horizon = family.make_vec(tasks), family.horizon
    refuse_other_autoresets(worlds)
    observations = np.array(worlds.reset(seed=seed)[0])
    recorder = Recorder(family, tasks, num_envs=1, env_steps=max(horizon, len(actions)))
    told: dict[str, list[Array]] = {name: [] for name in ("observations", "rewards", "terminations", "truncations")}
    age = np.zeros(len(tasks), np.int64)
    for now in actions:
        outcome = same_step(worlds.step(now))
        recorder.add(observations, now, outcome)
        age += 1
        for name, values in zip(told, (observations, *outcome[1:4]), strict=True):
            told[name].append(np.array(values))
        observations = np.array(outcome[0])
        age[np.asarray(outcome[2]) | np.asarray(outcome[3])] = 0
        require("episodes end", bool((age < horizon).all()), f"one goes on after {horizon} env steps, its horizon")
    return {name: np.stack(values) for name, values in told.items()}


def _check_masked_reset(family: TaskFamily, tasks: Sequence[Task]) -> None:
    worlds = family.make_vec(tasks)
    before = np.array(worlds.reset(seed=1)[0])
    for actions in _random_actions(family, min(family.horizon - 1, 5), len(tasks)):
        before = np.array(worlds.step(actions)[0])
    mask = np.arange(len(tasks)) == 1
    after = np.array(worlds.reset(seed=2, options={"reset_mask": mask})[0])
    what = 'reset(options={"reset_mask": ...}) changes a row that the mask leaves out'
    require("rows are reset apart", np.array_equal(before[~mask], after[~mask]), what)


def _check_earned(family: TaskFamily, tasks: Sequence[Task]) -> None:
    """Play by the optimal and by the random policy, and compare what that earns with what is declared."""
    best, chance, cycle = optimal_returns(family, tasks), random_returns(family, tasks), episodes_per_cycle(family)
    num_episodes = -(-max(20, MANY_ENV_STEPS // family.horizon) // cycle) * cycle
    rows = [task for task in tasks for _ in range(8)]
    actions = iter(_random_actions(family, num_episodes * family.horizon, len(rows)))
    ids, worlds = [task.task_id for task in tasks], family.make_vec(rows)
    policies = [("a random policy", "the random return", chance, actions.__next__)]
    if isinstance(worlds, KnowsOptimalActions):
        policies.append(("its optimal policy", "the optimum", best, worlds.optimal_actions))
    for who, what, declared, choose in policies:
        returns = _returns(worlds, num_episodes, choose).reshape(len(tasks), 8, -1)
        wrong = contradiction(who, what, returns, declared, best - chance, ids, cycle=cycle)
        require("declared returns", not wrong, wrong)


def _returns(worlds: VectorEnvironment, num_episodes: int, choose: Callable[[], Array]) -> Array:
    """Return what every row earns in its first episodes, ``e episode``."""
    worlds.reset(seed=11)
    returns = np.zeros((worlds.num_envs, num_episodes + 1))
    episode = np.zeros(worlds.num_envs, np.int64)
    while episode.min() < num_episodes:
        _, rewards, terminations, truncations, _ = worlds.step(np.asarray(choose()))
        returns[np.arange(worlds.num_envs), episode] += rewards
        episode = np.minimum(episode + (np.asarray(terminations) | np.asarray(truncations)), num_episodes)
    return returns[:, :num_episodes]


# Sources ------------------------------------------------------------------------------------------------------------


def check_source(spec: Any, family: TaskFamily, *, is_quick: bool = False) -> None:
    """Check every law of the source that *spec* builds, on two tasks of *family*; raises LawBrokenError.

    Histories are shortened to five episodes, or 300 env steps; *is_quick*: to two episodes.
    """
    if has(type(spec)):
        most = 2 * family.horizon if is_quick else max(5 * family.horizon, FEW_ENV_STEPS)
        spec = evolve(spec, num_envs=min(spec.num_envs, 2), env_steps=min(spec.env_steps, most))
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


def _collected(source: Any, family: TaskFamily, tasks: Sequence[Task], seed: int) -> Sequence[TaskHistories]:
    made: Sequence[TaskHistories] = source.collect(family, tasks, seed=seed)
    is_right = isinstance(made, Sequence) and all(isinstance(part, TaskHistories) for part in made)
    require("one set of histories per task", is_right, "collect() must return a list of TaskHistories")
    return made


def _same(values: Array, other: Array | None) -> bool:
    return other is not None and np.array_equal(np.asarray(values), np.asarray(other))
