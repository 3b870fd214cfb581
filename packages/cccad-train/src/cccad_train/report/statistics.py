"""How well an agent did, and how surely: normalised returns, interquartile means and bootstrap intervals, in NumPy.

Returns are arrays `task replica episode`. A *replica* is one life of the agent on a task; replicas of several training
seeds may stand side by side, and `seeds` then names the seed of each. Everything follows arXiv 2108.13264 (rliable).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cccad_train.files import Json

Floats = NDArray[np.float64]

NUM_RESAMPLES = 2_000
NUM_LAST_EPISODES = 10
NUM_SMOOTHED_EPISODES = 5
SOLVED_FRAC = 0.9
_MAX_ELEMENTS = 4_000_000  # resamples are drawn in blocks of at most this many numbers (32 MB)


class StatisticsError(ValueError):
    """The returns cannot be summarised; the sentence says why."""


def normalise(returns: ArrayLike, optimal: ArrayLike, random: ArrayLike) -> Floats:
    """Return (return - random) / (optimal - random) per task, `task replica episode`.

    Args:
        returns: `task replica episode`, finite.
        optimal: the best return of each task, `task`.
        random: the uniformly random policy's return of each task, `task`.

    Raises:
        StatisticsError: for a wrong shape, a return that is not finite, or a task whose optimum is not above random.
    """
    values = _as_floats(returns, "returns")
    best, worst = _as_floats(optimal, "optimal"), _as_floats(random, "random")
    if values.ndim != 3 or 0 in values.shape:
        raise StatisticsError(f"'returns' must be task x replica x episode, none of them empty: shape {values.shape}")
    for name, reference in (("optimal", best), ("random", worst)):
        if reference.shape != values.shape[:1]:
            message = f"'{name}' must have one value for each of {len(values)} tasks: shape {reference.shape}"
            raise StatisticsError(message)
    if not (np.isfinite(values).all() and np.isfinite(best).all() and np.isfinite(worst).all()):
        raise StatisticsError("returns must be finite numbers; at least one is NaN or infinite")
    if not (best > worst).all():
        task = int(np.argmin(best > worst))
        message = f"the optimum must be above the random policy: {best[task]:g} and {worst[task]:g} at task {task}"
        raise StatisticsError(message)
    return np.asarray((values - worst[:, None, None]) / (best - worst)[:, None, None])


def _as_floats(values: ArrayLike, name: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StatisticsError(f"'{name}' must be a full array of numbers without ragged rows") from error


def interquartile_mean(scores: ArrayLike) -> float:
    """Return the mean of the middle half of *scores*, of any shape: a quarter, rounded down, is cut off at each end."""
    return float(_interquartile_means(np.asarray(scores, dtype=np.float64).reshape(1, -1))[0])


def _interquartile_means(scores: Floats) -> Floats:
    """Return one interquartile mean per row."""
    # As scipy.stats.trim_mean(scores, 0.25) does, which rliable takes.
    num_cut = scores.shape[1] // 4
    ordered = np.sort(scores, axis=1)
    return np.asarray(ordered[:, num_cut : scores.shape[1] - num_cut].mean(axis=1))


def bootstrap_interval(
    scores: ArrayLike,
    rng: np.random.Generator,
    *,
    seeds: ArrayLike | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[float, float] | None:
    """Return the 95 % stratified bootstrap interval of the interquartile mean of *scores*, `task replica`.

    Tasks are the strata: every resample holds each task as often as the data does. With the replicas of several
    training seeds, whole seeds are drawn first, the same for all tasks, and then replicas within each. With one seed
    the interval says how surely *this* policy is known, not what another seed would give.

    Args:
        scores: `task replica`.
        rng: the source of the resamples; the same state gives the same interval.
        seeds: the training seed of each replica, `replica`; all the same seed when absent.
        num_resamples: how many resamples the percentiles are taken from.

    Returns:
        (low, high), or None for one replica: a single life says nothing about its spread.
    """
    table = np.asarray(scores, dtype=np.float64)
    num_tasks, num_replicas = table.shape
    if num_replicas < 2:
        return None
    groups = _replicas_by_seed(seeds, num_replicas)
    estimates = []
    # The blocks share one stream of draws, so their size must follow from the data alone, not from the memory that
    # happens to be free: the same state would else give another interval elsewhere.
    block = max(1, _MAX_ELEMENTS // table.size)
    rows = np.arange(num_tasks)[None, :, None]
    for first in range(0, num_resamples, block):
        columns = _draw_replicas(groups, min(block, num_resamples - first), num_tasks, rng)
        estimates.append(_interquartile_means(table[rows, columns].reshape(len(columns), -1)))
    # The percentile bootstrap: no assumption of a normal or even symmetric spread, as scores are often at their bound.
    low, high = np.percentile(np.concatenate(estimates), [2.5, 97.5])
    return float(low), float(high)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    rng: np.random.Generator,
    *,
    seeds: tuple[ArrayLike | None, ArrayLike | None] = (None, None),
    num_resamples: int = NUM_RESAMPLES,
) -> tuple[float, tuple[float, float] | None]:
    """Return by how much *first* is above *second* in the mean over the same tasks, with its 95 % bootstrap interval.

    Scores are compared task by task: a resample draws tasks, the same for both, and within each task replicas (whole
    seeds first, where there are several). So the interval is about other tasks and lives, too, not about these alone.

    Args:
        first: `task replica`.
        second: `task replica` of the same tasks; there may be other numbers of replicas.
        rng: the source of the resamples; the same state gives the same interval.
        seeds: the training seed of each replica of both; all the same seed when absent.
        num_resamples: how many resamples the percentiles are taken from.

    Returns:
        The difference, and (low, high), or None for a single task with a single life of each.

    Raises:
        StatisticsError: when the numbers of tasks differ.
    """
    tables = [np.asarray(scores, dtype=np.float64) for scores in (first, second)]
    num_tasks = len(tables[0])
    if len(tables[1]) != num_tasks:
        raise StatisticsError(f"a paired difference needs the same tasks: {num_tasks} and {len(tables[1])}")
    # Of all scores, not of resamples, so that it does not depend on *rng*.
    mean = float(tables[0].mean() - tables[1].mean())
    if num_tasks == 1 and all(table.shape[1] == 1 for table in tables):
        return mean, None
    groups = [_replicas_by_seed(names, table.shape[1]) for names, table in zip(seeds, tables, strict=True)]
    estimates = []
    block = max(1, _MAX_ELEMENTS // max(table.size for table in tables))
    for start in range(0, num_resamples, block):
        # Drawn once for both, which is what pairs them: a hard task is hard for both, and its luck cancels out. A task
        # that is drawn twice in a resample gets replicas of its own each time.
        tasks = rng.integers(num_tasks, size=(min(block, num_resamples - start), num_tasks, 1))
        means = [
            table[tasks, _draw_replicas(group, len(tasks), num_tasks, rng)].mean(axis=(1, 2))
            for table, group in zip(tables, groups, strict=True)
        ]
        estimates.append(means[0] - means[1])
    low, high = np.percentile(np.concatenate(estimates), [2.5, 97.5])
    return mean, (float(low), float(high))


def _replicas_by_seed(seeds: ArrayLike | None, num_replicas: int) -> NDArray[np.int64]:
    """Return the columns of every seed, `seed replica`."""
    if seeds is None:
        return np.arange(num_replicas)[None]
    names = np.asarray(seeds)
    if names.shape != (num_replicas,):
        raise StatisticsError(f"'seeds' must name the seed of each of {num_replicas} replicas: shape {names.shape}")
    groups = [np.flatnonzero(names == name) for name in np.unique(names)]
    sizes = [len(group) for group in groups]
    # One rectangle of columns; with unequal groups the drawn seeds would also weigh unequally.
    if len(set(sizes)) > 1:
        raise StatisticsError(f"every seed must have as many replicas as the others: {sizes}")
    return np.stack(groups)


def _draw_replicas(
    groups: NDArray[np.int64], num_resamples: int, num_tasks: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return columns drawn with replacement, `resample task replica`: seeds jointly over tasks, replicas per task."""
    num_seeds, num_each = groups.shape
    # 1 along the tasks: a seed is one policy, which plays all of them, so a lucky one is lucky everywhere. Drawn task
    # by task, its luck would average out and the interval would be too narrow.
    drawn_seeds = rng.integers(num_seeds, size=(num_resamples, 1, num_seeds, 1))
    drawn = rng.integers(num_each, size=(num_resamples, num_tasks, num_seeds, num_each))
    return groups[drawn_seeds, drawn].reshape(num_resamples, num_tasks, -1)


def curve_interval(returns: ArrayLike, rng: np.random.Generator, *, num_resamples: int = 500) -> tuple[Floats, Floats]:
    """Return the 95 % stratified bootstrap interval of the mean over tasks and replicas, `episode` and `episode`.

    A resample is a row of counts, so that all of them are one matrix product. With one replica the band has no width.
    """
    values = np.asarray(returns, dtype=np.float64)
    num_tasks, num_replicas, num_episodes = values.shape
    # How often each replica is drawn is all that a mean needs to know of draws with replacement. Seeds are not asked
    # for: with several, the band is about lives of these policies alone.
    shares = np.full(num_replicas, 1 / num_replicas)
    counts = rng.multinomial(num_replicas, shares, size=(num_resamples, num_tasks)).reshape(num_resamples, -1)
    means = counts @ values.reshape(-1, num_episodes) / (num_tasks * num_replicas)  # resample episode
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high


def last_episodes_mean(normalised: Floats) -> Floats:
    """Return the mean of the last ten episodes (of all, when there are fewer), `task replica`."""
    return np.asarray(normalised[:, :, -NUM_LAST_EPISODES:].mean(axis=2))


def episodes_to_solve(curve: ArrayLike) -> int | None:
    """Return the first episode, counted from 1, at which the mean of the last five reaches 0.9 of the optimum, or None.

    Args:
        curve: normalised return by episode, meaned over tasks and replicas, `episode`.
    """
    values = np.asarray(curve, dtype=np.float64)
    if len(values) < NUM_SMOOTHED_EPISODES:
        return None
    running = np.convolve(values, np.full(NUM_SMOOTHED_EPISODES, 1 / NUM_SMOOTHED_EPISODES), mode="valid")
    reached = np.flatnonzero(running >= SOLVED_FRAC - 1e-12)  # 1e-12: the sum of five fifths is not exactly one
    # Mean i is that of episodes i + 1 to i + 5, counted from 1, and it is there when the last of them is over.
    return int(reached[0]) + NUM_SMOOTHED_EPISODES if reached.size else None


def decade_means(curve: ArrayLike) -> list[float]:
    """Return the means over episodes 1-10, 11-20, ...; the last of them over what is left."""
    values = np.asarray(curve, dtype=np.float64)
    return [float(values[first : first + 10].mean()) for first in range(0, len(values), 10)]


def summarise(
    returns: ArrayLike,
    optimal: ArrayLike,
    random: ArrayLike,
    *,
    rng_seed: int = 0,
    seeds: ArrayLike | None = None,
) -> Json:
    """Return the row of one agent in the table of results, as plain JSON data.

    Args:
        returns: `task replica episode`.
        optimal: the best return of each task, `task`.
        random: the uniformly random policy's return of each task, `task`.
        rng_seed: of the bootstrap; the same seed gives the same interval.
        seeds: the training seed of each replica, `replica`, where several are pooled.

    Returns:
        `normalized_last10_mean`: mean over tasks and replicas of the last ten episodes, or of all if fewer.
        `iqm`: the interquartile mean of the same over tasks x replicas.
        `ci95`: its interval [low, high], or None for a single replica.
        `episodes_to_90pct`: see `episodes_to_solve`.
        `worst_task_normalized`: the lowest task's mean over replicas of the last ten episodes.
        `normalized_by_decade`: see `decade_means`.

    Raises:
        StatisticsError: see `normalise`.
    """
    normalised = normalise(returns, optimal, random)
    last = last_episodes_mean(normalised)  # task replica
    curve = normalised.mean(axis=(0, 1))  # episode
    interval = bootstrap_interval(last, np.random.default_rng(rng_seed), seeds=seeds)
    return {
        "normalized_last10_mean": float(last.mean()),
        "iqm": interquartile_mean(last),
        "ci95": None if interval is None else list(interval),
        "episodes_to_90pct": episodes_to_solve(curve),
        "worst_task_normalized": float(last.mean(axis=1).min()),
        "normalized_by_decade": decade_means(curve),
    }
