"""Observations of several parts: an encoder for each leaf, whose vectors are summed."""

from typing import Annotated, Any

from attrs import Factory, field, frozen
from torch import Tensor, nn

from cccad_core.encoders.base import Encoder, EncoderSpec, Measures
from cccad_core.encoders.leaves import ours
from cccad_core.errors import SpaceError
from cccad_core.registry import refuse_what_lacks, title
from cccad_core.spaces import Dict, Leaf, Space, Tuple, leaves_of
from cccad_core.specs import Kind


@frozen(kw_only=True)
class PartsSpec:
    """An encoder for each leaf of a dictionary or a tuple, by default as fits it; their vectors are summed."""

    leaves: dict[str, Annotated[Any, Kind("encoder")]] = field(
        default=Factory(dict), metadata={"help": "encoders by the path of a leaf, such as 'image' or 'agent/position'"}
    )
    ignored: tuple[str, ...] = field(default=(), metadata={"help": "paths of leaves that are not read"})

    def __attrs_post_init__(self) -> None:
        """Check that the encoders are whole: raises BrokenPart."""
        for encoder in self.leaves.values():
            refuse_what_lacks(encoder, "encoder")

    def takes(self, space: Space) -> bool:
        return isinstance(space, Dict | Tuple)

    def build(self, space: Space, width: int) -> "Parts":
        leaves = leaves_of(space)
        paths = [leaf.path for leaf in leaves]
        strange = sorted({*self.leaves, *self.ignored} - set(paths))
        if strange:
            raise SpaceError(f"there is no leaf '{strange[0]}' in this space; it has {', '.join(paths)}")
        read = [leaf for leaf in leaves if leaf.path not in self.ignored]
        if not read:
            raise SpaceError("all leaves of this space are ignored, so nothing would be observed")
        return Parts([(leaf, self._encoder(leaf).build(leaf.space, width)) for leaf in read])

    def _encoder(self, leaf: Leaf) -> EncoderSpec:
        """Return the encoder of a leaf; raises SpaceError where what is named does not take it."""
        named: EncoderSpec | None = self.leaves.get(leaf.path)
        if named is None:
            return next(iter(ours(leaf.space)))
        if not named.takes(leaf.space):
            what = f"{title(type(named), 'encoder')} does not take the leaf '{leaf.path}'"
            raise SpaceError(f"{what}, a {leaf.space.kind} space: {leaf.space!r:.100}")
        return named


class Parts(Encoder):
    """`... o -> ... d`, the sum over leaves."""

    def __init__(self, parts: list[tuple[Leaf, Encoder]]) -> None:
        super().__init__()
        self.slices = [leaf.slice for leaf, _ in parts]
        self.encoders = nn.ModuleList(encoder for _, encoder in parts)

    @property
    def is_measured(self) -> bool:
        return any(isinstance(encoder, Measures) and encoder.is_measured for encoder in self.encoders)

    def measure(self, values: Tensor) -> None:
        for encoder, cut in zip(self.encoders, self.slices, strict=True):
            if isinstance(encoder, Measures) and encoder.is_measured:
                encoder.measure(values[..., cut])

    def forward(self, values: Tensor) -> Tensor:
        first, *others = (encode(values[..., cut]) for encode, cut in zip(self.encoders, self.slices, strict=True))
        total: Tensor = first
        for vectors in others:
            total = total + vectors
        return total
