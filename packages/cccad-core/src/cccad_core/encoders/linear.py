"""A linear map of the features of a box, scaled by their bounds or by what was measured of them."""

from typing import Literal

import torch
from attrs import field, frozen
from torch import Tensor, nn

from cccad_core.encoders.base import Encoder
from cccad_core.scaling import unit_range
from cccad_core.spaces import Box, Space


@frozen(kw_only=True)
class ProjectionSpec:
    """A linear map of the features of a box, scaled to unit range or to unit deviation."""

    scaling: Literal["bounds", "measured"] = field(
        default="bounds",
        metadata={
            "help": "'bounds' scales features that have them to unit range; 'measured' subtracts the mean of training "
            "observations and divides by their deviation, both taken before the first update and kept with the weights"
        },
    )

    def takes(self, space: Space) -> bool:
        return isinstance(space, Box)

    def build(self, space: Space, width: int) -> "Projection":
        assert isinstance(space, Box)
        return Projection(space, width, is_measured=self.scaling == "measured")


class Projection(Encoder):
    """`... o -> ... d`, without a bias."""

    centre: Tensor
    scale: Tensor

    def __init__(self, space: Box, width: int, *, is_measured: bool = False) -> None:
        super().__init__()
        self.is_measured = is_measured
        centre, scale, _ = unit_range(space)
        if is_measured:
            centre, scale = torch.zeros_like(centre), torch.ones_like(scale)
        self.register_buffer("centre", centre, persistent=is_measured)
        self.register_buffer("scale", scale, persistent=is_measured)
        self.project = nn.Linear(space.num_features, width, bias=False)

    def measure(self, values: Tensor) -> None:
        numbers = values.double()
        mean, deviation = numbers.mean(0), numbers.std(0, correction=0)
        self.centre.copy_(mean)
        self.scale.copy_(torch.where(deviation > SMALLEST * mean.abs().clamp(min=1), deviation, 1.0))

    def forward(self, values: Tensor) -> Tensor:
        vectors: Tensor = self.project((values - self.centre) / self.scale)
        return vectors


SMALLEST = 1e-6
"""A feature whose deviation is below this share of its mean is constant in float32, and stays as it is."""
