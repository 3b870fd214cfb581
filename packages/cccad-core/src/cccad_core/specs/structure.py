"""From plain data to a spec: strictly, and with every mistake reported at once."""

import types
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args, get_origin

from attrs import NOTHING, Attribute, AttrsInstance, fields, has

from cccad_core.errors import BrokenPart, SpecError, nearest
from cccad_core.registry import REGISTRY, Registry, hints_of
from cccad_core.specs.field_types import UNTYPED, is_union, kind_of, rules, type_text
from cccad_core.specs.plain import plain_value
from cccad_core.specs.toml import Table, key_text, override, read, show

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")
Matches = Callable[[type], bool]
Hook = Callable[[Any, Any], object]
Problems = list[tuple[str, str]]
_MISTAKES = (ValueError, TypeError, LookupError)
_LARGEST = 1e30  # of real numbers: 32 bits hold their squares neither, but results and messages can show them
_SCALARS = (bool, int, float, str)


def load(
    path: str | Path,
    cls: type[T],
    overrides: Iterable[str] = (),
    relative_to: str | Path | None = None,
    registry: Registry = REGISTRY,
    *,
    is_bundle: bool = False,
    trust_plugins: bool = True,
) -> T:
    """Return the spec in the TOML file *path*, after *overrides* such as `train.num_updates=200` and its `imports`.

    `imports` lists Python files with plugins, relative to *relative_to*, by default the folder of the spec; it stays in
    the spec if *cls* has a field of that name. Where the spec *is_bundle*, one that came with its plugins in a folder,
    they must lie there, and run only if the caller says *trust_plugins*; an earlier version may have written it, with
    fields where they were then. Raises SpecError with every problem, and
    UntrustedPlugin.
    """
    data = read(Path(path))
    if is_bundle:
        data = with_moved(data, cls, registry)
    problems: Problems = []
    cause: Exception | None = None
    for text in overrides:
        try:
            override(data, text)
        except SpecError as error:
            problems += error.problems
    imports = data.get("imports", [])
    if isinstance(imports, list) and all(isinstance(file, str) for file in imports):
        if all(attribute.alias != "imports" for attribute in fields(cast("Any", cls))):
            data.pop("imports", None)
        for i, file in enumerate(imports):
            folder = Path(path).parent if relative_to is None else relative_to
            try:
                if is_bundle:
                    registry.import_bundled(file, folder, trusted=trust_plugins)
                else:
                    registry.import_file(file, folder)
            except BrokenPart as error:
                problems.append((f"imports[{i}]", str(error)))
                cause = cause or error
    try:
        spec = structure(data, cls, registry=registry)
    except SpecError as error:
        others = [each for each in error.problems if cause is None or not each[1].startswith("there is no ")]
        raise SpecError(problems + others, str(path)) from cause or error.__cause__
    if problems:
        raise SpecError(problems, str(path)) from cause
    return spec


def with_moved(data: Mapping[str, object], cls: type, registry: Registry = REGISTRY) -> Table:
    """Return *data*, which an earlier version wrote for a spec of *cls*, with every field where it is now.

    Where fields have moved to is the class's `MOVED`: dotted paths by dotted paths. A table that a field moved into,
    and that is not there, is begun with the defaults of its spec. What was the name of a choice and is a part now has
    that name as its kind.
    """
    moved = dict(data)
    if not has(cls):
        return moved
    hints = hints_of(cls)
    for old, new in getattr(cls, "MOVED", {}).items():
        if (value := _take(moved, old)) is not NOTHING:
            table, _, inner = new.partition(".")
            if inner and table not in moved:
                default = next(attribute.default for attribute in fields(cls) if attribute.alias == table)
                moved[table] = plain_value(default.factory(), hints[table], registry)
            _put(moved, new, value)
    for name in moved.keys() & hints.keys():
        moved[name] = _inner_with_moved(moved[name], hints[name], registry)
    return moved


def _inner_with_moved(value: object, type_: object, registry: Registry) -> object:
    """Return the *value* of a field of *type_* with every field in it where it is now."""
    if kind := kind_of(type_):
        part = {"kind": value} if isinstance(value, str) else value
        if not isinstance(part, Mapping):
            return part
        try:
            return with_moved(part, registry.lookup(kind, part["kind"]), registry)
        except (TypeError, LookupError, BrokenPart):  # what is wrong is said where the whole is structured
            return part
    members = (type_, *get_args(type_))  # perhaps a table of such specs
    inner_class = next((member for member in members if isinstance(member, type) and has(member)), None)
    if inner_class is None or not isinstance(value, Mapping):
        return value
    if get_origin(type_) is not dict:
        return with_moved(value, inner_class, registry)
    return {
        key: with_moved(item, inner_class, registry) if isinstance(item, Mapping) else item
        for key, item in value.items()
    }


def _take(table: Table, path: str) -> object:
    """Take what stands at *path* out of *table*, whose inner tables are copied for it; NOTHING where nothing does."""
    name, _, rest = path.partition(".")
    if not rest:
        return table.pop(name, NOTHING)
    if not isinstance(below := table.get(name), Mapping):
        return NOTHING
    inner = dict(below)
    value = _take(inner, rest)
    table[name] = inner
    if value is not NOTHING and not inner:
        del table[name]
    return value


def _put(table: Table, path: str, value: object) -> None:
    """Put *value* at *path* into *table*; what was the name of a choice on the way becomes a part of that kind."""
    name, _, rest = path.partition(".")
    if not rest:
        table[name] = value
        return
    above = table.get(name, {})
    if isinstance(above, str | Mapping):  # else what is wrong is said where the whole is structured
        inner: Table = {"kind": above} if isinstance(above, str) else dict(above)
        _put(inner, rest, value)
        table[name] = inner


def structure(data: Mapping[str, object], cls: type[T], source: str = "", registry: Registry = REGISTRY) -> T:
    """Return the *cls* that plain *data*, as read from TOML, describes.

    Raises SpecError with every problem and its path in *data*; *source* says where *data* came from.
    """
    try:
        return _converter(registry).structure(data, cls)
    except SpecError as error:
        raise SpecError(error.problems, source) from error.__cause__


@lru_cache(maxsize=8)
def _converter(registry: Registry) -> "Converter":
    """Return a cattrs converter that never coerces; its hooks raise SpecError, with paths below their own value."""
    from cattrs import Converter  # takes 30 ms

    converter = Converter()
    hooks: list[tuple[Matches, Hook]] = [  # the later goes before the earlier
        (lambda _: True, _refuse),
        (lambda type_: type_ is UNTYPED, lambda data, _: data),
        (has, lambda data, cls: _structure_class(data, cls, converter)),
        (lambda type_: get_origin(type_) is tuple, lambda data, type_: _structure_list(data, type_, converter)),
        (lambda type_: get_origin(type_) is dict, lambda data, type_: _structure_table(data, type_, converter)),
        (lambda type_: get_origin(type_) is Literal, _structure_literal),
        (is_union, lambda data, type_: _structure_union(data, type_, converter)),
        (lambda type_: kind_of(type_) != "", lambda data, type_: _structure_part(data, type_, converter, registry)),
    ]
    for matches, hook in hooks:
        converter.register_structure_hook_func(matches, hook)
    for scalar in _SCALARS:
        converter.register_structure_hook(scalar, _structure_scalar)
    return converter


def _refuse(_: object, type_: object) -> object:
    raise TypeError(
        f"a spec cannot have a field of type {type_}; use a scalar, tuple, dict, Literal, attrs class or Kind"
    )


def _expected(type_: object, data: object) -> SpecError:
    return SpecError([("", f"expected {type_text(type_)}, got {show(data)}")])


def _structure_each(items: Iterable[tuple[str, object, Any]], converter: "Converter") -> tuple[list[object], Problems]:
    """Return the values of (key, data, type) triples that are right, and the problems of the others."""
    values: list[object] = []
    problems: Problems = []
    for key, data, type_ in items:
        try:
            values.append(converter.structure(data, type_))
        except SpecError as error:
            for path, message in error.problems:
                problems.append((f"{key}{'.' if path and path[0] != '[' else ''}{path}", message))
    return values, problems


def _structure_scalar(data: object, type_: object) -> object:
    if type_ is float and type(data) is int and abs(data) < 2**1023:
        return float(data)
    if type(data) is not type_:
        raise _expected(type_, data)
    if type(data) is float and not abs(data) <= _LARGEST:  # also for NaN
        raise SpecError([("", f"expected a number between -{_LARGEST:g} and {_LARGEST:g}, got {show(data)}")])
    return data


def _structure_literal(data: object, type_: object) -> object:
    if not any(type(data) is type(choice) and data == choice for choice in get_args(type_)):
        near = nearest(data, [c for c in get_args(type_) if isinstance(c, str)]) if isinstance(data, str) else None
        hint = f" (did you mean '{near}'?)" if near else ""
        raise SpecError([("", f"expected {type_text(type_)}, got {show(data)}{hint}")])
    return data


def _structure_list(data: object, type_: object, converter: "Converter") -> tuple[object, ...]:
    items = get_args(type_)
    if not isinstance(data, list | tuple) or (items[-1] is not ... and len(items) != len(data)):
        raise _expected(type_, data)
    item_types = items if items[-1] is not ... else items[:1] * len(data)
    triples = ((f"[{i}]", item, item_type) for i, (item, item_type) in enumerate(zip(data, item_types, strict=True)))
    values, problems = _structure_each(triples, converter)
    if problems:
        raise SpecError(problems)
    return tuple(values)


def _structure_table(data: object, type_: object, converter: "Converter") -> Table:
    if not isinstance(data, Mapping):
        raise _expected(type_, data)
    item_type = get_args(type_)[1]
    values, problems = _structure_each(((key_text(key), item, item_type) for key, item in data.items()), converter)
    if problems:
        raise SpecError(problems)
    return dict(zip(data, values, strict=True))


def _structure_union(data: object, type_: object, converter: "Converter") -> object:
    members = [member for member in get_args(type_) if member is not types.NoneType]
    if data is None and len(members) < len(get_args(type_)):
        return None
    if len(members) == 1:
        return converter.structure(data, members[0])
    for member in members:
        try:
            return converter.structure(data, member)
        except SpecError:
            continue
    raise _expected(type_, data)


def _structure_part(data: object, type_: object, converter: "Converter", registry: Registry) -> object:
    kind = kind_of(type_)
    if not isinstance(data, Mapping):
        hint = f"; write {{ kind = {show(data)} }}" if isinstance(data, str) else ""
        raise SpecError([("", f"expected a table with the 'kind' of {kind}, got {show(data)}{hint}")])
    if "kind" not in data:
        raise SpecError([("", f"required field 'kind' missing; known: {', '.join(registry.names(kind))}")])
    if not isinstance(data["kind"], str):
        raise SpecError([("kind", f"expected str, got {show(data['kind'])}")])
    try:
        cls = registry.lookup(kind, data["kind"])
    except LookupError as error:
        raise SpecError([("kind", str(error))]) from error
    return converter.structure({key: value for key, value in data.items() if key != "kind"}, cls)


def _structure_class(data: object, cls: type[AttrsInstance], converter: "Converter") -> object:
    if not isinstance(data, Mapping):
        raise SpecError([("", f"expected a table, got {show(data)}")])
    by_name = {attribute.alias: attribute for attribute in fields(cls) if attribute.init}
    problems: Problems = []
    try:
        hints = hints_of(cls)
    except BrokenPart as error:
        raise SpecError([("", str(error))]) from error
    rest, moved = dict(data), getattr(cls, "MOVED", {})
    gone = [old for old in moved if old.partition(".")[0] not in by_name and _take(rest, old) is not NOTHING]
    problems += [("", f"the field '{old}' is now '{moved[old]}'") for old in gone]
    for key in (key for key in rest if key not in by_name):
        near = nearest(key, by_name)
        problems.append(("", f"extra field '{key}'" + (f" (did you mean '{near}'?)" if near else "")))
    values: Table = {}
    for key, attribute in by_name.items():
        if key in data:
            good, bad = _structure_each([(key_text(key), data[key], hints.get(attribute.name, UNTYPED))], converter)
            values.update(zip([key], good, strict=False))
            problems += bad
        elif attribute.default is NOTHING:
            hint = attribute.metadata.get("write", "")
            problems.append(("", f"required field '{key}' missing{hint and f'; write {hint}'}"))
    problems += _violations(cls, [(by_name[key], value) for key, value in values.items()])
    if problems:
        raise SpecError(problems)
    try:
        return cls(**values)
    except _MISTAKES as error:  # a check that looks at several fields
        raise SpecError([("", _sentence(error))]) from error


def _violations(cls: type[AttrsInstance], values: "list[tuple[Attribute[object], object]]") -> Problems:
    """Return what all the validators of the given fields say; the constructor would stop at the first."""
    bare = cls.__new__(cls)
    for attribute, value in values:
        object.__setattr__(bare, attribute.name, value)
    problems = []
    for attribute, value in values:
        if attribute.validator is None or attribute.converter is not None:
            continue
        try:
            attribute.validator(bare, attribute, value)
        except AttributeError:  # it looks at a field that is missing or wrong; the constructor asks it again
            continue
        except _MISTAKES as error:
            limits = rules(attribute.validator)
            text = (
                f"'{attribute.alias}' must be {' and '.join(limits)}: {show(plain_value(value))}" if all(limits) else ""
            )
            problems.append(("", text or _sentence(error)))
    return problems


def _sentence(error: Exception) -> str:
    return str(error.args[0]) if error.args and isinstance(error.args[0], str) else str(error)
