"""Discrete coordinates looked up in one table each, and summed."""

import torch
from attrs import frozen
from torch import Tensor, nn

from cccad_core.encoders.base import Encoder
from cccad_core.spaces import Discrete, MultiDiscrete, Space


@frozen(kw_only=True)
class TableSpec:
    """One learned vector for every value of every discrete coordinate; those of a value are summed."""

    def takes(self, space: Space) -> bool:
        return isinstance(space, Discrete | MultiDiscrete)

    def build(self, space: Space, width: int) -> "Table":
        assert isinstance(space, Discrete | MultiDiscrete)
        return Table(space.sizes, width)


class Table(Encoder):
    """The tables of all coordinates, one below the other, `n d`."""

    def __init__(self, sizes: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        self.table = nn.Parameter(torch.randn(sum(sizes), width) * width**-0.5)

    def forward(self, values: Tensor) -> Tensor:
        values = values.long()  # they may be part of a row of other numbers
        total = nn.functional.embedding(values[..., 0], self.table)
        for i, offset in enumerate(self.offsets[1:], start=1):
            total = total + nn.functional.embedding(values[..., i] + offset, self.table)
        return total
