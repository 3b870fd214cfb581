"""Other people's formats: a module each, with `read`, `write` or both, found by name in two dictionaries."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from cccad_data import spaces
from cccad_data.errors import DataError, hint
from cccad_data.family import TaskFamily
from cccad_data.histories.dataset import Histories
from cccad_data.histories.header import FORMAT, check_format, check_header
from cccad_data.histories.history import TaskHistories
from cccad_data.histories.merging import write_dataset
from cccad_data.narrow import Border, narrow
from cccad_data.plain import Fields, Table
from cccad_data.process import VERSIONED, versions

_MODULES = {"minari": "minari", "d4rl": "d4rl", "npz": "npz", "hdf5": "hdf5_arrays", "arrays": "arrays"}
READERS = {name: f"{__name__}.{module}" for name, module in {**_MODULES, "legacy": "legacy", "xland": "xland"}.items()}
"""Modules with `read(sources, wishes) -> Found`, and `SETTINGS`, the defaults of what they can be told.

`TAKES_ENV` says that a task family may be named, `TAKES_MANY` that there may be several sources.
"""
WRITERS = {name: f"{__name__}.{name}" for name in ("npz", "minari")}
"Modules with `write(histories, out)`."
_TYPES = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", list: "a list of texts"}


@frozen(kw_only=True)
class Wishes:
    """What an import can be told."""

    env: TaskFamily | Fields | None = None
    "The task family that the histories are of, itself or as `kind` and fields; without it, the format's own family."
    split: Fields = field(factory=lambda: {"seed": 0, "held_out_frac": 0.1})
    "Arguments of `family.split`: held-out tasks are not imported."
    settings: Fields = field(factory=dict)
    "Settings of the format's reader; a text stands for what it is in JSON, unless the setting is a text itself."


@frozen(kw_only=True)
class Found:
    """What a reader found. *notes* are whole once *tasks* have been gone through."""

    header: Table
    tasks: Iterable[TaskHistories]
    notes: list[str] = field(factory=list)


def import_histories(
    source: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    form: str,
    wishes: Wishes | None = None,
    compression: str = "gzip",
) -> list[str]:
    """Turn *source*, one or several of the format *form*, into the dataset folder *out*; return what there is to say.

    Raises DataError when it cannot be read as that, contradicts itself, or *out* is there already; then nothing is
    written.
    """
    module, wishes = _module(READERS, form), wishes or Wishes()
    settings = {name: _setting(module, form, name, value) for name, value in wishes.settings.items()}
    if wishes.env is not None and not hasattr(module, "TAKES_ENV"):
        raise DataError(f"the format {form!r} brings its own family; leave out '--env' and its settings")
    sources = [Path(path) for path in ([source] if isinstance(source, Path | str) else source)]
    if len(sources) > 1 and not hasattr(module, "TAKES_MANY"):
        raise DataError(f"the format {form!r} is imported from one file at a time; 'merge' makes one set of several")
    for place, path in enumerate(sources):
        if not path.exists():
            continue  # the reader says so
        if not (path.is_file() or path.is_dir()):
            raise DataError(f"{path}: is neither a file nor a folder")
        if any(path.samefile(other) for other in sources[:place] if other.exists()):
            raise DataError(f"{path} is named twice; import it once")
    result = module.read(sources, evolve(wishes, settings={**module.SETTINGS, **settings}))
    return write_found(", ".join(map(str, sources)), result, out, compression)


def write_found(named: str, result: Found, out: Path | str, compression: str = "gzip") -> list[str]:
    """Write what a reader of *named* found as a dataset folder, and return what there is to say."""
    write_dataset(out, result.header, _checked(named, result), compression=compression)
    return list(result.notes)


def export_histories(path: Path | str, out: Path | str, *, form: str) -> None:
    """Write the dataset at *path* to *out* in the format *form*; raises DataError when that cannot be."""
    if Path(out).exists():
        raise DataError(f"{out} is there already; choose a new name")
    module, histories = _module(WRITERS, form), Histories.open(path, lazy=True)
    header = {**histories.header, "spaces": spaces.all_plain(histories.spaces)}
    module.write(evolve(histories, header=header), Path(out))


def _module(table: Mapping[str, str], form: str) -> Any:
    if form not in table:
        raise DataError(f"there is no format {form!r} here; known: {', '.join(table)}")
    return import_module(table[form])


def _setting(module: Any, form: str, name: str, value: Any) -> Any:
    """Return the value of a reader's setting in the type of its default; raises DataError where it has another."""
    if name not in module.SETTINGS:
        raise DataError(f"the reader of {form!r} has no setting {name!r}; {hint(name, module.SETTINGS)}")
    kind = type(module.SETTINGS[name])
    if isinstance(value, str) and kind is not str:
        with suppress(ValueError):
            value = json.loads(value)
    fits = type(value) is kind or (kind is float and type(value) is int)
    if kind is list:
        fits = fits and all(isinstance(part, str) for part in value)
    if kind in {int, float}:
        fits = fits and math.isfinite(value) and value >= 0
    if not fits:
        wanted = _TYPES.get(kind, 'a space such as {"kind": "discrete", "n": 3}')
        raise DataError(f"the setting {name!r} of {form!r} must be {wanted}: {value!r:.80}")
    return value


def _checked(named: str, result: Found) -> Iterator[TaskHistories]:
    """Yield the tasks of a reader, each held against the header that goes with it: what is written can be read."""
    borders = {side: Border(result.header["spaces"][side]) for side in ("observation", "action")}
    sides = {"observations": "observation", "final_observations": "observation"}
    task_ids: set[str] = set()
    for task in result.tasks:
        if task.task_id in task_ids:
            raise DataError(f"{named}: task {task.task_id!r} is there twice")
        task_ids.add(task.task_id)
        arrays: Table = task.arrays()
        for name in ("rewards", "terminations", "truncations"):
            wanted = "float32" if name == "rewards" else "bool"
            if arrays[name].ndim != 1:
                raise DataError(f"{named}: {name!r} of task {task.task_id!r} has {arrays[name].ndim} dimensions, not 1")
            arrays[name] = narrow(arrays[name], wanted, f"{named}: {name!r} of task {task.task_id!r}")
        for name in set(arrays) & {*sides, "actions", "optimal_actions"}:
            border = borders[sides.get(name, "action")]
            kept = border(arrays[name], f"{named}: {name!r} of task {task.task_id!r}")
            arrays[name] = kept.reshape(len(kept), -1) if name in sides else kept
        yield evolve(task, **arrays)
    if not task_ids:
        raise DataError(f"{named}: none of its histories can be imported: {'; '.join(result.notes):.400}")


def our_header(text: str | bytes, source: Path) -> Table:
    """Return the header of histories that an export of ours has in it; raises DataError when it is not sound."""
    with reading(source, "the header of our export cannot be read"):
        header = json.loads(text)
        check_format(header.get("format"), source)
        check_header(header, source)
        return dict(header)


@contextmanager
def reading(source: Path, what: str) -> Iterator[None]:
    """Turn whatever is raised over bytes that make no sense into one sentence that begins with *source*."""
    try:
        yield
    except DataError as error:
        if str(source) in str(error):
            raise
        raise DataError(f"{source}: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{source}: {what}: {reason:.200}") from error


def foreign_header(form: str, sources: Sequence[Path], environment: Fields, **facts: object) -> Table:
    """Return the header of histories that somebody else collected; *environment* has `env spaces horizon`, or more."""
    files = ", ".join(source.name for source in sources)
    contents = [_content(source) for source in sources if source.exists()]
    return {
        "format": FORMAT,
        "tasks": [],
        "held_out_task_ids": [],
        "split": {},
        "source": {"kind": "import", "from": form, "file": files, "sha256": contents, **facts},
        "seed": 0,
        "versions": versions(*VERSIONED),
        **environment,
    }


def _content(source: Path) -> str:
    """Return a hash of a file, or of all files of a folder: two sources of one name are told apart by it."""
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
