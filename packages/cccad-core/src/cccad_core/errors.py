"""The user's mistakes: each error is one clear sentence saying what is wrong, where, and what would be right."""

from collections.abc import Iterable


class CccadError(Exception):
    """The root of every mistake that a user can make and a command should print without a traceback."""


class SpecError(CccadError, ValueError):
    """A spec is wrong; all that is wrong with it, at once.

    `problems` holds (path in the spec, message), with an empty path for what concerns the whole; `source` says where
    the spec came from, such as `experiments/x.toml`, and may be empty.
    """

    def __init__(self, problems: Iterable[tuple[str, str]], source: str = "") -> None:
        self.problems = list(problems)
        self.source = source
        super().__init__(self.problems, source)

    def __str__(self) -> str:
        """One problem is one line; several stand indented under their source."""
        lines = [f"{message} @ {path}" if path else message for path, message in self.problems]
        if not self.source:
            return "\n".join(lines)
        if len(lines) == 1:
            return f"{self.source}: {lines[0]}"
        return "\n  ".join([f"{self.source}:", *lines])


class ArtefactError(SpecError):
    """A released policy cannot be taken as it is: `source` is the file that is wrong, or missing."""


class UntrustedPlugin(ArtefactError):
    """A folder brings Python files of its own, and nobody has said that they may be run."""


class UnknownPart(CccadError, LookupError):
    """A part, or a kind of part, that nobody registered."""


class BrokenPart(CccadError, LookupError):
    """A part that is registered but cannot be brought in: its module fails, or holds no spec."""


class DuplicatePart(CccadError, LookupError):
    """Two distributions registered different parts under one name."""


class SpaceError(CccadError, ValueError):
    """A space that does not describe one."""


class UnfitValueError(CccadError, ValueError):
    """A value that an environment shows or a policy decides lies outside its space, or is no finite number."""


class UnplayableError(CccadError, ValueError):
    """An environment that cannot be played as it is."""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of *names* that *name* was probably meant to be, or None."""
    from difflib import get_close_matches  # only needed once something is wrong

    return next(iter(get_close_matches(name, sorted(names), n=1, cutoff=0.6)), None)


def no_such(what: str, name: str, names: Iterable[str]) -> str:
    """Return the sentence `there is no <what> named '<name>'. Did you mean '<near>'? Known: <all>`."""
    names = sorted(names)
    near = nearest(name, names)
    hint = f" Did you mean '{near}'?" if near else ""
    return f"there is no {what} named '{name}'.{hint} Known: {', '.join(names) if names else 'none'}"


def reason(error: BaseException) -> str:
    """Return an exception as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
