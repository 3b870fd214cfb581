"""Writing down what a vector env does, env step by env step, and cutting it into histories at the end.

What lies outside its space, or cannot be stored as it was measured, is refused with its place.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cccad_data import spaces
from cccad_data.errors import SourceError, UnfitValueError
from cccad_data.family import StepOutcome, Task, TaskFamily, VectorEnvironment
from cccad_data.histories.history import TaskHistories
from cccad_data.narrow import Border, Precision, checked_cast, narrow
from cccad_data.plain import Array

Outcome = StepOutcome


def refuse_other_autoresets(environment: VectorEnvironment) -> None:
    """Raise SourceError where *environment* say that a row whose episode ends is not reset in the same env step."""
    mode = (getattr(environment, "metadata", None) or {}).get("autoreset_mode", "SAME_STEP")
    if getattr(mode, "name", mode) != "SAME_STEP":
        raise SourceError(
            f"this environment has the autoreset mode {getattr(mode, 'name', mode)}; make it with "
            "autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP"
        )


def same_step(outcome: Outcome) -> Outcome:
    """Return *outcome* with `infos["final_obs"]`, `r o`, the true next observation of every row, if any ended.

    Vector envs of gymnasium give an array of objects that is empty where no episode ended. Raises SourceError where
    last observations are missing.
    """
    observations, rewards, terminations, truncations, infos = outcome
    ended = np.asarray(terminations) | np.asarray(truncations)
    last = infos.get("final_obs") if ended.any() else None
    is_whole = isinstance(last, Mapping | tuple) or (isinstance(last, np.ndarray) and last.dtype != object)
    if not ended.any() or is_whole:
        return outcome
    if last is None or any(last[row] is None for row in np.flatnonzero(ended)):
        raise SourceError("an episode ended, but infos['final_obs'] does not hold its last observation")
    true_next = _replaced(observations, ended, [last[row] for row in np.flatnonzero(ended)])
    return observations, rewards, terminations, truncations, {**infos, "final_obs": true_next}


def _replaced(observations: Any, rows: Array, others: Sequence[Any]) -> Any:
    """Return *observations* with *others* in the marked *rows*, part by part."""
    if isinstance(observations, Mapping):
        return {name: _replaced(part, rows, [each[name] for each in others]) for name, part in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_replaced(part, rows, [each[i] for each in others]) for i, part in enumerate(observations))
    replaced = np.array(observations)
    replaced[rows] = np.stack([np.asarray(each) for each in others])
    return replaced


class Recorder:
    """The lives of `len(tasks) * num_envs` learners; row `i * num_envs + j` is history `j` of task `i`.

    An episode that has not ended after *env_steps* is left out: a history ends where an episode ends.
    """

    def __init__(self, family: TaskFamily, tasks: Sequence[Task], *, num_envs: int, env_steps: int) -> None:
        if env_steps < family.horizon:
            raise SourceError(
                f"'env_steps' must be at least one episode of family {family.name!r} "
                f"({family.horizon} env steps): {env_steps}"
            )
        self._observation, self._last = Border(family.spaces["observation"]), Border(family.spaces["observation"])
        self._last.precision = self._observation.precision  # they are of one kind
        self._action, self._reward_precision = Border(family.spaces["action"]), Precision()
        rows = len(tasks) * num_envs
        self.family_name, self.tasks, self.num_envs, self.length = family.name, tuple(tasks), num_envs, 0
        width = spaces.num_features(family.spaces["observation"])
        self._observations = np.empty((env_steps, rows, width), self._observation.dtype)
        self._actions = np.empty((env_steps, rows, *self._action.shape), self._action.dtype)
        self._optimal_actions: Array | None = None
        self._rewards = np.empty((env_steps, rows), np.float32)
        self._terminations = np.zeros((env_steps, rows), bool)
        self._truncations = np.zeros((env_steps, rows), bool)
        self._final: list[tuple[int, Array, Array]] = []  # env step, rows whose episode ended, their true observation

    def add(self, observations: Array, actions: Array, outcome: Outcome, optimal: Array | None = None) -> None:
        """Write down one env step of every row; *outcome* is what `vector_env.step(actions)` returned.

        Raises UnfitValueError where a value lies outside its space or cannot be stored as it is.
        """
        _, rewards, terminations, truncations, infos = same_step(outcome)
        now, rewards = self.length, self._per_row(rewards, "reward")
        self._observations[now] = self._within(self._observation, observations, "observation")
        self._actions[now] = self._within(self._action, actions, "action")
        self._rewards[now] = checked_cast(rewards, np.float32, self._place("reward"))
        self._reward_precision.add(rewards, self._rewards[now], self._place("reward"))
        self._terminations[now] = narrow(self._per_row(terminations, "termination"), bool, self._place("termination"))
        self._truncations[now] = narrow(self._per_row(truncations, "truncation"), bool, self._place("truncation"))
        if optimal is not None:
            if self._optimal_actions is None:
                self._optimal_actions = np.empty_like(self._actions)
            self._optimal_actions[now] = self._within(self._action, optimal, "optimal action")
        (ended,) = np.nonzero(self._terminations[now] | self._truncations[now])
        if len(ended):
            every = spaces.as_rows(self._last.space, infos["final_obs"])
            last = self._last(every[ended], self._place("final observation", ended))
            self._final.append((now, ended, last.reshape(len(ended), -1)))
        self.length += 1

    def _within(self, border: Border, values: ArrayLike, what: str) -> Array:
        array, num_rows = spaces.as_rows(border.space, values), self._rewards.shape[1]
        if len(array) != num_rows:
            raise UnfitValueError(f"{self._place(what)(0)} comes {len(array)} times for {num_rows} environments")
        kept = border(array, self._place(what))
        return kept if border is self._action else kept.reshape(len(kept), -1)

    def _per_row(self, values: ArrayLike, what: str) -> Array:
        array = np.asarray(values)
        if array.shape != self._rewards.shape[1:]:
            wanted = list(self._rewards.shape[1:])
            has = f"has shape {list(array.shape)} for all environments"
            raise UnfitValueError(f"{self._place(what)(0)} {has}, not {wanted}")
        return array

    def _place(self, what: str, rows: Array | None = None) -> Callable[[int], str]:
        """Return what names the place of row i of a batch, or of the i-th of *rows*, in this env step."""
        now = self.length

        def place(index: int) -> str:
            row = index if rows is None else int(rows[index])
            task = self.tasks[row // self.num_envs].task_id
            history = row % self.num_envs
            return f"family {self.family_name!r}, task {task!r}, history {history}, env step {now:,}, the {what}"

        return place

    def histories(self) -> list[TaskHistories]:
        """Return what was written down, one `TaskHistories` per task; raises UnfitValueError for lost precision."""
        for precision in (self._observation.precision, self._action.precision, self._reward_precision):
            precision.check()
        times = np.concatenate([np.full(len(rows), now) for now, rows, _ in self._final] or [np.empty(0, np.int64)])
        rows = np.concatenate([rows for _, rows, _ in self._final] or [np.empty(0, np.int64)])
        order = np.lexsort((times, rows))  # by row, then by time
        times, rows = times[order], rows[order]
        if len(np.unique(rows)) != self._rewards.shape[1]:
            raise SourceError(
                f"some histories have no finished episode in {self.length:,} env steps; collect longer ones"
            )
        final = np.concatenate([last for _, _, last in self._final])[order]
        return [self._task(index, times, rows, final) for index in range(len(self.tasks))]

    def _task(self, index: int, times: Array, rows: Array, final: Array) -> TaskHistories:
        first = index * self.num_envs
        mine = slice(*np.searchsorted(rows, (first, first + self.num_envs)))
        times, rows = times[mine], rows[mine] - first
        is_last = np.append(rows[1:] != rows[:-1], True)  # the last finished episode of its row
        lengths = times[is_last] + 1  # m
        history_ends = np.cumsum(lengths)
        episode_ends = times + 1 + np.repeat(history_ends - lengths, np.bincount(rows, minlength=self.num_envs))
        kept = np.arange(self.length)[None, :] < lengths[:, None]  # m t
        block = slice(first, first + self.num_envs)

        def flat(array: Array) -> Array:
            return np.ascontiguousarray(np.swapaxes(array[: self.length, block], 0, 1)[kept])

        task = self.tasks[index]
        return TaskHistories(
            task_id=task.task_id,
            params=dict(task.params),
            observations=flat(self._observations),
            actions=flat(self._actions),
            rewards=flat(self._rewards),
            terminations=flat(self._terminations),
            truncations=flat(self._truncations),
            final_observations=final[mine],
            episode_ends=episode_ends.astype(np.int64),
            history_ends=history_ends.astype(np.int64),
            optimal_actions=None if self._optimal_actions is None else flat(self._optimal_actions),
        )
