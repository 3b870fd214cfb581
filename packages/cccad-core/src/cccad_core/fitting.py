"""Which encoder reads a space and which head acts in it: the one that is named, or else ours that takes the space."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from cccad_core.encoders.base import EncoderSpec
from cccad_core.encoders.dict import PartsSpec
from cccad_core.encoders.leaves import ours as our_encoders
from cccad_core.errors import SpaceError
from cccad_core.heads.base import HeadSpec
from cccad_core.heads.leaves import ours as our_heads
from cccad_core.heads.parts import PartsHeadSpec
from cccad_core.registry import name_of, title
from cccad_core.spaces import Space


class _Taking(Protocol):
    def takes(self, space: Space) -> bool: ...


Part = TypeVar("Part", bound=_Taking)


def encoder_for(space: Space, named: EncoderSpec | None = None) -> EncoderSpec:
    """Return the encoder that reads *space*; raises SpaceError where what is *named* does not take it, or none does."""
    return _fitting("encoder", space, named, [*our_encoders(space), PartsSpec()])


def head_for(space: Space, named: HeadSpec | None = None) -> HeadSpec:
    """Return the head that acts in *space*; raises SpaceError where what is *named* does not take it, or none does."""
    return _fitting("head", space, named, [*our_heads(space), PartsHeadSpec()])


def _fitting(kind: str, space: Space, named: Part | None, choices: Sequence[Part]) -> Part:
    fitting = next((part for part in choices if part.takes(space)), None)
    if named is not None and named.takes(space):
        return named
    if named is None and fitting is not None:
        return fitting
    name = fitting and name_of(type(fitting), kind)[1]
    problem = f"no {kind} of ours takes" if named is None else f"{title(type(named), kind)} does not take"
    hint = f"; '{name}' does" if name else f"; '{kind}' must name a part that does"
    raise SpaceError(f"{problem} a {space.kind} space{hint}")
