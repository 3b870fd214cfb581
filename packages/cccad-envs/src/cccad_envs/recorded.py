"""Checks recorded transitions before they are replayed: types, lengths, ranges and ends of episodes."""

from collections.abc import Mapping

import numpy as np
from attrs import frozen
from numpy.typing import ArrayLike, NDArray

from cccad_envs.errors import TransitionError
from cccad_envs.plain import Array, Table
from cccad_envs.spaces import checked_numbers, is_box

_PLACE = "at env step"


def checked_observations(name: str, values: ArrayLike, space: Table) -> Array:
    """Return recorded observations of *space*, `t o`, as int64, or as float32 where it is a box.

    Raises:
        TransitionError: they have another shape or type, or lie outside.
    """
    array = np.asarray(values)
    if is_box(space):
        return checked_numbers(name, array, space, len(array), place=_PLACE, error=TransitionError)
    sizes = space["sizes"]
    if array.ndim != 2 or array.shape[1] != len(sizes) or array.dtype.kind not in "iu":
        shape = f"(t, {len(sizes)})"
        raise TransitionError(f"{name} must be whole numbers of shape {shape}, got {array.dtype} {array.shape}")
    outside = ((array < 0) | (array >= np.asarray(sizes))).any(axis=1)
    if outside.any():
        where, most = int(outside.argmax()), tuple(size - 1 for size in sizes)
        got = tuple(array[where].tolist())
        raise TransitionError(f"{name} must be at least 0 and at most {most}, got {got} at env step {where:,}")
    return array.astype(np.int64)


def checked_actions(actions: ArrayLike, length: int, space: Table) -> Array:
    """Return recorded actions of *space*, `t`, as int64, or `t a` as float32 where it is a box.

    Raises:
        TransitionError: they are not *length* elements of *space*.
    """
    if is_box(space):
        return checked_numbers("actions", actions, space, length, place=_PLACE, error=TransitionError)
    array, num_actions = np.asarray(actions), space["n"]
    if array.shape != (length,) or array.dtype.kind not in "iu":
        raise TransitionError(f"actions must be {length:,} whole numbers, got {array.dtype} {array.shape}")
    wrong = (array < 0) | (array >= num_actions)
    if wrong.any():
        where = int(wrong.argmax())
        raise TransitionError(f"actions must be 0 to {num_actions - 1}, got {array[where]} at env step {where:,}")
    return array.astype(np.int64)


@frozen(kw_only=True)
class Recording:
    """One history: observations `t o`, actions `t` or `t a`, next observations `t o`, and where its episodes start.

    `starts`, `n`, is the first env step of every episode, the unfinished one at the end included; `clock`, `t`,
    counts env steps since then. `rewards`, `t`, are those that were recorded, where they were given; `never` is
    False throughout, `t`.
    """

    observations: Array
    actions: Array
    next_observations: Array
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    clock: NDArray[np.int64]
    rewards: Array | None
    never: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        spaces: Mapping[str, Table],
        observations: ArrayLike,
        actions: ArrayLike,
        next_observations: ArrayLike,
        episode_ends: ArrayLike,
        rewards: ArrayLike | None,
    ) -> "Recording":
        """Return the history with these arrays.

        Raises:
            TransitionError: they do not fit together, or lie outside *spaces*.
        """
        reached = checked_observations("next_observations", next_observations, spaces["observation"])
        length = len(reached)
        for name, array in {"observations": observations, "actions": actions, "rewards": rewards}.items():
            if array is not None and len(np.asarray(array)) != length:
                raise TransitionError(f"{name} must have {length:,} entries like next_observations")
        ends = np.asarray(episode_ends, dtype=np.int64)
        starts = np.concatenate([np.zeros(1, dtype=np.int64), ends])
        if ends.ndim != 1 or (np.diff(starts) <= 0).any() or starts[-1] > length:
            raise TransitionError(f"episode_ends must rise from above 0 to at most {length:,}")
        starts = starts[starts < length]
        lengths = np.diff(starts, append=length)
        return cls(
            observations=checked_observations("observations", observations, spaces["observation"]),
            actions=checked_actions(actions, length, spaces["action"]),
            next_observations=reached,
            starts=starts,
            lengths=lengths,
            clock=np.arange(length) - np.repeat(starts, lengths),
            rewards=None if rewards is None else np.asarray(rewards),
            never=np.zeros(length, dtype=np.bool_),
        )
