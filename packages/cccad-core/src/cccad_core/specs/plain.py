"""From a spec to plain data, ready for TOML, and to the parts that it names."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import get_args, get_origin

from attrs import AttrsInstance, fields, has

from cccad_core.errors import SpecError, UnknownPart
from cccad_core.registry import REGISTRY, Registry, hints_of
from cccad_core.specs.field_types import UNTYPED, is_union, kind_of
from cccad_core.specs.toml import Table


def unstructure(spec: object, registry: Registry = REGISTRY) -> Table:
    """Return plain data, ready for TOML, from which `structure` makes an equal spec; what is None is left out.

    Raises UnknownPart if a part's class is not registered, SpecError if a None is not the default of its field.
    """
    plain = plain_value(spec, type(spec), registry)
    assert isinstance(plain, dict)
    return plain


def parts(spec: object, registry: Registry = REGISTRY) -> set[tuple[str, str]]:
    """Return the (kind, name) of every registered part in *spec*, itself included; see `registry.distributions`."""
    inner: Iterable[object] = ()
    named: set[tuple[str, str]] = set()
    cls = type(spec)
    if has(cls):
        with suppress(UnknownPart):  # a spec class of its own, such as a policy's, has no name
            named = {registry.name_of(cls)}
        inner = [getattr(spec, attribute.name) for attribute in fields(cls)]
    elif isinstance(spec, Mapping | list | tuple):
        inner = spec.values() if isinstance(spec, Mapping) else spec
    return named.union(*(parts(item, registry) for item in inner))


def plain_value(value: object, type_: object = UNTYPED, registry: Registry = REGISTRY) -> object:
    """Return *value*, which stands in a field of *type_*, without attrs classes and tuples."""
    if is_union(type_):
        type_ = next((member for member in get_args(type_) if _holds(member, value)), UNTYPED)
    cls = type(value)
    if has(cls):
        return _plain_class(value, cls, kind_of(type_), registry)
    if isinstance(value, Mapping):
        item_type = get_args(type_)[1] if get_origin(type_) is dict else UNTYPED
        return {key: plain_value(item, item_type, registry) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = get_args(type_) or (UNTYPED, ...)
        item_types = items if items[-1] is not ... else items[:1] * len(value)
        return [plain_value(item, item_type, registry) for item, item_type in zip(value, item_types, strict=True)]
    return value


def _plain_class(value: object, cls: type[AttrsInstance], kind: str, registry: Registry) -> Table:
    hints = hints_of(cls)
    plain: Table = {"kind": registry.name_of(cls, kind)[1]} if kind else {}
    for attribute in fields(cls):
        inner = getattr(value, attribute.name)
        if inner is None and attribute.init and attribute.default is not None:
            raise SpecError([(attribute.alias, f"TOML has no None, and None is not the default in {cls.__name__}")])
        if inner is not None and attribute.init:
            plain[attribute.alias] = plain_value(inner, hints.get(attribute.name, UNTYPED), registry)
    return plain


def _holds(member: object, value: object) -> bool:
    """Return whether *member* of a union is the one that describes how *value* is written."""
    return type(value) in (member, get_origin(member)) or (has(type(value)) and kind_of(member) != "")
