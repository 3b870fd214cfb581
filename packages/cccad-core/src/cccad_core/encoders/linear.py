"""A linear map of the features of a box, scaled to unit range."""

from attrs import frozen
from torch import Tensor, nn

from cccad_core.encoders.base import Encoder
from cccad_core.scaling import unit_range
from cccad_core.spaces import Box, Space


@frozen(kw_only=True)
class LinearSpec:
    """A linear map of the features of a box, scaled to unit range where they have bounds."""

    def takes(self, space: Space) -> bool:
        return isinstance(space, Box)

    def build(self, space: Space, width: int) -> "Projection":
        assert isinstance(space, Box)
        return Projection(space, width)


class Projection(Encoder):
    """`... o -> ... d`, without a bias."""

    centre: Tensor
    scale: Tensor

    def __init__(self, space: Box, width: int) -> None:
        super().__init__()
        centre, scale, _ = unit_range(space)
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.project = nn.Linear(space.num_features, width, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        vectors: Tensor = self.project((values - self.centre) / self.scale)
        return vectors
