"""Flat arrays with flags, as many people store what an agent did: a row per env step, all episodes in order.

`observations actions rewards`, flags `terminals` (or `terminations`, `dones`) and `timeouts` (or
`truncations`), and where there are any `next_observations optimal_actions`. With `TASK/` before their names there are
several tasks. `history_ends` cuts them into lives; `episode_ends` and `final_observations` stand for flags and for
`next_observations`. The settings `task_column` and `history_column` name arrays that say of every row whose it is.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from attrs import evolve

from cccad_data.errors import DataError
from cccad_data.histories.history import OFFSETS
from cccad_data.interchange import Found, Wishes, lives, reading
from cccad_data.interchange.episodes import UNKNOWN_LAST
from cccad_data.interchange.lives import Life, gathered, task_of
from cccad_data.plain import Array, Fields, Table

SETTINGS: Table = {**lives.SETTINGS, "task_column": "", "history_column": ""}
"""`task_column` holds each row's task: its id, or what stands for `{}` in `task_id`, or its place in `task_ids`.

`history_column` holds whatever tells the histories of a task apart; rows of several may take turns.
"""
TERMINALS, TIMEOUTS = ("terminals", "terminations", "dones"), ("timeouts", "truncations")
FLAGS = (*TERMINALS, *TIMEOUTS)
NEEDED = ("observations", "actions", "rewards")
MAYBE = ("next_observations", "optimal_actions")
_PER_STEP = (*NEEDED, *MAYBE, *FLAGS)
_STEADY = "an end of an episode is followed by the observation that was announced, as if it went on"
_WHICH = "the setting 'ends' says which flags count"
JUMPS = "jumps"
"In the setting `ends`: an episode ends where the next observation is not the one that follows."


class Arrays(Protocol):
    """Arrays by name, unread; `TASK/` stands before the names of a task's."""

    names: set[str]

    def read(self, name: str) -> Array:
        """Return the array."""


def read(
    form: str, opened: Callable[[Path], AbstractContextManager[Arrays]], sources: Sequence[Path], wishes: Wishes
) -> Found:
    """Return the histories of files of flat arrays; without a setting, each file is of a task of its own."""
    notes: Counter[str] = Counter()
    all_lives: list[Life] = []
    for index, source in enumerate(sources):
        with reading(source, f"not flat arrays as {form} has them"), opened(source) as arrays:
            rewards = {name for name in arrays.names if f"/{name}".endswith("/rewards")}
            prefixes = sorted(name.removesuffix("rewards") for name in rewards)
            for prefix in prefixes or [""]:
                default = prefix.rstrip("/") or f"{form}/{source.stem}"
                has_column = bool(wishes.settings["task_column"])
                task_id = default if prefix or has_column else task_of(index, default, wishes, len(sources))
                columns = [wishes.settings[name] for name in ("task_column", "history_column")]
                wanted = (*_PER_STEP, "final_observations", *OFFSETS, *filter(None, columns))
                held = {name: arrays.read(prefix + name) for name in wanted if prefix + name in arrays.names}
                texts = [name for name, array in held.items() if array.dtype.kind not in "biuf" and name not in columns]
                if texts:
                    raise DataError(f"{source}: {prefix + texts[0]!r} is no array of numbers")
                all_lives += _lives(source, task_id, held, wishes.settings, notes)
    last = "repeated" if UNKNOWN_LAST in +notes else "true"
    return gathered(form, sources, all_lives, wishes, as_sentences(notes), last_observations=last)


def _lives(
    source: Path, task_id: str, arrays: dict[str, Array], settings: Fields, notes: Counter[str]
) -> Iterator[Life]:
    """Yield the lives in the arrays of one file, or of one task of it."""
    columns = {name: settings[name] for name in ("task_column", "history_column") if settings[name]}
    length = len(arrays["rewards"]) if "rewards" in arrays and arrays["rewards"].ndim else 0
    whole = {name: array for name, array in arrays.items() if name in _PER_STEP}
    if any(array.shape[:1] != (length,) for array in whole.values()):
        yield life_of(source, task_id, whole, settings, notes)  # which says what is wrong
        return
    if not columns:
        for part in _cut(source, arrays):
            yield life_of(source, task_id, part, settings, notes)
        return
    labels = []
    for setting, name in columns.items():
        if name not in arrays or arrays[name].shape not in {(length,), (length, 1)} or arrays[name].dtype.kind == "f":
            raise DataError(f"{source}: the {setting} {name!r} must be {length:,} whole numbers or texts, one a row")
        labels.append(arrays[name].reshape(length).tolist())
    rows_of: dict[tuple[object, ...], list[int]] = {}
    for row, label in enumerate(zip(*labels, strict=True)):
        rows_of.setdefault(label, []).append(row)
    for label, rows in rows_of.items():
        part = {name: array[rows] for name, array in whole.items()}
        name = _labelled(source, label[0], settings) if "task_column" in columns else task_id
        life = life_of(source, name, part, settings, notes)
        yield evolve(life, place=partial(_row, rows))


def _cut(source: Path, arrays: dict[str, Array]) -> Iterator[dict[str, Array]]:
    """Yield the arrays of each history, with flags and next observations in the place of offsets."""
    length = len(arrays["rewards"]) if arrays["rewards"].ndim else 0
    for name in OFFSETS:
        if name not in arrays:
            continue
        ends = arrays[name]
        is_sound = ends.ndim == 1 and ends.dtype.kind in "iu" and len(ends) > 0 and ends[0] >= 1 and ends[-1] <= length
        if not is_sound or (np.diff(ends.astype(np.int64)) < 1).any():
            raise DataError(f"{source}: {name!r} must be whole numbers that rise from at least 1 to {length:,} at most")
    if "episode_ends" in arrays:
        at_end = np.zeros(length, bool)
        at_end[arrays["episode_ends"].astype(int) - 1] = True
        if not set(arrays) & set(FLAGS):
            arrays["truncations"] = at_end
        final, shown = arrays.get("final_observations"), arrays.get("observations")
        if final is not None and shown is not None and "next_observations" not in arrays:
            if final.shape != (int(at_end.sum()), *shown.shape[1:]) or len(shown) != length:
                raise DataError(f"{source}: 'final_observations' must have one for each of 'episode_ends'")
            following = np.concatenate([shown[1:], shown[-1:]])
            following[at_end] = final
            arrays["next_observations"] = following
    begins = [0, *arrays.get("history_ends", np.array([length])).tolist()]
    for begin, end in itertools.pairwise(begins):
        yield {name: array[begin:end] for name, array in arrays.items() if name in _PER_STEP and array.ndim}


def _row(rows: Sequence[int], env_step: int) -> str:
    return f"row {rows[env_step]:,}"


def _labelled(source: Path, label: object, settings: Fields) -> str:
    """Return the task that a task column's *label* means."""
    listed = settings["task_ids"]
    if listed and isinstance(label, int):
        if not 0 <= label < len(listed):
            raise DataError(f"{source}: task {label} of the column, but the setting 'task_ids' names {len(listed)}")
        return str(listed[label])
    return str(settings["task_id"] or "{}").replace("{}", str(label))


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
