"""A registry maps a kind and a name to a spec class; nothing is imported before it is named.

Parts join through entry points (`cccad.compressor`, ...), so a package offers its names without importing this module;
through the decorator `register`; or from a single file through `import_file`.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

from attrs import evolve, fields_dict, frozen, has

from cccad_core.errors import BrokenPart, DuplicatePart, UnknownPart, UntrustedPlugin, no_such, reason

KINDS: Final = (
    "memory",
    "compressor",
    "tokens",
    "encoder",
    "head",
    "objective",
    "trigger",
    "curriculum",
    "env",
    "source",
    "executor",
)
OURS: Final = frozenset({"cccad-core", "cccad-data", "cccad-envs", "cccad-train"})
_OFFERS: Final = {
    "compressor": ("num_latents",),
    "memory": ("check",),
    "tokens": ("slots",),
    "encoder": ("takes",),
    "head": ("takes",),
    "objective": ("agents", "takes", "weights"),
    "trigger": ("by_row", "limits", "is_due"),
    "source": ("num_envs", "env_steps", "tasks_per_unit"),
}
"""What the spec class of a part must have, as a field or otherwise, besides `build`."""
Cls = TypeVar("Cls", bound=type)


@frozen(kw_only=True)
class Entry:
    """One registered part: who offers it, and as what.

    `distribution` and `version` name the package; for a file they are its name and the first 8 hex digits of its
    SHA-256, and for a class registered in code its module and nothing. `value` is `module:Class`. `error` is the
    sentence that says why the part cannot be used, or None; only `entries` fills it in.
    """

    name: str
    kind: str
    distribution: str
    version: str
    value: str
    error: str | None = None

    @property
    def is_ours(self) -> bool:
        """Say whether the part comes with cccad itself."""
        return self.distribution in OURS

    @property
    def title(self) -> str:
        """Return what to call the part in a sentence: its kind, its name and who offers it."""
        return f"the {_kind_text(self.kind)} '{self.name}' of {self.distribution} {self.version}".rstrip()


class Registry:
    """The parts that are installed, and those registered in this process; the module's functions share one."""

    def __init__(self) -> None:
        self._installed: dict[tuple[str, str], list[Entry]] | None = None
        self._in_code: dict[tuple[str, str], dict[str, type]] = {}
        self._files: dict[Path, tuple[str, Entry]] = {}

    def lookup(self, kind: str, name: str) -> type[Any]:
        """Return the spec class of a part, importing its module and no other.

        Raises UnknownPart with the near and the known names; DuplicatePart if two distributions offer the name;
        BrokenPart with the distribution and the cause if it cannot be imported or is no spec class.
        """
        entry = self.entry(kind, name)
        cls = self._load(entry)
        try:
            hints_of(cls)
        except BrokenPart as error:
            raise BrokenPart(f"{entry.title} cannot be used: {error}") from error
        return cls

    def title(self, cls: type, kind: str) -> str:
        """Return what to call a spec class of *kind* in a sentence."""
        try:
            return self.entry(*self.name_of(cls, kind)).title
        except LookupError:
            return f"the {_kind_text(kind)} {cls.__qualname__}"

    def refuse_what_lacks(self, spec: Any, kind: str) -> None:
        """Raise BrokenPart, naming all that is missing, where a *spec* has not what every part of its *kind* has."""
        missing = [name for name in (*_OFFERS.get(kind, ()), "build") if not hasattr(spec, name)]
        if missing:
            texts = ["the method 'build'" if name == "build" else f"the field or property '{name}'" for name in missing]
            title = self.title(type(spec), kind)
            raise BrokenPart(f"{title} lacks {' and '.join(texts)} that every {_kind_text(kind)} has")

    def names(self, kind: str) -> list[str]:
        """Return the registered names of *kind*, sorted, importing nothing."""
        self._check_kind(kind)
        return sorted({name for k, name in (*self._scan(), *self._in_code) if k == kind})

    def entries(self, kind: str, *, check: bool = True) -> list[Entry]:
        """Return every part of *kind* in order of name; one that is broken or offered twice says so in `error`.

        With *check* each part is imported to see whether it works.
        """
        listed = []
        for name in self.names(kind):
            offers = self._offers(kind, name)
            error = None
            try:
                if check or len(offers) > 1:
                    self.lookup(kind, name)
            except (BrokenPart, DuplicatePart) as broken:
                error = str(broken)
            listed += [evolve(offer, error=error) for offer in offers]
        return listed

    def owners(self, module: str) -> list[Entry]:
        """Return the parts, if they are not ours, whose code *module* belongs to: those of its file or its package."""
        offers = [offer for kind, name in (*self._scan(), *self._in_code) for offer in self._offers(kind, name)]
        homes = [(offer, offer.value.partition(":")[0]) for offer in offers if not offer.is_ours]
        packages = [(offer, home.partition(".")[0] if "." in home else home) for offer, home in homes]
        return list(dict.fromkeys(offer for offer, package in packages if f"{module}.".startswith(f"{package}.")))

    def register(self, kind: str, name: str) -> Callable[[Cls], Cls]:
        """Return a decorator that registers an attrs class as the part *name* of *kind*."""
        self._check_kind(kind)

        def decorate(cls: Cls) -> Cls:
            _check_is_spec(cls, f"the {kind} '{name}'")
            self._in_code.setdefault((kind, name), {})[_value(cls)] = cls
            return cls

        return decorate

    def name_of(self, cls: type, kind: str | None = None) -> tuple[str, str]:
        """Return the (kind, name) under which *cls* is registered; *kind* narrows it down if there are several.

        Raises UnknownPart if it is not registered.
        """
        for key, classes in sorted(self._in_code.items()):
            if cls in classes.values() and kind in (None, key[0]):
                return key
        for key, offers in sorted(self._scan().items()):
            if kind in (None, key[0]) and any(offer.value == _value(cls) or _loaded(offer) is cls for offer in offers):
                return key
        raise UnknownPart(f"the class {_value(cls)} is registered under no name as {kind or 'any kind of part'}")

    def import_file(self, path: str | Path, relative_to: str | Path = ".") -> None:
        """Bring in the parts that one Python file registers; a file that is already in, or a copy of it, adds nothing.

        Raises BrokenPart if there is no such file or it fails to run; then nothing of it stays registered.
        """
        import hashlib
        from importlib.util import module_from_spec, spec_from_file_location

        file = (Path(relative_to) / path).resolve()
        if file in self._files:
            return
        if not file.is_file() or file.suffix != ".py":
            problem = "is no Python file (*.py)" if file.exists() else "does not exist"
            raise BrokenPart(f"the plugin file '{path}' {problem}; it is looked for in '{relative_to}'")
        version = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
        if (twin := self._twin(file.name, version)) is not None:  # a copy, beside a run's policy
            self._files[file] = twin
            return
        module_name = f"{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
        module_spec = spec_from_file_location(module_name, file)
        assert module_spec is not None
        assert module_spec.loader is not None
        module = module_from_spec(module_spec)
        sys.modules[module_name] = module
        before = sum(map(len, self._in_code.values()))
        try:
            module_spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[module_name]
            self._forget(module_name)
            raise BrokenPart(f"the plugin file '{path}' failed to import: {reason(error)}") from error
        if sum(map(len, self._in_code.values())) == before:
            raise BrokenPart(
                f"the plugin file '{path}' registers no part; put @register(KIND, NAME) above a spec class in it"
            )
        self._files[file] = (module_name, Entry(name="", kind="", distribution=file.name, version=version, value=""))

    def import_bundled(self, name: str, folder: str | Path, *, trusted: bool) -> None:
        """Bring in a Python file of a *folder* that somebody may have handed on; it runs only if it is *trusted*.

        A copy of a file that is in already needs no trust, for it adds nothing. Raises UntrustedPlugin, and BrokenPart
        unless *name* is that of a file which lies in the folder itself, links followed.
        """
        import hashlib

        place = Path(folder).resolve()
        file = (place / name).resolve()
        if Path(name).name != name or file.parent != place:
            raise BrokenPart(f"a plugin that came with {place} must be a file in that folder, not '{name}'")
        if not trusted and file.is_file():
            version = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
            if file not in self._files and self._twin(file.name, version) is None:
                raise UntrustedPlugin([("", _untrusted(file.name, version))], str(place))
        self.import_file(name, place)

    def _twin(self, name: str, version: str) -> tuple[str, Entry] | None:
        """Return the plugin that is in already and has the same file name and content."""
        same = (twin for twin in self._files.values() if (twin[1].distribution, twin[1].version) == (name, version))
        return next(same, None)

    def distributions(self, kinds_names: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return {distribution: version} of all that supplied the given (kind, name) pairs, as in Entry."""
        offered = (self.entry(kind, name) for kind, name in kinds_names)
        return dict(sorted((entry.distribution, entry.version) for entry in offered))

    def _check_kind(self, kind: str) -> None:
        if kind not in KINDS:
            raise UnknownPart(no_such("kind of part", kind, KINDS))

    def _scan(self) -> dict[tuple[str, str], list[Entry]]:
        """Return what the installed distributions offer, read once from their metadata alone."""
        if self._installed is None:
            from importlib.metadata import entry_points  # takes 40 ms

            self._installed = {}
            everything = entry_points()
            for kind in KINDS:
                for point in everything.select(group=f"cccad.{kind}"):
                    offer = Entry(
                        name=point.name,
                        kind=kind,
                        distribution=(point.dist and point.dist.metadata["Name"]) or "unknown",
                        version=(point.dist and point.dist.metadata["Version"]) or "unknown",
                        value=point.value,
                    )
                    self._installed.setdefault((kind, point.name), []).append(offer)
        return self._installed

    def _offers(self, kind: str, name: str) -> list[Entry]:
        files = dict(self._files.values())
        in_code = []
        for value, cls in self._in_code.get((kind, name), {}).items():
            bare = Entry(name="", kind="", distribution=cls.__module__, version="", value="")
            in_code.append(evolve(files.get(cls.__module__, bare), name=name, kind=kind, value=value))
        return [*self._scan().get((kind, name), []), *in_code]

    def entry(self, kind: str, name: str) -> Entry:
        """Return who offers a part, importing nothing; raises UnknownPart and DuplicatePart, as `lookup` does."""
        self._check_kind(kind)
        offers = self._offers(kind, name)
        if not offers:
            raise UnknownPart(no_such(_kind_text(kind), name, self.names(kind)))
        if len(offers) > 1:
            who = " and ".join(f"{offer.distribution} ({offer.value})" for offer in offers)
            raise DuplicatePart(f"the {kind} '{name}' is offered more than once, by {who}; keep one of them")
        return offers[0]

    def _load(self, entry: Entry) -> type[Any]:
        in_code = self._in_code.get((entry.kind, entry.name), {})
        if entry.value in in_code:
            return in_code[entry.value]
        from importlib.metadata import EntryPoint

        what = entry.title
        try:
            cls = EntryPoint(name=entry.name, value=entry.value, group=f"cccad.{entry.kind}").load()
        except (Exception, SystemExit) as error:
            raise BrokenPart(f"{what} cannot be imported from {entry.value}: {reason(error)}") from error
        _check_is_spec(cls, what)
        return cls  # type: ignore[no-any-return]

    def _forget(self, module_name: str) -> None:
        for key, classes in list(self._in_code.items()):
            kept = {value: cls for value, cls in classes.items() if cls.__module__ != module_name}
            if kept:
                self._in_code[key] = kept
            else:
                del self._in_code[key]


def hints_of(cls: type) -> dict[str, Any]:
    """Return the types of a spec class's fields by name; raises BrokenPart where an annotation cannot be read."""
    try:
        return get_type_hints(cls, include_extras=True)
    except Exception as error:
        problem = f"the types of the fields of {cls.__qualname__} cannot be read: {reason(error)}"
        raise BrokenPart(f"{problem}; import what they need when the program runs, too") from error


def _untrusted(name: str, version: str) -> str:
    return (
        f"the plugin file '{name}' ({version}) came with this folder and would be run as a program; "
        "read it, and if you trust it say so: --trust-plugins on the command line, trust_plugins=True in Python"
    )


def _value(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _loaded(entry: Entry) -> object:
    """Return what *entry* points to if its module has been imported already, else None."""
    module, _, name = entry.value.partition(":")
    return getattr(sys.modules.get(module), name, None)


def _kind_text(kind: str) -> str:
    return "token layout" if kind == "tokens" else kind


def _check_is_spec(cls: object, what: str) -> None:
    if not (isinstance(cls, type) and has(cls)):
        raise BrokenPart(f"{what} must be an attrs class (put @register above @frozen): it is {cls!r}")
    if "kind" in fields_dict(cls):
        raise BrokenPart(f"{what} must not have a field 'kind', which names the part in a spec")


REGISTRY: Final = Registry()
lookup = REGISTRY.lookup
names = REGISTRY.names
entries = REGISTRY.entries
entry = REGISTRY.entry
title = REGISTRY.title
refuse_what_lacks = REGISTRY.refuse_what_lacks
register = REGISTRY.register
name_of = REGISTRY.name_of
import_file = REGISTRY.import_file
distributions = REGISTRY.distributions
