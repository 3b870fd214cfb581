"""A small stack of convolutions over an image, each of half the side of the one before."""

from math import ceil
from typing import Literal

from attrs import field, frozen, validators
from torch import Tensor, nn

from cccad_core.encoders.base import Encoder
from cccad_core.scaling import unit_range
from cccad_core.spaces import Box, Space

SMALLEST, LAST = 8, 4
"""The shortest side of an image that is taken, and the longest side that is projected."""


@frozen(kw_only=True)
class ConvSpec:
    """Convolutions over an image, until its sides are at most 4, and a projection of what remains."""

    num_channels: int = field(
        default=16,
        validator=validators.ge(1),
        metadata={"help": "of the first convolution; every next one has twice as many, up to four times"},
    )
    channels: Literal["last", "first"] = field(
        default="last", metadata={"help": "which axis of an image holds its channels; one of two axes has none"}
    )

    def takes(self, space: Space) -> bool:
        if not isinstance(space, Box) or len(space.shape) not in (2, 3):
            return False
        _, height, width = self.sides(space)
        return min(height, width) >= SMALLEST

    def sides(self, space: Box) -> tuple[int, int, int]:
        """Return channels, height and width of an image of *space*."""
        if len(space.shape) == 2:
            return 1, *space.shape
        first, second, third = space.shape
        return (first, second, third) if self.channels == "first" else (third, first, second)

    def build(self, space: Space, width: int) -> "Convolutions":
        assert isinstance(space, Box)
        return Convolutions(space, width, self)


class Convolutions(Encoder):
    """`... o -> ... d`; the numbers of an image are scaled to unit range where they have bounds."""

    centre: Tensor
    scale: Tensor

    def __init__(self, space: Box, width: int, spec: ConvSpec) -> None:
        super().__init__()
        centre, scale, _ = unit_range(space)
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.shape, self.is_last = space.shape, spec.channels == "last" and len(space.shape) == 3
        channels, *sides = spec.sides(space)
        layers: list[nn.Module] = []
        while max(sides) > LAST:
            wider = min(4 * spec.num_channels, 2 * channels if layers else spec.num_channels)
            layers += [nn.Conv2d(channels, wider, kernel_size=3, stride=2, padding=1), nn.GELU()]
            channels, sides = wider, [ceil(side / 2) for side in sides]
        self.layers = nn.Sequential(*layers)
        self.project = nn.Linear(channels * sides[0] * sides[1], width)

    def forward(self, values: Tensor) -> Tensor:
        scaled = (values - self.centre) / self.scale
        images = scaled.reshape(-1, *self.shape)
        images = images.movedim(-1, 1) if self.is_last else images.reshape(len(images), -1, *self.shape[-2:])
        vectors: Tensor = self.project(self.layers(images).flatten(1))
        return vectors.reshape(*values.shape[:-1], -1)
