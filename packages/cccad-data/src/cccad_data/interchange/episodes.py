"""Flat arrays with flags become histories: cut after the last whole episode, and laid end to end."""

from collections.abc import Mapping, Sequence

import numpy as np

from cccad_data.errors import DataError
from cccad_data.histories.history import PER_ENV_STEP, TaskHistories
from cccad_data.plain import Array, Parameter, Table

UNKNOWN_LAST = "the file has no true last observations of episodes, so that each is a copy of the one before it"


def laid_end_to_end(
    task_id: str, params: Mapping[str, Parameter], lives: Sequence[Mapping[str, Array]]
) -> TaskHistories:
    """Return *lives*, each with `observations actions rewards terminations truncations` in order, as one task.

    With `next_observations`, `t o`, the last ones of episodes are kept as they are, and the others must be what
    follows; without, see `UNKNOWN_LAST`. `optimal_actions` are kept. Raises DataError when no life has a whole
    episode, or an observation is not the one that was announced.
    """
    parts: dict[str, list[Array]] = {}
    length = 0
    for index, life in enumerate(lives):
        ends = np.flatnonzero(life["terminations"] | life["truncations"]) + 1
        if len(ends) == 0:
            continue
        following = life.get("next_observations")
        if following is not None:
            jumps = (following[: ends[-1] - 1] != life["observations"][1 : ends[-1]]).any(axis=1)
            jumps[ends[:-1] - 1] = False
            if jumps.any():
                raise DataError(
                    f"task {task_id!r}, history {index}, env step {jumps.argmax():,}: the next observation is not the "
                    "one that follows"
                )
        for name in (*PER_ENV_STEP, "optimal_actions"):
            if name in life:
                parts.setdefault(name, []).append(life[name][: ends[-1]])
        last = life["observations"] if following is None else following
        parts.setdefault("final_observations", []).append(last[ends - 1])
        parts.setdefault("episode_ends", []).append(ends + length)
        length += int(ends[-1])
        parts.setdefault("history_ends", []).append(np.array([length]))
    if not parts:
        raise DataError(f"task {task_id!r} has no whole episode: nothing says where one ends")
    if len(parts.get("optimal_actions", parts["actions"])) != len(parts["actions"]):
        raise DataError(f"task {task_id!r} has optimal actions in some of its histories only")
    arrays: Table = {name: np.concatenate(arrays_of) for name, arrays_of in parts.items()}
    return TaskHistories(task_id=task_id, params=dict(params), **{**arrays, "rewards": arrays["rewards"].astype("f4")})
