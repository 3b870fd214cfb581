"""TOML as text: read from a file, changed by one override, shown in a message, written, and digested."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import TypeAlias, TypeGuard

import tomli

from cccad_core.errors import SpecError

Table: TypeAlias = dict[str, object]
"""A table of TOML: plain data by name, whose values are looked at one by one."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_NOT_PLAIN = re.compile(r'["\\\x00-\x1f\x7f]')
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_SHOWN_CHARACTERS = 80
_MOST_BYTES = 16_000_000  # of a file: a hundred thousand task ids take a quarter


def read(path: Path) -> Table:
    """Return what the TOML file *path* holds; raises SpecError, of one line, with the line in the file, if it fails.

    A byte order mark at its beginning, which some editors write, is skipped.
    """
    try:
        if path.suffix == ".toml" and path.is_fifo():  # without an end; those of a shell have names of another kind
            raise SpecError([("", "a spec must be a file, and this is a pipe")], str(path))
        if path.is_file() and (num_bytes := path.stat().st_size) > _MOST_BYTES:
            raise SpecError([("", f"a spec has at most {_MOST_BYTES:,} bytes, and this one {num_bytes:,}")], str(path))
        return tomli.loads(path.read_bytes().decode("utf-8-sig"))
    except tomli.TOMLDecodeError as error:
        message = str(error)
        where = re.search(r" \(at line (\d+), column (\d+)\)$", message)
        if where is None:  # "(at end of document)"
            raise SpecError([("", message)], str(path)) from None
        raise SpecError([("", f"{message[: where.start()]} (column {where[2]})")], f"{path}:{where[1]}") from None
    except UnicodeDecodeError as error:
        raise SpecError([("", f"a spec must be UTF-8 text: {error.reason} at byte {error.start}")], str(path)) from None
    except OSError as error:
        raise SpecError([("", f"the spec cannot be read: {error.strerror}")], str(path)) from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, a thousand brackets
        if isinstance(error, SpecError):
            raise
        raise SpecError([("", f"the spec cannot be read: {str(error).partition(';')[0]}")], str(path)) from None


def override(data: Table, text: str) -> None:
    """Set one value in *data*, in place, as *text* `a.b.c=VALUE` says, where VALUE is TOML; missing tables are made.

    Raises SpecError if *text* is not of that form or passes through something that is no table.
    """
    key, equals, raw = text.partition("=")
    path = _key_path(key) if equals else []
    if not path:
        raise SpecError([("", f"an override must look like a.b=VALUE: {show(text)}")])
    try:
        parsed = tomli.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        parsed = {}
    if list(parsed) != ["value"]:
        right = f"{key.strip()}={show(raw.strip())}"
        raise SpecError([("", f"the override {text} sets no TOML value; a string needs its quotes: '{right}'")])
    table = data
    for i, part in enumerate(path[:-1]):
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            at = ".".join(path[: i + 1])
            raise SpecError([("", f"the override {text} needs a table at '{at}', which is {show(inner)}")])
        table = inner
    table[path[-1]] = parsed["value"]


def _key_path(key: str) -> list[str]:
    """Return the parts of a dotted TOML key, or nothing if it is none."""
    try:
        table = tomli.loads(f"{key}= {{}}")
    except (ValueError, RecursionError):
        return []
    path = []
    while len(table) == 1:
        [(part, table)] = table.items()
        path.append(part)
    return [] if table else path


def key_text(key: str) -> str:
    """Return one part of a dotted key, quoted only if it must be."""
    return key if _BARE_KEY.fullmatch(key) else value_text(key)


def _escape(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04x}"


def value_text(value: object) -> str:
    """Return *value* in TOML on one line; raises TypeError if TOML has no such value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + _NOT_PLAIN.sub(_escape, value) + '"'
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else str(float(value))
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key_text(key)} = {value_text(inner)}" for key, inner in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    raise TypeError(f"TOML has no value for {value!r} of type {type(value).__name__}")


def show(value: object) -> str:
    """Return *value* for a message: as in TOML where it is a value of TOML, and cut short if it is long."""
    try:
        text = value_text(value)
    except TypeError:
        text = "nothing" if value is None else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def to_toml(data: Mapping[str, object]) -> str:
    """Return the TOML document of *data*, which reading gives back; raises TypeError if TOML has no such value."""
    return "\n\n".join(_blocks(data, "", "")) + "\n"


def _blocks(table: Mapping[str, object], header: str, path: str) -> list[str]:
    """Return the block of lines of *table* and then those of the tables in it."""
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping) or _is_array_of_tables(value)}
    lines = [f"{key_text(key)} = {value_text(value)}" for key, value in table.items() if key not in inner]
    blocks = ["\n".join([header, *lines] if header else lines)] if lines or header else []
    for key, value in inner.items():
        below = f"{path}.{key_text(key)}" if path else key_text(key)
        if isinstance(value, Mapping):
            blocks += _blocks(value, f"[{below}]", below)
        else:
            blocks += [block for item in value for block in _blocks(item, f"[[{below}]]", below)]
    return blocks


def _is_array_of_tables(value: object) -> TypeGuard[Sequence[Mapping[str, object]]]:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Mapping) for item in value)


def digest(data: Mapping[str, object]) -> str:
    """Return 8 hexadecimal digits that name *data*, whatever the order of its keys: SHA-256 of its canonical JSON."""
    import hashlib

    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=value_text)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]
