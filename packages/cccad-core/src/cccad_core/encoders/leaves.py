"""Which encoder of ours reads a leaf: tables for what is discrete, convolutions for images, else a linear map."""

from collections.abc import Iterable

from cccad_core.encoders.base import EncoderSpec
from cccad_core.encoders.conv import ConvSpec
from cccad_core.encoders.linear import ProjectionSpec
from cccad_core.encoders.table import TableSpec
from cccad_core.spaces import Box, Space


def ours(space: Space) -> Iterable[EncoderSpec]:
    """Yield our encoders of *space*, a leaf, the one that is meant for it first; none where it is no leaf."""
    choices: tuple[EncoderSpec, ...] = (TableSpec(), ProjectionSpec())
    if isinstance(space, Box) and space.dtype == "uint8":  # real numbers may be anything, whatever their shape
        choices = (ConvSpec(), *choices)
    return (spec for spec in choices if spec.takes(space))
