"""A space says what an observation or an action is, in plain words that travel through files.

An element of a space is one row of numbers, `o`: of `dtype_of(space)`, between `ends_of(space)`, and made up of the
space's `leaves_of(space)` (docs/decisions/0011).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from operator import index
from typing import Literal, SupportsIndex, TypeAlias, TypeVar

from attrs import NOTHING, Attribute, field, fields, frozen

from cccad_core.errors import SpaceError, nearest

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A value that JSON can write."""
Sizes = TypeVar("Sizes", int, tuple[int, ...])
BoxDtype = Literal["float32", "uint8"]


def _whole(value: object) -> int:
    """Return *value* as an int if it is a whole number (NumPy's too) and not a truth value."""
    if isinstance(value, bool):
        raise SpaceError(f"expected a whole number in a space, got {value}")
    if isinstance(value, SupportsIndex):
        with suppress(TypeError):  # an array of several numbers
            return index(value)
    raise SpaceError(f"expected a whole number in a space, got {value!r}")


def _wholes(values: object) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise SpaceError(f"expected a list of whole numbers in a space, got {values!r}")
    return tuple(_whole(value) for value in values)


def _bound(value: object, unbounded: float) -> float | tuple[float, ...]:
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


def _low(value: object) -> float | tuple[float, ...]:
    return _bound(value, -math.inf)


def _high(value: object) -> float | tuple[float, ...]:
    return _bound(value, math.inf)


def _at_least_one(space: "Discrete | MultiDiscrete", attribute: "Attribute[Sizes]", value: Sizes) -> None:
    sizes = value if isinstance(value, tuple) else (value,)
    if not sizes or min(sizes) < 1:
        raise SpaceError(f"'{attribute.name}' of a {space.kind} space must be at least 1 everywhere: {value}")


def _a_dtype(value: object) -> BoxDtype:
    if value == "float32":
        return "float32"
    if value == "uint8":
        return "uint8"
    raise SpaceError(f"'dtype' of a box space must be float32 or uint8: {value!r:.80}")


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
    plain dictionary has None. A feature whose bounds are equal never changes. Images are of *dtype* uint8.
    """

    kind = "box"
    shape: tuple[int, ...] = field(converter=_wholes)
    low: float | tuple[float, ...] = field(converter=_low)
    high: float | tuple[float, ...] = field(converter=_high)
    dtype: BoxDtype = field(default="float32", converter=_a_dtype)

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
        bounds = f"low {self.low!s:.80}, high {self.high!s:.80}"
        if not all(a <= b and a < math.inf and b > -math.inf for a, b in zip(low, high, strict=True)):
            raise SpaceError(f"'low' of a box space must not be above 'high' anywhere: {bounds}")
        if self.dtype == "uint8" and not all(float(end).is_integer() and 0 <= end <= 255 for end in low + high):
            raise SpaceError(f"the bounds of a box space of uint8 must be whole numbers from 0 to 255: {bounds}")


def _named_parts(value: object) -> "tuple[tuple[str, Space], ...]":
    """Return the parts of a mapping, or pairs, in the order of their names."""
    if not isinstance(value, Mapping | tuple | list):
        raise SpaceError(f"expected parts by name in a dict space, got {value!r:.80}")
    pairs = tuple(value.items() if isinstance(value, Mapping) else map(tuple, value))
    for name, part in pairs:
        if not isinstance(name, str) or not name or "/" in name:
            raise SpaceError(f"a part of a dict space needs a name, without '/': {name!r:.80}")
        _check_part(part)
    return tuple(sorted(pairs))


def _parts(value: object) -> "tuple[Space, ...]":
    if not isinstance(value, tuple | list):
        raise SpaceError(f"expected a list of parts in a tuple space, got {value!r:.80}")
    for part in value:
        _check_part(part)
    return tuple(value)


def _check_part(part: object) -> None:
    if not isinstance(part, Discrete | MultiDiscrete | Box | Dict | Tuple):
        raise SpaceError(f"a part of a space must be a space, got {part!r:.80}")


def _not_empty(space: "Dict | Tuple", _attribute: "Attribute[object]", value: object) -> None:
    if not value:
        raise SpaceError(f"a {space.kind} space must have parts")


@frozen
class Dict:
    """Parts by name, each a space, in the order of their names."""

    kind = "dict"
    parts: "tuple[tuple[str, Space], ...]" = field(converter=_named_parts, validator=_not_empty)

    @property
    def num_features(self) -> int:
        """How many numbers one value is, `o`."""
        return sum(part.num_features for _, part in self.parts)


@frozen
class Tuple:
    """Parts in an order, each a space."""

    kind = "tuple"
    parts: "tuple[Space, ...]" = field(converter=_parts, validator=_not_empty)

    @property
    def num_features(self) -> int:
        """How many numbers one value is, `o`."""
        return sum(part.num_features for part in self.parts)


LeafSpace = Discrete | MultiDiscrete | Box
Space = LeafSpace | Dict | Tuple
_CLASSES: dict[str, type[Space]] = {cls.kind: cls for cls in (Discrete, MultiDiscrete, Box, Dict, Tuple)}


@frozen
class Leaf:
    """One leaf of a space: where it stands among the parts, what it is, and its slice of a row."""

    path: str
    space: LeafSpace
    start: int

    @property
    def slice(self) -> slice:
        """Which numbers of a row are its own."""
        return slice(self.start, self.start + self.space.num_features)


def leaves_of(space: Space) -> tuple[Leaf, ...]:
    """Return the leaves of *space* in the order of a row; a space without parts is its own, at the path ''."""
    if isinstance(space, LeafSpace):
        return (Leaf("", space, 0),)
    named = space.parts if isinstance(space, Dict) else [(str(i), part) for i, part in enumerate(space.parts)]
    leaves: list[Leaf] = []
    start = 0
    for name, part in named:
        inner = leaves_of(part)
        leaves += [Leaf(f"{name}/{leaf.path}".rstrip("/"), leaf.space, start + leaf.start) for leaf in inner]
        start += part.num_features
    return tuple(leaves)


Dtype = Literal["int64", "uint8", "float32"]


def dtype_of(space: Space) -> Dtype:
    """Return the type of a row of *space*: the smallest of three that holds every leaf; discrete alone it is int64.

    Raises SpaceError where a discrete leaf beside real ones has more choices than float32 holds.
    """
    leaves = [leaf.space for leaf in leaves_of(space)]
    boxes = [leaf for leaf in leaves if isinstance(leaf, Box)]
    if not boxes:
        return "int64"
    most = max((max(leaf.sizes) for leaf in leaves if not isinstance(leaf, Box)), default=0)
    if all(box.dtype == "uint8" for box in boxes) and most <= 256:
        return "uint8"
    if most > 2**24:
        raise SpaceError(f"beside real numbers a discrete part may have 2**24 choices, not {most:,}")
    return "float32"


def ends_of(space: Space) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the least and the greatest value of every number of a row."""
    low: list[float] = []
    high: list[float] = []
    for leaf in leaves_of(space):
        if isinstance(leaf.space, Box):
            least, greatest = leaf.space.bounds()
        else:
            least, greatest = (0.0,) * leaf.space.num_features, tuple(size - 1.0 for size in leaf.space.sizes)
        low += least
        high += greatest
    return tuple(low), tuple(high)


DEEPEST = 16
"""How often parts may lie within parts."""


def from_dict(data: object, depth: int = DEEPEST) -> Space:
    """Return the space that a plain dictionary such as `{"kind": "discrete", "n": 5}` describes.

    Raises SpaceError if the kind is unknown, a field is missing or extra, a value is no size or bound, or parts lie
    within one another more than *depth* times.
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
    needed = {attribute.name for attribute in fields(cls) if attribute.default is NOTHING}
    if not needed <= names <= wanted:
        listed = ", ".join(sorted(map(str, names))) or "nothing"
        raise SpaceError(f"a {kind} space has the fields {', '.join(sorted(needed))}; got {listed}")
    values = {name: data[name] for name in names}
    if "parts" in values:
        values["parts"] = _parts_from_plain(str(kind), values["parts"], depth)
    return cls(**values)


def _parts_from_plain(kind: str, parts: object, depth: int) -> dict[str, Space] | list[Space]:
    if not depth:
        raise SpaceError(f"parts of a space may lie within one another {DEEPEST} times, not deeper")
    if kind == "dict" and isinstance(parts, Mapping):
        return {name: from_dict(part, depth - 1) for name, part in parts.items()}
    if kind == "tuple" and isinstance(parts, list | tuple):
        return [from_dict(part, depth - 1) for part in parts]
    raise SpaceError(f"a {kind} space has {'a table' if kind == 'dict' else 'a list'} of parts, got {parts!r:.80}")


def to_dict(space: Space) -> dict[str, Json]:
    """Return the plain dictionary, ready for JSON, from which `from_dict` makes *space* again."""
    if isinstance(space, Dict):
        return {"kind": space.kind, "parts": {name: to_dict(part) for name, part in space.parts}}
    if isinstance(space, Tuple):
        return {"kind": space.kind, "parts": [to_dict(part) for part in space.parts]}
    values = {attribute.name: getattr(space, attribute.name) for attribute in fields(type(space))}
    if values.get("dtype") == "float32":  # as files have it that were written before there was another
        del values["dtype"]
    return {"kind": space.kind, **{name: _plain(value) for name, value in values.items()}}


def _plain(value: Json) -> Json:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isinf(value) else value


@frozen(kw_only=True)
class Spaces:
    """What a family lets an agent observe and do."""

    observation: Space
    action: Space

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> "Spaces":
        """Build from `{"observation": {...}, "action": {...}}`; raises SpaceError."""
        return cls(observation=from_dict(data["observation"]), action=from_dict(data["action"]))

    def to_dict(self) -> dict[str, Json]:
        """Return the plain dictionary from which `from_dict` makes these spaces again."""
        return {"observation": to_dict(self.observation), "action": to_dict(self.action)}
