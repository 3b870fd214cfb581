"""Training batches: random stretches of histories, a pure function of (seed, index, length, size), by one gather."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar, cast

import numpy as np
from attrs import field, frozen, validators

from cccad_data.errors import SamplingError, hint
from cccad_data.family import TaskFamily
from cccad_data.histories.columns import Column, Runs, joined, take_all
from cccad_data.histories.dataset import Histories
from cccad_data.plain import Array
from cccad_data.sampling.detours import DetourSpec, Plan

Thing = TypeVar("Thing")
_DOMAIN = 0xCCCAD_5A3B1E  # keeps these streams apart from others with the same seed


@frozen(kw_only=True)
class SamplerSpec:
    """How stretches are cut from histories. A task is drawn by weight, then one of its histories, all alike."""

    starts: str = field(
        default="uniform",
        validator=validators.in_(("uniform", "birth")),
        metadata={"help": "where a stretch without detours begins: anywhere in its history, or at its birth"},
    )
    subsample_episodes: int = field(
        default=1,
        validator=validators.ge(1),
        metadata={"help": "keep every k-th episode, so that the same improvement takes fewer (arXiv 2210.14215)"},
    )
    weights: dict[str, float] = field(
        factory=dict,
        validator=validators.instance_of(dict),
        metadata={"help": "how likely each task is, by its id; the others have 1, and 0 leaves a task out"},
    )
    prefetch: bool = field(
        default=True,
        validator=validators.instance_of(bool),
        metadata={"help": "draw the next batch while the last one is trained on; what is drawn stays the same"},
    )
    detours: DetourSpec = field(
        factory=DetourSpec, metadata={"help": "fruitless visits of other tasks' learners at the head of a stretch"}
    )

    def build(self, histories: Histories, seed: int, family: TaskFamily | None = None) -> "Sampler":
        """Return a sampler over *histories*; detours need their task *family*. Raises SamplingError."""
        return Sampler(self, histories, seed, family)


class Sampler:
    """Batches of stretches, `b t`. Never across histories; padded at the end only where a history is too short."""

    def __init__(self, spec: SamplerSpec, histories: Histories, seed: int, family: TaskFamily | None = None) -> None:
        if len(histories) == 0:
            raise SamplingError("there are no histories to sample from")
        self.spec, self.seed = spec, seed
        self.task_ids = histories.task_ids
        self._shares = np.cumsum(_weights(spec, self.task_ids))
        tasks = [task.every_kth_episode(spec.subsample_episodes) for task in histories]
        self._columns: dict[str, Array] = {
            "observations": joined([task.observations for task in tasks]),
            "actions": joined([task.actions for task in tasks]),
            "rewards": joined([task.rewards for task in tasks]),
            "terminations": joined([task.terminations for task in tasks]),
            "truncations": joined([task.truncations for task in tasks]),
            "next_observations": joined([task.next_observations() for task in tasks]),
        }
        optimal = [task.optimal_actions for task in tasks if task.optimal_actions is not None]
        if len(optimal) == len(tasks):
            self._columns["optimal_actions"] = joined(optimal)
        self._is_lazy = all(isinstance(column, Column) for column in list[Any](self._columns.values()))
        self._warn()
        self._num_histories = np.array([task.num_histories for task in tasks])  # per task
        self._first_history = np.cumsum(self._num_histories) - self._num_histories
        lengths = np.concatenate([np.diff(task.history_ends, prepend=0) for task in tasks])
        self._lengths, self._births = lengths, np.cumsum(lengths) - lengths  # per history, in env steps
        self._detours = spec.detours.build(tasks, self._columns, family)
        self._last: tuple[Any, Any] = (None, None)

    @property
    def num_env_steps(self) -> int:
        """Env steps that can be sampled, after thinning."""
        return int(self._lengths.sum())

    @property
    def longest_history_env_steps(self) -> int:
        """Length of the longest history, after thinning."""
        return int(self._lengths.max())

    def batch(self, index: int, length: int, size: int, rows: slice = slice(None)) -> dict[str, Array]:
        """Return batch number *index*: *size* stretches of *length* env steps, or those of its *rows* alone.

        `observations next_observations` are `b t o`; `actions rewards terminations truncations mask targets` (and
        `optimal_actions` where every task has them) `b t`; `task_index start` `b`: the place in `task_ids`,
        the env step of the history. Where `mask` is False the history is over: its last env step is repeated. Where
        `targets` is False there is nothing to imitate: padding, and detours, after which the history begins.

        Raises SamplingError unless index >= 0, length >= 1 and size >= 1.
        """
        task, history, plan, start = self._draw(index, length, size)
        behind = np.zeros_like(task) if plan is None else plan.lengths
        task, history, behind, start = (part[rows].copy() for part in (task, history, behind, start))
        lengths, births = self._lengths[history], self._births[history]
        targets = mask = np.arange(length) < (lengths - start + behind)[:, None]  # b t
        places: Any = None
        if plan is None and self._is_lazy:
            places = Runs.stretches(births + start, np.minimum(lengths - start, length), length)
        else:
            age = (start - behind)[:, None] + np.arange(length)  # b t
            places = births[:, None] + np.minimum(age, lengths[:, None] - 1)
        if plan is not None:
            is_detour = np.arange(length) < behind[:, None]
            places, targets = np.where(is_detour, plan.of(rows).places, places), mask & ~is_detour
        batch = take_all(self._columns, places)
        if self._detours and plan is not None:
            self._detours.repay(batch, task, plan.of(rows))
        return {**batch, "mask": mask, "targets": targets, "task_index": task, "start": start}

    def num_targets(self, index: int, length: int, size: int) -> int:
        """Return how many decisions of all rows of such a batch are targets, without reading it."""
        _, history, plan, start = self._draw(index, length, size)
        room = length if plan is None else length - plan.lengths
        return int(np.minimum(room, self._lengths[history] - start).sum())

    def _draw(self, *asked: int) -> tuple[Any, Any, Plan | None, Any]:
        """Return what `_drawn` does, and keep it: who draws a batch also counts its targets."""
        last, drawn = self._last
        if last != asked:
            drawn = self._drawn(*asked)
            self._last = asked, drawn
        return cast("tuple[Any, Any, Plan | None, Any]", drawn)

    def _drawn(self, index: int, length: int, size: int) -> tuple[Any, Any, Plan | None, Any]:
        """Return the task, history, detours and start of every row, `b`."""
        if index < 0 or length < 1 or size < 1:
            raise SamplingError(
                f"a batch needs index >= 0, length >= 1 and size >= 1: index {index}, length {length}, size {size}"
            )
        uniform = self._random(index, 0).random((size, 3))
        task = self._shares.searchsorted(uniform[:, 0] * self._shares[-1], side="right")
        history = self._first_history[task] + (uniform[:, 1] * self._num_histories[task]).astype(np.int64)
        plan = self._detours.plan(self._random(index, 1), task, length) if self._detours else None
        behind = np.zeros_like(task) if plan is None else plan.lengths  # env steps of detours before the history
        room = np.maximum(self._lengths[history] - (length - behind), 0)
        earliest = np.where(behind > 0, np.minimum(room, self._lengths[history] // 2), 0)
        start = earliest + (uniform[:, 2] * (room - earliest + 1)).astype(np.int64)
        if self.spec.starts == "birth":
            start[behind == 0] = 0
        if self._detours:
            born = self._births[history]
            start = np.where(behind > 0, self._detours.episode_begin(born + start) - born, start)
        return task, history, plan, start

    def _random(self, index: int, purpose: int) -> np.random.Generator:
        counter = [0, purpose, index, 0]
        return np.random.Generator(np.random.Philox(key=[self.seed % 2**64, _DOMAIN], counter=counter))

    def _warn(self) -> None:
        columns: list[Any] = list(self._columns.values())
        if packed := next((column.packed_in for column in columns if self._is_lazy and column.packed_in), ""):
            warnings.warn(
                f"{packed}: drawing from compressed histories on the disk is slow; 'cccad-data merge NEW OLD "
                f"--compression none' makes a copy that is read many times faster",
                stacklevel=4,
            )


class Prefetcher(Generic[Thing]):
    """Things by number, each a pure function of it: while one is in use, a thread makes the next."""

    def __init__(self, make: Callable[[int], Thing]) -> None:
        self._make, self._pool = make, ThreadPoolExecutor(1, "prefetcher")
        self._next: dict[int, Future[Thing]] = {}

    def __call__(self, number: int) -> Thing:
        """Return what *make* returns for *number*, and begin with the next; raises what it raises."""
        future = self._next.pop(number, None) or self._pool.submit(self._make, number)
        self._next = {number + 1: self._pool.submit(self._make, number + 1)}
        return future.result()


def _weights(spec: SamplerSpec, task_ids: Sequence[str]) -> Array:
    for task_id in spec.weights:
        if task_id not in task_ids:
            raise SamplingError(f"'weights' names {task_id!r}, which is none of these tasks; {hint(task_id, task_ids)}")
    weights = np.array([spec.weights.get(task_id, 1.0) for task_id in task_ids])
    if not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise SamplingError(f"'weights' must be >= 0, finite and not all 0: {spec.weights}")
    return weights
