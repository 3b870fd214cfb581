"""A space says what an observation or an action is, in plain words that travel through files."""

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from operator import index
from typing import Any

from attrs import Attribute, asdict, field, fields, frozen

from cccad_core.errors import SpaceError, nearest


def _whole(value: Any) -> int:
    """Return *value* as an int if it is a whole number (NumPy's too) and not a truth value."""
    if isinstance(value, bool):
        raise SpaceError(f"expected a whole number in a space, got {value}")
    try:
        return index(value)
    except TypeError:
        raise SpaceError(f"expected a whole number in a space, got {value!r}") from None


def _wholes(values: Any) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise SpaceError(f"expected a list of whole numbers in a space, got {values!r}")
    return tuple(_whole(value) for value in values)


def _bound(value: Any, unbounded: float) -> float | tuple[float, ...]:
    """Return a bound as one float, or as a flat tuple of floats, row-major, if *value* is a (nested) list.

    None, which JSON has and infinity it has not, stands for *unbounded*.
    """
    if isinstance(value, list | tuple):
        flat: list[float] = []
        for part in value:
            bound = _bound(part, unbounded)
            flat.extend(bound if isinstance(bound, tuple) else [bound])
        return tuple(flat)
    if value is None:
        return unbounded
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
        raise SpaceError(f"expected a number or a list of numbers as a bound of a box, got {value!r}")
    return float(value)


def _low(value: Any) -> float | tuple[float, ...]:
    return _bound(value, -math.inf)


def _high(value: Any) -> float | tuple[float, ...]:
    return _bound(value, math.inf)


def _at_least_one(space: Any, attribute: "Attribute[Any]", value: Any) -> None:
    sizes = value if isinstance(value, tuple) else (value,)
    if not sizes or min(sizes) < 1:
        raise SpaceError(f"'{attribute.name}' of a {space.kind} space must be at least 1 everywhere: {value}")


@frozen
class Discrete:
    """One of `n` choices, numbered from 0."""

    kind = "discrete"
    n: int = field(converter=_whole, validator=_at_least_one)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of choices of each feature: `(n,)`."""
        return (self.n,)

    @property
    def num_features(self) -> int:
        """How many numbers one value is: 1."""
        return 1


@frozen
class MultiDiscrete:
    """Several choices at once; feature i is one of `sizes[i]`, numbered from 0."""

    kind = "multi-discrete"
    sizes: tuple[int, ...] = field(converter=_wholes, validator=_at_least_one)

    @property
    def num_features(self) -> int:
        """How many numbers one value is, `o`."""
        return len(self.sizes)


@frozen
class Box:
    """Real numbers of a fixed shape between bounds.

    A bound is one number for all, or one number for each feature in row-major order; it may be infinite, for which a
    plain dictionary has None. A feature whose bounds are equal never changes.
    """

    kind = "box"
    shape: tuple[int, ...] = field(converter=_wholes)
    low: float | tuple[float, ...] = field(converter=_low)
    high: float | tuple[float, ...] = field(converter=_high)

    @property
    def num_features(self) -> int:
        """How many numbers one value is, `o`: the product of the shape."""
        return math.prod(self.shape)

    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return (low, high), each with one number for each feature."""
        count = self.num_features
        low, high = (bound if isinstance(bound, tuple) else (bound,) * count for bound in (self.low, self.high))
        return low, high

    def __attrs_post_init__(self) -> None:
        """Check that the bounds fit the shape and one another."""
        if self.shape and min(self.shape) < 1:
            raise SpaceError(f"'shape' of a box space must be at least 1 everywhere: {self.shape}")
        low, high = self.bounds()
        for name, bound in (("low", low), ("high", high)):
            if len(bound) != self.num_features:
                wanted = f"one number or {self.num_features}, as its shape is {self.shape}"
                raise SpaceError(f"'{name}' of a box space must hold {wanted}: it holds {len(bound)}")
        if not all(a <= b and a < math.inf and b > -math.inf for a, b in zip(low, high, strict=True)):
            bounds = f"low {self.low!s:.80}, high {self.high!s:.80}"
            raise SpaceError(f"'low' of a box space must not be above 'high' anywhere: {bounds}")


Space = Discrete | MultiDiscrete | Box
_CLASSES: dict[str, type[Discrete] | type[MultiDiscrete] | type[Box]] = {
    cls.kind: cls for cls in (Discrete, MultiDiscrete, Box)
}


def from_dict(data: Mapping[str, Any]) -> Space:
    """Return the space that a plain dictionary such as `{"kind": "discrete", "n": 5}` describes.

    Raises SpaceError if the kind is unknown, a field is missing or extra, or a value is no size or bound.
    """
    if not isinstance(data, Mapping):
        raise SpaceError(f'expected a space such as {{"kind": "discrete", "n": 5}}, got {data!r}')
    kind = data.get("kind")
    cls = _CLASSES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        near = nearest(str(kind), _CLASSES)
        hint = f" Did you mean '{near}'?" if near else ""
        raise SpaceError(f"there is no kind of space named {kind!r}.{hint} Known: {', '.join(_CLASSES)}")
    names, wanted = set(data) - {"kind"}, {attribute.name for attribute in fields(cls)}
    if names != wanted:
        listed = ", ".join(sorted(map(str, names))) or "nothing"
        raise SpaceError(f"a {kind} space has the fields {', '.join(sorted(wanted))}; got {listed}")
    return cls(**{name: data[name] for name in wanted})


def to_dict(space: Space) -> dict[str, Any]:
    """Return the plain dictionary, ready for JSON, from which `from_dict` makes *space* again."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(part) for part in value]
        return None if isinstance(value, float) and math.isinf(value) else value

    return {"kind": space.kind, **{name: plain(value) for name, value in asdict(space).items()}}


@frozen(kw_only=True)
class Spaces:
    """What a family lets an agent observe and do."""

    observation: Space
    action: Space

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Spaces":
        """Build from `{"observation": {...}, "action": {...}}`; raises SpaceError."""
        return cls(observation=from_dict(data["observation"]), action=from_dict(data["action"]))

    def to_dict(self) -> dict[str, Any]:
        """Return the plain dictionary from which `from_dict` makes these spaces again."""
        return {"observation": to_dict(self.observation), "action": to_dict(self.action)}
