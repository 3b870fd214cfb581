"""From a spec class to words: what it is for, and what each of its fields means."""

from typing import Any, get_args

from attrs import NOTHING, Attribute, Factory, fields, has

from cccad_core.registry import REGISTRY, Registry, hints_of
from cccad_core.specs.field_types import UNTYPED, rules, type_text
from cccad_core.specs.plain import plain_value
from cccad_core.specs.toml import value_text


def describe(cls: type, registry: Registry = REGISTRY) -> str:
    """Return what a spec class is for and its fields: name, type, default, what its validator asks for, and `help`.

    A field's help is its metadata: `field(default=8, metadata={"help": "how many latent tokens are remembered"})`.
    """
    from inspect import getdoc  # slow, and not needed to read a spec

    return "\n".join([getdoc(cls) or cls.__name__, "", *_field_lines(cls, (), registry)]).rstrip()


def _field_lines(cls: type, above: tuple[type, ...], registry: Registry) -> list[str]:
    """Return lines on each field and, below it, on the fields of the class that it holds, if not one of *above*."""
    lines, indent = [], "  " + "    " * len(above)
    hints = hints_of(cls)
    for attribute in (attribute for attribute in fields(cls) if attribute.init):
        type_ = hints.get(attribute.name, UNTYPED)
        limits = [rule for rule in rules(attribute.validator) if rule]
        notes = f"  ({' and '.join(limits)})" if limits else ""
        lines.append(f"{indent}{attribute.alias}: {type_text(type_)}{_default_text(attribute, type_, registry)}{notes}")
        if "help" in attribute.metadata:
            lines.append(f"{indent}    # {attribute.metadata['help']}")
        for inner in (type_, *get_args(type_)):
            if isinstance(inner, type) and has(inner) and inner not in (*above, cls):
                lines += _field_lines(inner, (*above, cls), registry)
    return lines


def _default_text(attribute: "Attribute[object]", type_: object, registry: Registry) -> str:
    default: Any = attribute.default
    if default is NOTHING:
        return ", required"
    if isinstance(default, Factory):  # type: ignore[arg-type]
        if default.takes_self:
            return ", computed from the others"
        default = default.factory()
    return ", may be left out" if default is None else f" = {value_text(plain_value(default, type_, registry))}"
