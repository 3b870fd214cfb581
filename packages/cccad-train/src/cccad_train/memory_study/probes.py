"""What a linear map reads out of a memory: ridge regression in closed form, its score, and directions in use."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cccad_train.files import Json
from cccad_train.report.statistics import Floats

PENALTIES: Floats = np.logspace(-3, 4, 8)  # times the number of examples; features have unit variance
NUM_FOLDS = 5


def fit_probe(memories: Floats, targets: Floats, tasks: NDArray[np.int64]) -> Callable[[Floats], Floats]:
    """Return the ridge regression from *memories*, `n f`, to *targets*, `n p`.

    The penalty is the best of `PENALTIES` on tasks left out in turn: lives on one task, *tasks* `n`, stay together.
    """
    centre, mean, spread = memories.mean(axis=0), targets.mean(axis=0), memories.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    x, y, variance = (memories - centre) / scale, targets - mean, np.maximum(targets.var(axis=0), 1e-12)
    fold = np.unique(tasks, return_inverse=True)[1] % NUM_FOLDS
    errors = np.zeros(len(PENALTIES))
    for out in (fold == number for number in np.unique(fold)):
        errors += ((y[out] - x[out] @ _ridge(x[~out], y[~out], PENALTIES)) ** 2 / variance).sum(axis=(1, 2))
    [weights] = _ridge(x, y, PENALTIES[[int(errors.argmin())]])
    return lambda others: np.asarray(mean + (others - centre) / scale @ weights)


def _ridge(x: Floats, y: Floats, penalties: Floats) -> Floats:
    """Return the solution for each of *penalties*, `penalty f p`, from one singular value decomposition."""
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    shrunk = singular / (singular**2 + penalties[:, None] * len(x))
    return np.asarray(right.T @ (shrunk[:, :, None] * (left.T @ y)))


def places(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the columns that make up one thing: `goal_x` and `goal_y` the `goal`, `arm_0`, `arm_1`, ... the `arm`."""
    columns: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        columns.setdefault(name.rpartition("_")[0] or name, []).append(column)
    return columns


def told_exactly(names: Sequence[str], targets: Floats) -> dict[str, list[int]]:
    """Return the places whose numbers repeat, each at most half as many as the different rows of *targets*, `n p`."""
    most = len(np.unique(targets, axis=0)) / 2
    return {n: at for n, at in places(names).items() if all(len(np.unique(targets[:, c])) <= most for c in at)}


def score(read: Floats, targets: Floats, guess: Floats, names: Sequence[str], columns: Mapping[str, list[int]]) -> Json:
    """Return how well *read*, `n p`, tells *targets*, `n p`: `r2` by name, and `accuracy` by place in *columns*.

    R^2 is against always saying *guess*, `p`, the mean over the training tasks: below 0 the probe is worse than that.
    A place is right where all its numbers, rounded, are.
    """
    lost, least = ((read - targets) ** 2).sum(axis=0), ((guess - targets) ** 2).sum(axis=0)
    is_right = np.rint(read) == targets
    return {
        "r2": {name: float(1 - a / b) if b > 0 else None for name, a, b in zip(names, lost, least, strict=True)},
        "accuracy": {name: float(is_right[:, where].all(axis=1).mean()) for name, where in columns.items()},
    }


def effective_rank(matrices: Floats) -> Floats:
    """Return exp of the entropy of the singular values, as shares of their sum, of `... n f` (EUSIPCO 2007)."""
    singular = np.linalg.svd(matrices, compute_uv=False)
    share = np.maximum(singular / np.maximum(singular.sum(axis=-1, keepdims=True), 1e-12), 1e-12)
    return np.asarray(np.exp(-(share * np.log(share)).sum(axis=-1)))
