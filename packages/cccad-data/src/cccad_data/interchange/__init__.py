"""Other people's formats: a module each, with ``read``, ``write`` or both, found by name in two dictionaries."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from attrs import field, frozen

from cccad_data import spaces
from cccad_data.collection import versions
from cccad_data.dataset import Histories
from cccad_data.errors import DataError
from cccad_data.header import FORMAT
from cccad_data.history import Array, TaskHistories
from cccad_data.merging import write_dataset

READERS = {name: f"{__name__}.{name}" for name in ("legacy", "minari", "xland", "d4rl", "npz")}
"Modules with ``read(source, wishes) -> Found``, and ``SETTINGS``, the defaults of what they can be told."
WRITERS = {name: f"{__name__}.{name}" for name in ("npz", "minari")}
"Modules with ``write(histories, out)``."


@frozen(kw_only=True)
class Wishes:
    """What an import can be told."""

    env: Mapping[str, Any] | None = None
    "The task family that the histories are of, ``kind`` and fields; without it, the format's own world."
    split: Mapping[str, Any] = field(factory=lambda: {"seed": 0, "held_out_frac": 0.1})
    "Arguments of ``family.split``: held-out tasks are not imported."
    settings: Mapping[str, Any] = field(factory=dict)
    "Settings of the format's reader."


@frozen(kw_only=True)
class Found:
    """What a reader found. *notes* are whole once *tasks* have been gone through."""

    header: dict[str, Any]
    tasks: Iterable[TaskHistories]
    notes: list[str] = field(factory=list)


def import_histories(
    source: Path | str, out: Path | str, *, form: str, wishes: Wishes | None = None, compression: str = "gzip"
) -> list[str]:
    """Turn *source*, of the format *form*, into the dataset folder *out*; return what there is to say about it.

    Raises DataError when it cannot be read as that, contradicts itself, or *out* is there already.
    """
    module, wishes = _module(READERS, form), wishes or Wishes()
    for name in wishes.settings:
        if name not in module.SETTINGS:
            near = difflib.get_close_matches(name, module.SETTINGS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(module.SETTINGS) or 'none'}"
            raise DataError(f"the reader of {form!r} has no setting {name!r}; {hint}")
    if wishes.env is not None and not hasattr(module, "TAKES_ENV"):
        raise DataError(f"the format {form!r} brings its own world; leave out the task family")
    found = module.read(Path(source), wishes)
    write_dataset(out, found.header, found.tasks, compression=compression)
    return list(found.notes)


def export_histories(path: Path | str, out: Path | str, *, form: str) -> None:
    """Write the dataset at *path* to *out* in the format *form*; raises DataError when that cannot be."""
    if Path(out).exists():
        raise DataError(f"{out} is there already; choose a new name")
    _module(WRITERS, form).write(Histories.open(path, lazy=True), Path(out))


def _module(table: Mapping[str, str], form: str) -> Any:
    if form not in table:
        raise DataError(f"there is no format {form!r} here; known: {', '.join(table)}")
    return import_module(table[form])


def check_groups(source: Path, file: Mapping[str, Any], groups: Sequence[str], arrays: Sequence[str]) -> None:
    """Raise DataError unless each of the *groups* of an open HDF5 *file* has all *arrays*."""
    for name in groups:
        missing = [array for array in arrays if array not in file[name]]
        if missing:
            raise DataError(f"{source}: group {name!r} lacks {', '.join(map(repr, missing))}")


def foreign_header(form: str, source: Path, world: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    """Return the header of histories that somebody else collected; *world* has ``env spaces horizon``, or more."""
    return {
        "format": FORMAT,
        "tasks": [],
        "held_out_task_ids": [],
        "split": {},
        "source": {"kind": "import", "from": form, "file": source.name, **facts},
        "seed": 0,
        "versions": dict(versions()),
        **world,
    }


def box_around(low: Array, high: Array) -> dict[str, Any]:
    """Return the box with these bounds, ``o`` each."""
    return {"kind": "box", "shape": list(low.shape), "low": low.tolist(), "high": high.tolist()}


def fitting(space: Mapping[str, Any], values: Array) -> Array:
    """Return *values* in the dtype of *space*, features in one row; raises DataError when one lies outside."""
    rows = values.reshape(len(values), -1) if space["kind"] != "discrete" or values.ndim > 1 else values
    if spaces.outside(space, values).any():
        raise DataError(f"values from {values.min()} to {values.max()} are not all in the space {dict(space)!r:.120}")
    return rows.astype(spaces.dtype(space))
