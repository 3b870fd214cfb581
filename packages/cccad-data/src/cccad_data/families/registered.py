"""Finding a task family by the name that a history file gives, through the entry points of installed distributions."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from cccad_data.by_name import run_file
from cccad_data.errors import DataError, FamilyError, UnknownFamilyError, hint
from cccad_data.family import FamilySpec, TaskFamily
from cccad_data.plain import Fields

GROUP = "cccad.env"


def text_fields(kind: str) -> set[str]:
    """Return the names of the fields of a family's spec that are texts; none for a family that is not there."""
    try:
        attributes = getattr(_spec_class(kind), "__attrs_attrs__", ())
    except (DataError, UnknownFamilyError):
        return set()
    return {attribute.name for attribute in attributes if attribute.type in {str, "str"}}


def build_family(env: Fields) -> TaskFamily:
    """Return the task family of *env*, a dictionary of `kind` and the fields of its spec.

    Raises UnknownFamilyError when no installed distribution offers that kind or it cannot be imported, and DataError
    when several offer it, its spec does not take these fields, or it fails in any other way.
    """
    fields = dict(env)
    kind = fields.pop("kind")
    spec_class = _spec_class(kind)
    try:
        with family_errors(kind):
            family: TaskFamily = spec_class(**fields).build()
    except FamilyError as error:
        raise DataError(f"the installed task family {kind!r} does not take {fields!r}: {error}") from error
    return family


def the_family(env: TaskFamily | Fields) -> TaskFamily:
    """Return *env* where it is a task family itself, else the family that its `kind` and fields describe."""
    return build_family(env) if isinstance(env, Mapping) else env


def import_files(paths: Iterable[Path]) -> None:
    """Run Python files that register task families; raises DataError when there is none, or it fails."""
    for path in paths:
        if path.suffix != ".py" or not path.is_file():
            raise DataError(f"{path}: there is no such Python file (*.py)")
        try:
            run_file(path.stem, path)
        except (Exception, SystemExit) as error:  # whatever the file of a stranger raises
            raise DataError(f"{path}: cannot be imported: {_in_one_line(error)}") from error


def _registered(kind: str) -> Callable[..., FamilySpec] | None:
    """Return the family that a file has registered in this process under *kind*, or None.

    Histories know no registry; a file that uses one has brought it in.
    """
    registry: Any = sys.modules.get("cccad_core.registry")
    offers = [] if registry is None else registry.entries("env", check=False)
    in_code = [offer for offer in offers if offer.name == kind]
    spec_class: Callable[..., FamilySpec] | None = registry.lookup("env", kind) if in_code else None
    return spec_class


def _spec_class(kind: str) -> Callable[..., FamilySpec]:
    points = entry_points(group=GROUP)
    offers = [point for point in points if point.name == kind]
    if not offers and (registered := _registered(kind)) is not None:
        return registered
    if not offers:
        suggestion = hint(kind, {point.name for point in points})
        raise UnknownFamilyError(f"no installed distribution offers the task family {kind!r}; {suggestion}")
    if len(offers) > 1:
        who = " and ".join(f"{_distribution(offer)} ({offer.value})" for offer in offers)
        raise DataError(f"the task family {kind!r} is offered more than once, by {who}; keep one of them")
    try:
        spec_class: Callable[..., FamilySpec] = offers[0].load()
    except (Exception, SystemExit) as error:  # whatever the module of a stranger raises
        who = _distribution(offers[0])
        raise UnknownFamilyError(
            f"the task family {kind!r} of {who} is installed but cannot be imported: {_in_one_line(error)}"
        ) from error
    return spec_class


@contextmanager
def family_errors(kind: str) -> Iterator[None]:
    """Turn whatever a task family raises into FamilyError: its own sentence, or what it was, with the family's name."""
    try:
        yield
    except FamilyError:
        raise
    except (ValueError, TypeError, LookupError) as error:
        raise FamilyError(" ".join(str(error).split()) or _in_one_line(error)) from error
    except (Exception, SystemExit) as error:
        raise FamilyError(f"the task family {kind!r} failed with {_in_one_line(error)}") from error


def _distribution(offer: EntryPoint) -> str:
    return str(offer.dist.name) if offer.dist else "an unknown distribution"


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
