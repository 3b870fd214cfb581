"""Finding a task family by the name that a history file gives, through the entry points of installed distributions."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from cccad_data.errors import DataError, UnknownFamilyError, hint

GROUP = "cccad.env"


def build_family(env: Mapping[str, Any]) -> Any:
    """Return the task family of *env*, a dictionary of ``kind`` and the fields of its spec.

    Raises UnknownFamilyError when no installed distribution offers that kind or it cannot be imported, and DataError
    when its spec does not take these fields.
    """
    fields = dict(env)
    kind = fields.pop("kind")
    offers = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind not in offers:
        raise UnknownFamilyError(f"no installed distribution offers the task family {kind!r}; {hint(kind, offers)}")
    try:
        spec_class = offers[kind].load()
    except (ImportError, AttributeError) as error:
        raise UnknownFamilyError(f"the task family {kind!r} is installed but cannot be imported: {error}") from error
    try:
        return spec_class(**fields).build()
    except (TypeError, ValueError) as error:
        raise DataError(f"the installed task family {kind!r} does not take {fields!r}: {error}") from error
