"""Sort every real feature into buckets and look each up in a table: an encoder in one file.

Name the file in a spec, by its path relative to that spec, and its encoder is known there:

    imports = ["../plugins/bucket_encoder.py"]

    [policy.encoder]
    kind = "buckets"
    num_buckets = 16

Buckets distinguish what a linear map cannot, such as "in the middle" from "at either end". A feature between two
buckets is shared between them, so that values remain distinct. To write your own: copy this file, change the name, and
run `cccad check encoder NAME --imports FILE`.
"""

import torch
from attrs import field, frozen, validators
from cccad_core.encoders.base import Encoder
from cccad_core.registry import register
from cccad_core.scaling import unit_range
from cccad_core.spaces import Box, Space
from torch import Tensor, nn


@register("encoder", "buckets")
@frozen(kw_only=True)
class BucketsSpec:
    """A table of vectors for each feature of a box; a value mixes the two nearest."""

    num_buckets: int = field(
        default=16, validator=validators.ge(2), metadata={"help": "vectors for each feature, from its lowest value up"}
    )

    def takes(self, space: Space) -> bool:
        return isinstance(space, Box)

    def build(self, space: Space, width: int) -> "Buckets":
        assert isinstance(space, Box)
        return Buckets(space, width, self.num_buckets)


class Buckets(Encoder):
    """`... o -> ... d`; features without two bounds are squashed into -1 to 1 by tanh first."""

    centre: Tensor
    scale: Tensor
    bounded: Tensor

    def __init__(self, space: Box, width: int, num_buckets: int) -> None:
        super().__init__()
        for name, value in zip(("centre", "scale", "bounded"), unit_range(space), strict=True):
            self.register_buffer(name, value, persistent=False)
        self.table = nn.Parameter(torch.randn(space.num_features, num_buckets, width) * width**-0.5)

    def forward(self, values: Tensor) -> Tensor:
        num_buckets = self.table.shape[1]
        scaled = (values - self.centre) / self.scale
        unit = torch.where(self.bounded, scaled.clamp(-1, 1), scaled.tanh())
        place = (unit + 1) / 2 * (num_buckets - 1)  # ... o
        centres = torch.arange(num_buckets, device=values.device)
        shares = (1 - (place[..., None] - centres).abs()).clamp(min=0)  # ... o n: two neighbours share a value
        return torch.einsum("...on,ond->...d", shares, self.table)
