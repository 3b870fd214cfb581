"""Whether the returns that a family declares agree with those that were played."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_ERRORS = 5.0  # standard errors of the mean that chance may account for
_UNSEEN = 7.0  # what never came up in n episodes has, but for one case in a thousand, a chance below 7 / n
_ROUNDING = 1e-3  # of the distance from the random policy to the optimum: float32 sums, rounded records


def gap(
    returns: ArrayLike, declared: ArrayLike, span: ArrayLike, cycle: int = 1, errors: ArrayLike = 0.0
) -> tuple[NDArray[np.float64], ...]:
    """Return how far the mean of what was played lies from what is declared, `task`, and how far it may by chance.

    Args:
        returns: `task life episode`, of a policy that does not learn.
        declared: the expected return of an episode, `task`.
        span: the distance from the random policy's return to the optimum, `task`: what one episode can be worth.
        cycle: episodes over which the declared return is a mean; what is left beyond whole cycles is not looked at.
        errors: standard errors of what is declared, `task`, where it is an estimate.
    """
    values = np.asarray(returns, np.float64)
    num_whole = values.shape[2] // cycle * cycle
    flat = values[:, :, :num_whole].reshape(len(values), -1)
    if not flat.shape[1]:
        return np.zeros(len(values)), np.full(len(values), np.inf)
    error = flat.std(axis=1) / np.sqrt(flat.shape[1])
    allowed = _ERRORS * np.hypot(error, errors) + np.abs(span) * (_ROUNDING + _UNSEEN / flat.shape[1])
    return flat.mean(axis=1) - np.asarray(declared, np.float64), allowed


def contradiction(
    who: str,
    what: str,
    returns: ArrayLike,
    declared: ArrayLike,
    span: ArrayLike,
    ids: Sequence[str],
    *,
    cycle: int = 1,
    errors: ArrayLike = 0.0,
) -> str:
    """Return a sentence where *who* earned something else than the *what* that is declared, or nothing; see `gap`."""
    distance, allowed = gap(returns, declared, span, cycle, errors)
    wrong = np.flatnonzero(np.abs(distance) > allowed)
    if not len(wrong):
        return ""
    worst = int(wrong[np.argmax(np.abs(distance[wrong]) - allowed[wrong])])
    stated = float(np.asarray(declared)[worst])
    tasks = f"{len(wrong)} of {len(distance)} tasks" if len(distance) > 1 else "the task"
    return (
        f"{what} that the family declares is contradicted on {tasks}: on {ids[worst]} it is {stated:.4g}, "
        f"but {who} earned {stated + distance[worst]:.4g} a piece (chance may account for {allowed[worst]:.2g})"
    )
