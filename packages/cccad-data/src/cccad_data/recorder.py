"""Writing down what a vector env does, env step by env step, and cutting it into histories at the end."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cccad_data import spaces
from cccad_data.errors import SourceError
from cccad_data.history import Array, TaskHistories


class Recorder:
    """The lives of ``len(tasks) * num_envs`` learners; row ``i * num_envs + j`` is history ``j`` of task ``i``.

    An episode that has not ended after *env_steps* is left out: a history ends where an episode ends.
    """

    def __init__(self, family: Any, tasks: Sequence[Any], *, num_envs: int, env_steps: int) -> None:
        if env_steps < family.horizon:
            raise SourceError(
                f"'env_steps' must be at least one episode of family {family.name!r} "
                f"({family.horizon} env steps): {env_steps}"
            )
        observation, action = family.spaces["observation"], family.spaces["action"]
        rows = len(tasks) * num_envs
        self.tasks, self.num_envs, self.length = tuple(tasks), num_envs, 0
        width = spaces.num_features(observation)
        self._observations = np.empty((env_steps, rows, width), spaces.dtype(observation))
        shape = () if action["kind"] == "discrete" else (spaces.num_features(action),)
        self._actions = np.empty((env_steps, rows, *shape), spaces.dtype(action))
        self._optimal_actions: Array | None = None
        self._rewards = np.empty((env_steps, rows), np.float32)
        self._terminations = np.zeros((env_steps, rows), bool)
        self._truncations = np.zeros((env_steps, rows), bool)
        self._final: list[tuple[int, Array, Array]] = []  # env step, rows whose episode ended, their true observation

    def add(self, observations: Array, actions: Array, outcome: tuple[Any, ...], optimal: Array | None = None) -> None:
        """Write down one env step of every row; *outcome* is what ``vector_env.step(actions)`` returned."""
        _, rewards, terminations, truncations, infos = outcome
        now = self.length
        self._observations[now] = observations.reshape(self._observations.shape[1:])
        self._actions[now] = actions.reshape(self._actions.shape[1:])
        self._rewards[now] = rewards
        self._terminations[now], self._truncations[now] = terminations, truncations
        if optimal is not None:
            if self._optimal_actions is None:
                self._optimal_actions = np.empty_like(self._actions)
            self._optimal_actions[now] = optimal.reshape(self._actions.shape[1:])
        (ended,) = np.nonzero(terminations | truncations)
        if len(ended):
            true_last = np.asarray(infos["final_obs"]).reshape(self._observations.shape[1:])[ended]
            self._final.append((now, ended, true_last.astype(self._observations.dtype)))
        self.length += 1

    def histories(self) -> list[TaskHistories]:
        """Return what was written down, one `TaskHistories` per task."""
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
