"""How far the return rises within histories: what a source must show, since only improvement can be distilled."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from attrs import frozen

from cccad_data.collecting.source import SaysWhetherItLearns, Source
from cccad_data.errors import CollectionError
from cccad_data.family import HasOptimum, TaskFamily, optimal_returns
from cccad_data.histories import shards
from cccad_data.histories.dataset import finished_shards, read_manifest
from cccad_data.histories.history import TaskHistories
from cccad_data.plain import Array

_NEEDED = ("rewards", "episode_ends", "history_ends")
_LOG = logging.getLogger(__name__)
FEWEST_EPISODES = 4
"A history with fewer is not judged."
NOTHING, LITTLE = 0.05, 0.25
"So much of the way from early returns to the optimum, where it is known, is no rise, and is little."
NOTHING_UNSCALED, LITTLE_UNSCALED = 0.25, 1.0
"The same in standard deviations of early returns, where the optimum is not known."


@frozen(kw_only=True)
class Rise:
    """The mean return in the first and the last quarter of every history's episodes."""

    early: float
    late: float
    error: float  # standard error of late - early, over histories
    spread: float  # standard deviation of the early episodes' returns within a task
    num_histories: int

    @classmethod
    def of(cls, histories: Iterable[TaskHistories]) -> "Rise | None":
        """Return the rise of all *histories* together; None where they are too few, or too short, to say."""
        return cls.of_returns(_returns(*(getattr(task, name) for name in _NEEDED)) for task in histories)

    @classmethod
    def of_returns(cls, tasks: Iterable[Sequence[Array]]) -> "Rise | None":
        """Return the rise, given for every task the returns of each history's episodes."""
        early, late, spreads = [], [], []
        for returns in tasks:
            if min(map(len, returns)) < FEWEST_EPISODES:
                return None
            first = [one[: len(one) // 4] for one in returns]
            early += [float(one.mean()) for one in first]
            late += [float(one[-(len(one) // 4) :].mean()) for one in returns]
            spreads.append(np.concatenate(first).std())
        if len(early) < 2:
            return None
        gains = np.subtract(late, early)
        return cls(
            early=float(np.mean(early)),
            late=float(np.mean(late)),
            error=float(gains.std(ddof=1)) / len(gains) ** 0.5,
            spread=float(np.sqrt(np.mean(np.square(spreads)))),
            num_histories=len(gains),
        )

    @property
    def gain(self) -> float:
        """The rise itself."""
        return self.late - self.early

    @property
    def most(self) -> float:
        """The most that it may be, by two standard errors."""
        return self.gain + 2 * self.error

    def __str__(self) -> str:
        return f"its return is {self.early:.3f} early, {self.late:.3f} late"


def judge(folder: Path, family: TaskFamily, source: Source) -> None:
    """Hold the histories collected in *folder* against what a source is for; a warning says that they improve little.

    Raises CollectionError where their return does not rise, by histories enough to be sure.
    """
    if isinstance(source, SaysWhetherItLearns) and not source.learns:
        return
    manifest = read_manifest(folder)
    rise = Rise.of_returns(each for shard in finished_shards(folder, manifest) for each in _returns_in(shard))
    if rise is None:
        return
    unit, nothing, little, scale = _scale(rise, family, [task["task_id"] for task in manifest["tasks"]])
    if unit <= 1e-6 and nothing == NOTHING:
        return  # who begins at the optimum cannot improve
    words = f"{rise} (mean of the first and last quarter of the episodes of {rise.num_histories:,} histories), {scale}"
    if rise.most <= nothing * unit:
        raise CollectionError(
            f"{folder}: the source {source.name!r} does not learn: {words}, with a standard error of {rise.error:.3f}; "
            "a policy can distil improvement alone"
        )
    if rise.gain < little * unit:
        _LOG.warning("%s: the source %r learns little: %s", folder, source.name, words)


def _scale(rise: Rise, family: TaskFamily, task_ids: Sequence[str]) -> tuple[float, float, float, str]:
    """Return in what a rise is measured, how much of that is none and is little, and what the rise is in words."""
    if not isinstance(family, HasOptimum):
        words = f"early episodes having a standard deviation of {rise.spread:.3f}"
        return rise.spread, NOTHING_UNSCALED, LITTLE_UNSCALED, words
    best = float(optimal_returns(family, [family.task(task_id) for task_id in task_ids]).mean())
    to_go = max(best - rise.early, 0.0)
    share = 100 * rise.gain / to_go if to_go > 0 else 100.0
    return to_go, NOTHING, LITTLE, f"{share:.0f} % of the way to the optimum of {best:.3f}"


def _returns_in(shard: Path) -> Iterator[Sequence[Array]]:
    """Yield the returns of every task of a shard, of which nothing else is read."""
    with shards.open_shard(shard) as file:
        for name in sorted(file["tasks"]):
            yield _returns(*(file["tasks"][name][array][...] for array in _NEEDED))


def _returns(rewards: Array, episode_ends: Array, history_ends: Array) -> Sequence[Array]:
    """Return the return of every episode, history by history."""
    ends = np.asarray(episode_ends)
    returns = np.add.reduceat(np.asarray(rewards, np.float64), np.concatenate(([0], ends[:-1])))
    return np.split(returns, np.searchsorted(ends, history_ends, side="right")[:-1])
