"""Flat arrays with flags, as many people store what an agent did: a row per env step, all episodes in order.

`observations actions rewards`, flags `terminals` (or `terminations`, `dones`) and `timeouts` (or
`truncations`), and where there are any `next_observations optimal_actions`.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cccad_data.errors import DataError
from cccad_data.interchange.episodes import UNKNOWN_LAST
from cccad_data.interchange.lives import Life
from cccad_data.plain import Array, Fields

TERMINALS, TIMEOUTS = ("terminals", "terminations", "dones"), ("timeouts", "truncations")
FLAGS = (*TERMINALS, *TIMEOUTS)
NEEDED = ("observations", "actions", "rewards")
MAYBE = ("next_observations", "optimal_actions")
_STEADY = "an end of an episode is followed by the observation that was announced, as if it went on"
_WHICH = "the setting 'ends' says which flags count"
JUMPS = "jumps"
"In the setting `ends`: an episode ends where the next observation is not the one that follows."


def life_of(source: Path, task_id: str, arrays: Mapping[str, Array], settings: Fields, notes: Counter[str]) -> Life:
    """Return flat *arrays* as one life, with every contradiction between flags and observations refused or noted.

    Raises DataError when arrays are missing, their shapes differ or flags are no flags.
    """
    missing = [name for name in NEEDED if name not in arrays]
    missing += [TERMINALS[0]] * (not settings["ends"] and not any(name in arrays for name in FLAGS))
    if missing:
        raise DataError(f"{source}: lacks {', '.join(map(repr, missing))}, which flat arrays have")
    shaped = {name: _column(source, name, arrays[name]) for name in ("rewards", *FLAGS) if name in arrays}
    length = len(shaped["rewards"])
    for name in (*NEEDED, *MAYBE, *FLAGS):
        if name in arrays and arrays[name].shape[:1] != (length,):
            rows = arrays[name].shape[0] if arrays[name].ndim else 0
            raise DataError(f"{source}: {name!r} has {rows:,} env steps, but 'rewards' has {length:,}")
    columns = {name: np.asarray(arrays[name]) for name in (*NEEDED, *MAYBE) if name in arrays} | shaped
    if "next_observations" in columns and columns["next_observations"].shape != columns["observations"].shape:
        shape = list(columns["next_observations"].shape)
        raise DataError(f"{source}: 'next_observations' has the shape {shape}, 'observations' another")
    terminations, truncations = _ends(source, columns, settings, notes)
    kept = {name: array for name, array in columns.items() if name not in FLAGS}
    notes[UNKNOWN_LAST] += "next_observations" not in kept
    return Life(
        source=source, task_id=task_id, arrays={**kept, "terminations": terminations, "truncations": truncations}
    )


def _column(source: Path, name: str, array: Array) -> Array:
    """Return rewards or flags, `t` or `t 1`, as `t`, and flags as truth values."""
    array = np.asarray(array)
    if array.dtype.kind not in "biuf" or array.ndim == 0 or array.shape[1:] not in {(), (1,)} or len(array) == 0:
        raise DataError(f"{source}: {name!r} must have one number for each env step, not the shape {list(array.shape)}")
    flat = array.reshape(len(array))
    if name not in FLAGS:
        return flat
    is_flag = (flat == 0) | (flat == 1)
    if not is_flag.all():
        place = int((~is_flag).argmax())
        raise DataError(f"{source}: {name!r}, env step {place:,}: {flat[place].item()!r} is no flag, 0 or 1")
    return flat.astype(bool)


def _ends(source: Path, columns: Mapping[str, Array], settings: Fields, notes: Counter[str]) -> tuple[Array, Array]:
    """Return where episodes terminate and are truncated, `t` each, with flags and jumps held against each other."""
    listed = [word.strip() for word in settings["ends"].split(",")]
    words = listed if settings["ends"] else [name for name in FLAGS if name in columns]
    for word in words:
        if word != JUMPS and (word not in FLAGS or word not in columns):
            has = ", ".join([name for name in FLAGS if name in columns] + [JUMPS])
            raise DataError(f"{source}: nothing named {word!r} ends episodes there; 'ends' may list {has}")
    length = len(columns["rewards"])
    terminations, truncations = (
        np.any([np.zeros(length, bool), *(columns[word] for word in words if word in kind)], axis=0)
        for kind in (TERMINALS, TIMEOUTS)
    )
    truncations &= ~terminations
    if not terminations.any():
        notes["no 'terminals' end episodes, so that none terminates"] += 1
    if "next_observations" in columns:
        truncations |= _jumps(source, columns, terminations | truncations, JUMPS in words, notes)
    elif JUMPS in words:
        raise DataError(f"{source}: jumps are seen by 'next_observations', which it lacks")
    horizon = settings["horizon"]
    _note_shift(columns["observations"], terminations | truncations, notes)
    if not truncations.any() and not horizon:
        notes["no 'timeouts' mark time limits, so that an episode may be several; horizon=N cuts there"] += 1
    elif not truncations.any():
        ends = np.flatnonzero(terminations) + 1
        age = np.arange(length) - np.repeat([0, *ends], np.diff([0, *ends, length]))
        truncations = ((age + 1) % horizon == 0) & ~terminations
        sentence = f"no 'timeouts' mark time limits: an episode is cut off at the horizon {horizon}"
        notes[sentence] += int(truncations.sum())
    return terminations, truncations


def _note_shift(observations: Array, ends: Array, notes: Counter[str]) -> None:
    """Say so where all large steps of the observations stand one env step beside the flags."""
    steps = np.abs(np.diff(observations.astype(np.float64), axis=0)).reshape(len(observations) - 1, -1).sum(axis=1)
    (flagged,) = np.nonzero(ends[:-1])
    for shift, word in ((-1, "late"), (1, "early")):
        beside = flagged + shift
        if len(flagged) == 0 or beside.min() < 0 or beside.max() >= len(steps):
            continue
        others = np.delete(steps, beside)
        if len(others) and steps[beside].min() > 2 * others.max():
            notes[f"the flags seem to stand one env step too {word}: observations jump beside them"] += 1


def _jumps(source: Path, columns: Mapping[str, Array], ends: Array, are_ends: bool, notes: Counter[str]) -> Array:
    """Return where an observation is not the one that was announced and no flag stands, if those are ends."""
    announced, followed = columns["next_observations"][:-1], columns["observations"][1:]
    jumps = np.append((announced != followed).reshape(len(followed), -1).any(axis=1), False)
    silent, steady = jumps & ~ends, ends & ~jumps
    steady[-1] = False
    late = f"{int(steady.sum()):,} ends of episodes, the first at env step {steady.argmax():,}, "
    late += "are followed by the observation that was announced, as if the episode went on"
    if silent.any() and not are_ends:
        where = f"after {int(silent.sum()):,} env steps, the first of them env step {silent.argmax():,}"
        raise DataError(
            f"{source}: {where}: the next observation is not the one that follows, and no flag ends an episode"
            f"{'; ' + late if steady.any() else ''}; ends={JUMPS} ends episodes there"
        )
    notes[f"{_STEADY}; {_WHICH}"] += int(steady.sum())
    return silent


def as_sentences(notes: Counter[str]) -> list[str]:
    """Return what there is to say of all lives, each once."""
    return [text + (f" ({count:,} times)" if count > 1 else "") for text, count in notes.items() if count]
