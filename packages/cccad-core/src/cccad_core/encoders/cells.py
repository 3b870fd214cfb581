"""A grid whose cells hold categories, such as the kind, the colour and the state of an object."""

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from cccad_core.encoders.base import Encoder
from cccad_core.spaces import Box, Space


@frozen(kw_only=True)
class CellsSpec:
    """A learned vector for every category of every channel, the same in all cells, and a projection of the grid."""

    cell_width: int = field(default=16, validator=validators.ge(1), metadata={"help": "features of one cell"})

    def takes(self, space: Space) -> bool:
        return isinstance(space, Box) and space.dtype == "uint8" and len(space.shape) in (2, 3)

    def build(self, space: Space, width: int) -> "Cells":
        assert isinstance(space, Box)
        return Cells(space, width, self.cell_width)


class Cells(Encoder):
    """`... o -> ... d`; a box of `h w` or `h w c`, whose numbers are categories."""

    first: Tensor

    def __init__(self, space: Box, width: int, cell_width: int) -> None:
        super().__init__()
        self.num_channels = space.shape[2] if len(space.shape) == 3 else 1
        num_categories = int(max(space.bounds()[1])) + 1
        self.register_buffer("first", torch.arange(self.num_channels) * num_categories, persistent=False)
        self.table = nn.Parameter(torch.randn(self.num_channels * num_categories, cell_width) * cell_width**-0.5)
        num_cells = space.num_features // self.num_channels
        self.project = nn.Linear(num_cells * cell_width, width)

    def forward(self, values: Tensor) -> Tensor:
        categories = values.long().unflatten(-1, (-1, self.num_channels)) + self.first  # ... cells c
        cells = nn.functional.embedding(categories, self.table).sum(-2)  # ... cells e
        vectors: Tensor = self.project(nn.functional.gelu(cells).flatten(-2))
        return vectors
