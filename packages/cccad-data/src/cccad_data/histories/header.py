"""The header of histories, plain JSON: read once, and checked leaf by leaf, so that nothing behind it doubts a type.

A form is what a value must look like: a type (`float` for any number), `[form]` for a list, a dictionary of forms
for a table (a name with `?` may be missing, `*` stands for all others), or a function of a value that returns what
is wrong with it, or nothing.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from cccad_data import spaces
from cccad_data.errors import DataError, HistoryFileError
from cccad_data.plain import Table

FORMAT = "cccad-history/1"
Header = Table
Form: TypeAlias = type | Callable[[object], str] | dict[str, "Form"] | list["Form"]
"What a value must be: of a type, a table or a list of forms, or what a function finds no fault with."
_WORDS: dict[type, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_WORDS |= {dict: "a table", list: "a list"}
_MOST_JSON_BYTES = 1 << 28
_MOST_FEATURES, _MOST_VALUES = 1 << 24, 1 << 53
_SHOWN = 80


def _space(value: object) -> str:
    if words := _too_large(value):
        return words
    try:
        spaces.check(value, "is no space")
    except DataError as error:
        return str(error)
    return ""


def _too_large(value: object, depth: int = spaces.DEEPEST) -> str:
    """Say which leaf has more values or features than can be, before anything is made of them."""
    fields = value if isinstance(value, dict) else {}
    shape, sizes = ([*part] if isinstance(part := fields.get(name), list) else [] for name in ("shape", "sizes"))
    if any(type(count) is int and count > _MOST_VALUES for count in (fields.get("n"), *sizes)):
        return f"has more values than an array can hold: {value!r:.{_SHOWN}}"
    if math.prod(count for count in shape if type(count) is int) > _MOST_FEATURES:
        return f"has more than {_MOST_FEATURES:,} features: {value!r:.{_SHOWN}}"
    parts = fields.get("parts") if depth else None
    inner = parts.values() if isinstance(parts, dict) else parts if isinstance(parts, list) else ()
    return next(filter(None, (_too_large(part, depth - 1) for part in inner)), "")


def _positive(value: object) -> str:
    return "" if type(value) is int and value >= 1 else f"must be a whole number of at least 1: {value!r:.{_SHOWN}}"


def _inside(value: object) -> str:
    """Hold a shard's path against the folder that it must lie in."""
    path = PurePosixPath(value) if isinstance(value, str) and value and "\0" not in value else None
    if path is not None and not path.is_absolute() and ".." not in path.parts:
        return ""
    return f"must be the path of a file inside the folder: {value!r:.{_SHOWN}}"


HEADER: dict[str, Form] = {
    "env": {"kind": str},
    "spaces": {"observation": _space, "action": _space},
    "horizon": _positive,
    "tasks": [{"task_id": str, "params": dict, "split?": str}],
    "held_out_task_ids": [str],
    "split": {"seed?": int, "held_out_frac?": float},
    "source": {"kind": str, "parts?": [{"seed": int, "source": {"kind": str}}]},
    "seed": int,
    "versions": {"*": str},
}
HEADER_KEYS = tuple(HEADER)
MANIFEST: dict[str, Form] = {**HEADER, "units": [{"shard": _inside, "task_ids?": [str], "done": bool}]}


def fault(value: object, form: Form, name: str) -> str:
    """Say what keeps *value*, which is called *name*, from having this *form*, or nothing."""
    if not isinstance(form, dict | list | type):
        words = form(value)
        return words and f"{name!r} {words}"
    kind: type = form if isinstance(form, type) else type(form)
    if type(value) is not kind and not (kind is float and type(value) is int):
        return f"{name!r} must be {_WORDS[kind]}: {value!r:.{_SHOWN}}"
    return next(filter(None, _faults_within(value, form, name)), "")


def _faults_within(value: Any, form: Form, name: str) -> Iterator[str]:
    if isinstance(form, list):
        for index, item in enumerate(value):
            yield fault(item, form[0], f"{name}[{index}]")
    for key, inner in form.items() if isinstance(form, dict) else ():
        for each in value if key == "*" else [key.removesuffix("?")]:
            if each in value:
                yield fault(value[each], inner, f"{name}.{each}")
            elif not key.endswith("?"):
                yield f"{name!r} lacks {each!r}"


def check_header(header: Table, path: Path, form: Form = HEADER, name: str = "header") -> None:
    """Raise HistoryFileError unless *header* has every key of the format, each of its form."""
    words = fault(header, form, name)
    if words or not header["tasks"]:
        raise HistoryFileError(f"{path}: {words or f'{name!r} lists no task'}")


def check_format(name: object, path: Path) -> None:
    """Raise HistoryFileError unless *name* names the one format that is read here."""
    if isinstance(name, str) and name == FORMAT:
        return
    remedy = "; a newer one wrote it" if re.fullmatch(r"cccad-history/[1-9]\d*", str(name)[:_SHOWN]) else ""
    what = f"{name!r:.{_SHOWN}}; this version of cccad-data reads {FORMAT!r} only{remedy}"
    raise HistoryFileError(f"{path}: the format is {what}")


def read_manifest_file(path: Path) -> Header:
    """Return the manifest at *path*; raises HistoryFileError when there is none, or it is not what it should be."""
    if not path.is_file():
        raise HistoryFileError(f"{path.parent}: there is no readable {path.name}, so this is no dataset folder")
    if path.stat().st_size > _MOST_JSON_BYTES:
        raise HistoryFileError(f"{path}: has {path.stat().st_size:,} bytes, more than the {_MOST_JSON_BYTES:,} allowed")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HistoryFileError(f"{path}: not JSON: {error}") from error
    check_format(manifest.get("format") if isinstance(manifest, dict) else None, path)
    check_header(manifest, path, MANIFEST, "manifest")
    shards = [unit["shard"] for unit in manifest["units"]]
    if not shards or len(set(shards)) < len(shards):
        raise HistoryFileError(f"{path}: {'lists a shard twice' if shards else 'lists no unit'}")
    return dict(manifest)
