"""What the types and the validators of a spec's fields say, in words for a person."""

import types
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from attrs import frozen, has

from cccad_core.specs.toml import show

UNTYPED: Final[object] = Any
"""The type of a field that states none."""


@frozen
class Kind:
    """Marks a field as holding a registered part: `compressor: Annotated[CompressorSpec, Kind("compressor")]`.

    In TOML it is a table whose `kind` is the registered name and whose other fields are those of the spec class.
    """

    name: str


def is_union(type_: object) -> bool:
    """Say whether a type is written `A | B`."""
    return get_origin(type_) in (Union, types.UnionType)


def kind_of(type_: object) -> str:
    """Return which kind of part a field of *type_* holds, or nothing if it holds none."""
    marks = get_args(type_)[1:] if get_origin(type_) is Annotated else ()
    return next((mark.name for mark in marks if isinstance(mark, Kind)), "")


def type_text(type_: object) -> str:
    """Return what may stand in a field of *type_*."""
    if kind_of(type_):
        return f"a table with the 'kind' of {kind_of(type_)}"
    origin, arguments = get_origin(type_), get_args(type_)
    if is_union(type_):
        return " or ".join(type_text(member) for member in arguments if member is not types.NoneType)
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(show, arguments))
    if origin is tuple:
        if arguments[-1] is not ...:
            return f"list of {len(arguments)} ({', '.join(map(type_text, arguments))})"
        return f"list of {type_text(arguments[0])}"
    if origin is dict:
        return f"table of {type_text(arguments[1])}"
    if isinstance(type_, type) and has(type_):
        return f"table ({type_.__name__})"
    return "any value" if type_ is UNTYPED else str(getattr(type_, "__name__", type_))


def rules(validator: Any) -> list[str]:
    """Return what attrs' own validators ask for, in words; an empty string stands for one that does not tell."""
    if hasattr(validator, "_validators"):  # and_
        return [rule for inner in validator._validators for rule in rules(inner)]  # noqa: SLF001 - attrs has no other way
    if hasattr(validator, "compare_op"):  # ge, gt, le, lt
        return [f"{validator.compare_op} {show(validator.bound)}"]
    if hasattr(validator, "options"):  # in_
        return [f"one of {', '.join(map(show, validator.options))}"]
    if hasattr(validator, "min_length"):
        return [f"at least {validator.min_length} long"]
    if hasattr(validator, "max_length"):
        return [f"at most {validator.max_length} long"]
    if hasattr(validator, "member_validator"):  # deep_iterable
        outer = rules(validator.iterable_validator) if validator.iterable_validator else []
        return [*outer, *(rule and f"{rule} for each item" for rule in rules(validator.member_validator))]
    if type(validator).__name__ == "_OptionalValidator":
        return rules(validator.validator)
    return [""]
