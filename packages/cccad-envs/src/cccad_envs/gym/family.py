"""The family that a Gymnasium environment and its variations make."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, final

import attrs
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from cccad_envs.errors import PlayError, SettingError, UnknownTaskError
from cccad_envs.family import Split, drawn_split
from cccad_envs.gym.exact import Plan, plan
from cccad_envs.gym.imports import import_path, in_one_line, near_names
from cccad_envs.gym.making import Recipe, reset
from cccad_envs.gym.rows import GymRows
from cccad_envs.gym.spaces import Side
from cccad_envs.gym.twins import MOST_ENV_STEPS, twins
from cccad_envs.gym.vary import id_of
from cccad_envs.plain import Parameter, Table
from cccad_envs.tasks import AnyTask, Task

_SEED = 31  # of the episodes that measure the random return
_cache: dict[str, Any] = {}
"What was measured in this process, by the settings of the family and what it is of: it takes long to play."


class GymnasiumFamily:
    """Variations of one Gymnasium environment. Its random return is measured.

    Shapes: `e` tasks or rows.
    """

    name = "gymnasium"
    has_random_rewards = False
    rows_class = GymRows

    def __init__(
        self,
        spec: Any,
        recipe: Recipe,
        sides: Mapping[str, Side],
        params: Sequence[Mapping[str, Parameter]],
        horizon: int,
    ) -> None:
        """Offer the tasks with these *params*, each an environment made by *recipe*."""
        self.spec, self.recipe, self.sides, self.horizon = spec, recipe, sides, horizon
        self.spaces: dict[str, Table] = {side: both.ours for side, both in sides.items()}
        self._all = [Task(task_id=id_of(recipe.name, each), params=each) for each in params]

    @cached_property
    def key(self) -> str:
        """The settings of the family as text."""
        return json.dumps(attrs.asdict(self.spec), sort_keys=True, default=str)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Every task, in the order of `vary`; of equal ones only the first, where they are merged."""
        if self.spec.equal_tasks != "merge":
            return tuple(self._all)
        later = {number for group in self._twins() for number in group[1:]}
        return tuple(task for number, task in enumerate(self._all) if number not in later)

    @cached_property
    def _by_id(self) -> dict[str, Task]:
        return {task.task_id: task for task in self.tasks}

    def task(self, task_id: str) -> Task:
        """Return the task of this id.

        Raises:
            UnknownTaskError: there is no such task; the message gives near ids.
        """
        if task_id not in self._by_id:
            hint = near_names(str(task_id), self._by_id)
            raise UnknownTaskError(f"{self.recipe.name} has no task {task_id!r} among its {len(self.tasks):,}; {hint}")
        return self._by_id[task_id]

    def split(self, seed: int = 0, held_out_frac: float = 0.1) -> Split:
        """Draw held-out tasks, the same on every platform, as every family of ours does.

        Raises:
            SettingError: *held_out_frac* or *seed* is out of its range, or two tasks are the same task.
        """
        if self.spec.equal_tasks == "refuse" and (groups := self._twins()):
            one, other = (self._all[number].task_id for number in groups[0][:2])
            more = f" (and {sum(map(len, groups)) - 2} more tasks)" if sum(map(len, groups)) > 2 else ""
            raise SettingError(
                f"{one!r} and {other!r}{more} cannot be told apart in {MOST_ENV_STEPS:,} env steps of exploration: "
                "one would be trained on and the other held out; vary something that has an effect, or set "
                "equal_tasks = 'merge' to keep the first of each, or 'keep' if you know better"
            )
        return drawn_split(self.name, self.tasks, seed, held_out_frac)

    def make_vec(self, tasks: Sequence[AnyTask], *, autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP) -> GymRows:
        """Return a vector environment whose row i plays `tasks[i]`; a task may be given many times.

        Raises:
            UnknownTaskError: a task is not one of this family.
            SettingError: no task is given, or another mode is asked for than SAME_STEP.
        """
        if autoreset_mode is not AutoresetMode.SAME_STEP:
            raise SettingError(f"a family of Gymnasium's environments resets in SAME_STEP, not in {autoreset_mode}")
        return self._rows([self.task(task.task_id) for task in tasks])

    def _rows(self, tasks: Sequence[Task]) -> GymRows:
        params = [task.params for task in tasks]
        return self.rows_class(self.recipe, self.sides, params, horizon=self.horizon, success=self.spec.success)

    def random_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return what the uniformly random policy earned in an episode of each task on average, `e`."""
        return np.array([self._random_episodes(task).mean() for task in tasks])

    def random_return_errors(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the standard error of every measured random return, `e`."""
        episodes = [self._random_episodes(task) for task in tasks]
        return np.array([returns.std(ddof=1) / math.sqrt(len(returns)) for returns in episodes])

    def _random_episodes(self, task: AnyTask) -> NDArray[np.float64]:
        """Return what episodes of random actions earned."""
        key = f"random {task.task_id} {self.key}"
        if key not in _cache:
            rows, wanted, running = self._rows([self.task(task.task_id)]), self.spec.random_episodes, 0.0
            returns: list[float] = []
            rows.reset(seed=_SEED)
            rows.action_space.seed(_SEED)
            age = 0
            while len(returns) < wanted:
                _, rewards, terminations, truncations, _ = rows.step(rows.action_space.sample())
                running, age = running + float(rewards[0]), age + 1
                if age > self.horizon:
                    raise PlayError(f"an episode of {self.recipe.name} goes on after its horizon of {self.horizon}")
                if terminations[0] or truncations[0]:
                    returns.append(running)
                    running, age = 0.0, 0
            rows.close()
            _cache[key] = np.array(returns)
        measured: NDArray[np.float64] = _cache[key]
        return measured

    def _twins(self) -> list[list[int]]:
        """Return the groups of tasks that cannot be told apart."""
        key = f"twins {self.key}"
        if key not in _cache:
            _cache[key] = twins(len(self._all), lambda number: self._rows([self._all[number]]))
        groups: list[list[int]] = _cache[key]
        return groups


@final
class FamilyWithoutOptimum(GymnasiumFamily):
    """The optimum is not known; returns are measured by what a source reaches."""

    has_no_optimum = True


@final
class FamilyWithOptimum(GymnasiumFamily):
    """The optimum of every task is given: a number for all, a table by task, or a planner by import path."""

    def optimal_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the highest expected return of one episode of each task, `e`."""
        return np.array([self._optimum(self.task(task.task_id)) for task in tasks], np.float64)

    def _optimum(self, task: Task) -> float:
        stated: Any = self.spec.reference_return
        if isinstance(stated, Mapping):
            short = task.task_id.split("/", 1)[1].removeprefix(f"{self.recipe.name}/")
            if task.task_id not in stated and short not in stated:
                raise SettingError(
                    f"'reference_return' has no number for {task.task_id!r}; {near_names(short, stated)}"
                )
            return float(stated.get(task.task_id, stated.get(short)))
        if not isinstance(stated, str):
            return float(stated)
        key = f"optimum {task.task_id} {self.key}"
        if key not in _cache:
            _cache[key] = self._planned(import_path(stated, "reference_return"), task)
        return float(_cache[key])

    def _planned(self, planner: Any, task: Task) -> float:
        env = self.recipe.build(task.params)
        seed, options = self.recipe.resets(task.params)
        reset(env, self.recipe.name, _SEED if seed is None else seed, options)
        try:
            optimum = float(planner(env, self.horizon))
        except Exception as error:  # whatever the planner of a stranger raises
            what = f"'reference_return': the planner {self.spec.reference_return!r} fails on {task.task_id!r}"
            raise SettingError(f"{what}: {in_one_line(error)}") from error
        finally:
            env.close()
        return optimum


@final
class TabularFamily(GymnasiumFamily):
    """The transitions of every task are a table, so that its optimal and its random return are exact."""

    def plan(self, task: AnyTask) -> Plan:
        """Return what is best to do in *task*, and what that and acting at random earn."""
        key = f"plan {task.task_id} {self.key}"
        if key not in _cache:
            env = self.recipe.build(self.task(task.task_id).params)
            _cache[key] = plan(env, self.horizon, self.recipe.name)
            env.close()
        planned: Plan = _cache[key]
        return planned

    def optimal_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the highest expected return of one episode of each task, `e`, by backward induction."""
        return np.array([self.plan(task).optimal_return for task in tasks])

    def random_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the expected return of the uniformly random policy, `e`, by backward induction."""
        return np.array([self.plan(task).random_return for task in tasks])

    def random_return_errors(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return zeros: the random returns are exact."""
        return np.zeros(len(tasks))

    def make_vec(self, tasks: Sequence[AnyTask], *, autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP) -> GymRows:
        """Return a vector environment that knows optimal actions besides, where no wrapper changes what they mean."""
        rows = super().make_vec(tasks, autoreset_mode=autoreset_mode)
        if not self.recipe.wrappers:
            return PlannedRows.of(rows, [self.plan(task) for task in tasks])
        return rows


@final
class PlannedRows(GymRows):
    """Rows that know what an agent who knows the task would do."""

    plans: Sequence[Plan]

    @classmethod
    def of(cls, rows: GymRows, plans: Sequence[Plan]) -> "PlannedRows":
        """Return *rows*, with a plan for each."""
        rows.__class__ = cls
        assert isinstance(rows, cls)
        rows.plans = plans
        return rows

    def optimal_actions(self) -> NDArray[np.int64]:
        """Return an optimal action for every row, `e`."""
        states = [int(row.env.unwrapped.s) for row in self.rows]  # type: ignore[attr-defined]
        return np.array(
            [planned.actions[age, state] for planned, age, state in zip(self.plans, self._age, states, strict=True)]
        )
