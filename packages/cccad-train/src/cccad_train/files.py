"""The files of a run folder: read in one way, with every leaf checked against its declared form, and replaced whole.

A form is a function that raises `Misfit` for a value that is not of it; `table`, `each` and `maybe` join forms.
"""

import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cccad_data.histories.owner import owned

Json = dict[str, Any]
"Plain data, as it enters from JSON and TOML."
Form = Callable[[object], None]

MAX_BYTES = 1 << 28
"Larger files are refused unread: results of a thousand tasks take a tenth of it."
MAX_DEPTH = 32
LARGEST = 1e30
"Of numbers in results: no return comes near, and squares of it are still finite."
_UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class RunFileError(ValueError):
    """A file of a run folder cannot be used; the sentence names the file and says what is wrong with it."""


class Misfit(ValueError):
    """A value is not what its form declares; `place` are the steps to it, the innermost first."""

    def __init__(self, expected: str, value: object, *place: str) -> None:
        super().__init__(expected, value)
        self.expected, self.value, self.place = expected, value, list(place)

    def __str__(self) -> str:
        steps = "".join(reversed(self.place)).removeprefix(".")
        where = f"{steps!r}" if steps else "the whole"
        shown = "a table" if isinstance(self.value, dict) else "a list" if isinstance(self.value, list) else self.value
        return f"{where} must be {self.expected}: {shown if shown is not self.value else repr(shown)[:80]}"


def leaf(expected: str, is_right: Callable[[Any], bool]) -> Form:
    """Return the form of the values that *is_right* says yes to."""

    def check(value: object) -> None:
        if not is_right(value):
            raise Misfit(expected, value)

    return check


TEXT = leaf("text without control characters", lambda value: type(value) is str and not _UNSHOWN.search(value))
COUNT = leaf("a whole number >= 0", lambda value: type(value) is int and 0 <= value < 1 << 63)
NUMBER = leaf("a finite number", lambda value: _is_number(value) and abs(value) <= LARGEST)
_ANY_NUMBER = leaf("a number", lambda value: value is None or _is_number(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool


def anything(value: object, depth: int = 0) -> None:
    """Check that *value* is plain data that can be shown: finite, without control characters, not endlessly deep."""
    if depth > MAX_DEPTH:
        raise Misfit(f"at most {MAX_DEPTH} levels deep", value)
    if isinstance(value, str):
        TEXT(value)
    elif isinstance(value, float):
        NUMBER(value)
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            try:
                anything(item, depth + 1)
                anything(key)
            except Misfit as misfit:
                misfit.place.append(f".{key}")
                raise


def maybe(form: Form) -> Form:
    """Return the form of null and of what is of *form*."""
    return lambda value: None if value is None else form(value)


def each(form: Form, least: int = 0, most: float = float("inf")) -> Form:
    """Return the form of a list of *least* to *most* values, each of *form*."""

    def check(value: object) -> None:
        if type(value) is not list or not least <= len(value) <= most:
            raise Misfit(f"a list{f' of at least {least}' if least else ''}", value)
        for index, item in enumerate(value):
            try:
                form(item)
            except Misfit as misfit:
                misfit.place.append(f"[{index}]")
                raise

    return check


def table(
    required: Mapping[str, Form] | None = None, optional: Mapping[str, Form] | None = None, others: Form = anything
) -> Form:
    """Return the form of a table with the *required* keys, perhaps the *optional* ones, and any of *others*."""
    needed = required or {}
    forms = {**needed, **(optional or {})}

    def check(value: object) -> None:
        if not isinstance(value, dict):
            raise Misfit("a table", value)
        if missing := [key for key in needed if key not in value]:
            raise Misfit(f"a table that has {', '.join(map(repr, missing))}", value)
        for key, item in value.items():
            try:
                TEXT(key)
                forms.get(key, others)(item)
            except Misfit as misfit:
                misfit.place.append(f".{key}")
                raise

    return check


METRICS_ROW = table({"stage": TEXT}, {"update": COUNT, "env_step": COUNT, "time_s": NUMBER}, _ANY_NUMBER)


def other_format(form: object, readable: str) -> str:
    """Return the end of a sentence about what is of the format *form*, where only *readable* is read."""
    stem, _, number = readable.rpartition("/")
    version = form.removeprefix(f"{stem}/") if isinstance(form, str) else ""
    is_newer = version.isascii() and version.isdecimal() and len(version) < 9 and int(version) > int(number)
    return f"of format {form!r:.80}; this version reads {readable!r}" + (", and that is newer" if is_newer else "")


@contextmanager
def owning(folder: Path) -> Iterator[None]:
    """Own a run folder while it is written, and take away what a writer that died has left half-written.

    Raises FolderInUseError, with process and host, when another is writing, and RunFileError when there is no folder.
    """
    if not folder.is_dir():
        raise RunFileError(f"{folder}: there is no such run folder")
    with owned(folder):
        for partial in folder.rglob("*.partial"):
            if partial.is_dir() and not partial.is_symlink():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)
        yield


def read_text(path: Path) -> str | None:
    """Return what a text file holds, or None when there is none; raises RunFileError when it cannot be read."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise RunFileError(f"{path}: this must be a file")
        if about.st_size > MAX_BYTES:
            raise RunFileError(f"{path}: {about.st_size:,} bytes are more than such a file ever has")
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise RunFileError(f"{path}: this link leads nowhere") from None
        return None
    except OSError as error:
        raise RunFileError(f"{path}: this file cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise RunFileError(f"{path}: this is no UTF-8 text: {error.reason} at byte {error.start:,}") from None


def read_json(path: Path, form: Form) -> Any:
    """Return what a JSON file of *form* holds, or None when there is none; raises RunFileError when it is not so."""
    text = read_text(path)
    return None if text is None else parsed(text, form, str(path))


def parsed(text: str, form: Form, where: str) -> Any:
    """Return what JSON of *form* says; raises RunFileError, which begins with *where*, when it is not so."""
    try:
        value = json.loads(text)
        form(value)
    except Misfit as misfit:
        raise RunFileError(f"{where}: {misfit}") from None
    except RecursionError:
        raise RunFileError(f"{where}: this is more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        cause = "it is empty" if not text.strip() else str(error).splitlines()[0]
        raise RunFileError(f"{where}: this is not valid JSON: {cause}") from None
    return value


def read_metrics(path: Path) -> list[Json]:
    """Return the rows of a `metrics.jsonl`; none where there is no such file.

    A last line that a kill cut short is left out; any other that is no row raises RunFileError with its number. What is
    no finite number, and is null or absurd in the file, is returned as NaN.
    """
    lines, rows = (read_text(path) or "").splitlines(), []
    for number, line in enumerate(lines, start=1):
        try:
            row = parsed(line, METRICS_ROW, f"{path}:{number}")
        except RunFileError:
            if number == len(lines):
                break
            raise
        rows.append({name: _plain(value) for name, value in row.items()})
    return rows


def _plain(value: Any) -> Any:
    is_lost = value is None or (type(value) is not str and not abs(value) <= LARGEST)
    return float("nan") if is_lost else value


def write_json(path: Path, content: Json, indent: int | None = 2) -> None:
    """Replace *path* by *content* as JSON; raises RunFileError, writing nothing, for a number that is not finite."""
    try:
        text = json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        raise RunFileError(f"{path}: not written, for a number that it would hold is not finite") from None
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Replace *path* by *text* at once; where that fails, *path* stays as it was and nothing else is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two comparisons may be written at once
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
