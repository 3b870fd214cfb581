"""Histories in memory: every history of one task laid end to end in flat arrays, cut by offsets.

Legend: `t` env steps of all histories together, `n` episodes, `m` histories, `o` observation features,
`a` actions. A history ends where an episode ends, so that every transition has its true next observation.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import ArrayLike, NDArray

from cccad_data.errors import DataError
from cccad_data.histories.columns import Column, Following, Thinned
from cccad_data.plain import Array, Parameter, Table

PER_ENV_STEP = ("observations", "actions", "rewards", "terminations", "truncations")
OFFSETS = ("episode_ends", "history_ends")
_FORMS = {  # kinds of numbers, and how many dimensions
    "observations": ("uif", (2,)),
    "final_observations": ("uif", (2,)),
    "rewards": ("uif", (1,)),
    "terminations": ("b", (1,)),
    "truncations": ("b", (1,)),
    "episode_ends": ("ui", (1,)),
    "history_ends": ("ui", (1,)),
}
ARRAYS = (*PER_ENV_STEP, "final_observations", *OFFSETS)


@frozen(kw_only=True, eq=False)
class TaskHistories:
    """All histories of one task, one after the other.

    The observation after env step `i` is `observations[i + 1]`, but `final_observations[e]` when `i` is
    the last env step of episode `e` (`i == episode_ends[e] - 1`).
    """

    task_id: str
    params: Mapping[str, Parameter] = field(factory=dict)
    observations: Array  # t o
    actions: Array  # t, or t a
    rewards: Array  # t float32
    terminations: Array  # t bool
    truncations: Array  # t bool
    final_observations: Array  # n o
    episode_ends: Array  # n int64: one past the last env step of each episode
    history_ends: Array  # m int64: one past the last env step of each history
    optimal_actions: Array | None = None  # t, or t a

    def __attrs_post_init__(self) -> None:
        fault = _fault(self)
        if fault:
            raise DataError(f"histories of task {self.task_id!r}: {fault}")

    @classmethod
    def from_episodes(
        cls,
        task_id: str,
        histories: Sequence[Sequence[Mapping[str, ArrayLike]]],
        params: Mapping[str, Parameter] | None = None,
    ) -> "TaskHistories":
        """Return *histories*, each the episodes of one learner in the order in which they were played.

        An episode has `observations`, one more than `actions` and `rewards`, and `terminated`: whether it ended for
        good. Without that it was cut off. Raises DataError where the counts do not fit.
        """
        parts: dict[str, list[Array]] = {name: [] for name in (*PER_ENV_STEP, "final_observations")}
        for episode in (episode for history in histories for episode in history):
            observations, rewards = np.asarray(episode["observations"]), np.asarray(episode["rewards"], np.float32)
            if not len(observations) - 1 == len(rewards) == len(np.asarray(episode["actions"])) > 0:
                counts = f"{len(observations)} observations for {len(rewards)} rewards"
                raise DataError(f"an episode of task {task_id!r} has {counts}; one more is due, and an action for each")
            rows, at_end = observations.reshape(len(observations), -1), np.arange(len(rewards)) == len(rewards) - 1
            has_terminated = np.bool_(episode.get("terminated", False))
            ends = (at_end & has_terminated, at_end & ~has_terminated)
            columns = (rows[:-1], np.asarray(episode["actions"]), rewards, *ends)
            for name, column in zip(parts, (*columns, rows[-1:]), strict=True):
                parts[name].append(column)
        if not parts["rewards"]:
            raise DataError(f"task {task_id!r} has no episodes")
        episode_ends = np.cumsum([len(rewards) for rewards in parts["rewards"]])
        history_ends = episode_ends[np.cumsum([len(history) for history in histories if len(history)]) - 1]
        arrays: Table = {name: np.concatenate(columns) for name, columns in parts.items()}
        return cls(task_id=task_id, params=params or {}, episode_ends=episode_ends, history_ends=history_ends, **arrays)

    @property
    def num_env_steps(self) -> int:
        """Env steps of all histories together."""
        return len(self.rewards)

    @property
    def num_episodes(self) -> int:
        """Episodes of all histories together."""
        return len(self.episode_ends)

    @property
    def num_histories(self) -> int:
        """Histories, each the whole life of one learner."""
        return len(self.history_ends)

    def arrays(self) -> dict[str, Array]:
        """Return every stored array by name."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        if self.optimal_actions is not None:
            arrays["optimal_actions"] = self.optimal_actions
        return arrays

    def next_observations(self) -> Array:
        """Return the true observation after every env step, `t o`; a column when the observations are one."""
        if isinstance(cast("Any", self.observations), Column):
            return cast("Array", Following([(self.observations, self.final_observations, self.episode_ends)]))
        following = np.empty_like(self.observations)
        following[:-1] = self.observations[1:]
        following[self.episode_ends - 1] = self.final_observations
        return following

    def history(self, index: int) -> "TaskHistories":
        """Return history *index* alone; its arrays are views, its offsets count from its own birth."""
        bounds = np.concatenate(([0], self.history_ends))
        begin, end = int(bounds[index]), int(bounds[index + 1])
        first, last = np.searchsorted(self.episode_ends, (begin, end), side="right")
        changes: Table = {name: getattr(self, name)[begin:end] for name in PER_ENV_STEP}
        if self.optimal_actions is not None:
            changes["optimal_actions"] = self.optimal_actions[begin:end]
        return evolve(
            self,
            **changes,
            final_observations=self.final_observations[first:last],
            episode_ends=self.episode_ends[first:last] - begin,
            history_ends=np.array([end - begin], np.int64),
        )

    def __iter__(self) -> Iterator["TaskHistories"]:
        return (self.history(index) for index in range(self.num_histories))

    def episode_returns(self) -> NDArray[np.float64]:
        """Return the undiscounted return of every episode, `n`."""
        starts = np.concatenate(([0], self.episode_ends[:-1]))
        return np.add.reduceat(np.asarray(self.rewards, np.float64), starts)

    def num_episodes_per_history(self) -> NDArray[np.int64]:
        """Return how many episodes each history has, `m`."""
        last = np.searchsorted(self.episode_ends, self.history_ends, side="right")
        return np.diff(last, prepend=0)

    def every_kth_episode(self, k: int) -> "TaskHistories":
        """Keep the episodes 0, k, 2k, ... of each history: as much improvement in fewer episodes (arXiv 2210.14215)."""
        if k < 1:
            raise DataError(f"'k' must be >= 1 to keep every k-th episode: {k}")
        if k == 1:
            return self
        counts = self.num_episodes_per_history()
        age = np.arange(self.num_episodes) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = age % k == 0  # n
        lengths = np.diff(self.episode_ends, prepend=0)
        rows = np.repeat(kept, lengths)  # t
        starts, episode_ends = (np.asarray(self.episode_ends) - lengths)[kept], np.cumsum(lengths[kept])

        def thinned(array: Array | Column) -> Array | Column:
            return Thinned(array, starts, episode_ends) if isinstance(array, Column) else array[rows]

        changes: Table = {name: thinned(getattr(self, name)) for name in PER_ENV_STEP}
        if self.optimal_actions is not None:
            changes["optimal_actions"] = thinned(self.optimal_actions)
        kept_before = np.cumsum(kept)[np.cumsum(counts) - 1]  # m: kept episodes up to the end of each history
        return evolve(
            self,
            **changes,
            final_observations=self.final_observations[kept],
            episode_ends=episode_ends,
            history_ends=episode_ends[kept_before - 1],
        )


def _fault(task: TaskHistories) -> str:
    """Say what is wrong with the shapes, the kinds of numbers and the offsets of *task*, or nothing."""
    for name, array in task.arrays().items():
        kinds, counts = _FORMS.get(name, ("uif", (1, 2)))
        if array.ndim not in counts or array.dtype.kind not in kinds:
            return f"{name!r} has dtype {array.dtype} and shape {array.shape}"
    length = len(task.rewards)
    for name in PER_ENV_STEP:
        if len(getattr(task, name)) != length:
            return f"{name!r} has {len(getattr(task, name))} env steps, but 'rewards' has {length}"
    if task.optimal_actions is not None and task.optimal_actions.shape != task.actions.shape:
        return f"'optimal_actions' has shape {task.optimal_actions.shape}, but 'actions' has {task.actions.shape}"
    last, observations = task.final_observations, task.observations
    if last.shape[1] != observations.shape[1] or not np.can_cast(last.dtype, observations.dtype):
        return (
            f"'final_observations' of {last.shape[1]} features in {last.dtype} do not fit among 'observations' of "
            f"{observations.shape[1]} in {observations.dtype}"
        )
    for name in OFFSETS:
        ends = getattr(task, name)
        if len(ends) == 0 or ends[-1] != length or ends[0] < 1 or (np.diff(ends) < 1).any():
            return f"{name!r} must increase from at least 1 to the {length} env steps there are"
    if len(task.final_observations) != len(task.episode_ends):
        return f"{len(task.final_observations)} final observations for {len(task.episode_ends)} episodes"
    if not np.isin(task.history_ends, task.episode_ends).all():
        return "a history must end where an episode ends"
    return ""
