"""Actions of several parts: a head for each leaf, drawn apart."""

from typing import Annotated, Any, Literal, cast

import torch
from attrs import Factory, field, frozen
from torch import Tensor, nn

from cccad_core.errors import SpaceError
from cccad_core.heads.base import ActionHead, HasDivergence, HeadSpec
from cccad_core.heads.leaves import ours
from cccad_core.registry import refuse_what_lacks, title
from cccad_core.spaces import Dict, Discrete, Leaf, Space, Tuple, dtype_of, leaves_of
from cccad_core.specs import Kind


@frozen(kw_only=True)
class PartsHeadSpec:
    """A head for each leaf of a dictionary or a tuple, by default as fits it; leaves are independent of one another."""

    leaves: dict[str, Annotated[Any, Kind("head")]] = field(
        default=Factory(dict), metadata={"help": "heads by the path of a leaf, such as 'move' or 'hand/0'"}
    )

    def __attrs_post_init__(self) -> None:
        """Check that the heads are whole: raises BrokenPart."""
        for head in self.leaves.values():
            refuse_what_lacks(head, "head")

    def takes(self, space: Space) -> bool:
        return isinstance(space, Dict | Tuple)

    def build(self, space: Space, width: int) -> "PartsHead":
        leaves = leaves_of(space)
        paths = [leaf.path for leaf in leaves]
        if strange := sorted(set(self.leaves) - set(paths)):
            raise SpaceError(f"there is no leaf '{strange[0]}' in this space; it has {', '.join(paths)}")
        return PartsHead(space, [(leaf, self._head(leaf).build(leaf.space, width)) for leaf in leaves], width)

    def _head(self, leaf: Leaf) -> HeadSpec:
        """Return the head of a leaf; raises SpaceError where what is named does not take it."""
        named: HeadSpec | None = self.leaves.get(leaf.path)
        if named is None:
            return next(iter(ours(leaf.space)))
        if not named.takes(leaf.space):
            what = f"{title(type(named), 'head')} does not take the leaf '{leaf.path}'"
            raise SpaceError(f"{what}, a {leaf.space.kind} space: {leaf.space!r:.100}")
        return named


class PartsHead(ActionHead):
    """Parameters of all leaves, one behind the other; an action is a row of its leaves, `b t a`.

    What is measured is whether every discrete leaf is right, or where there is none the mean squared error.
    """

    def __init__(self, space: Space, parts: list[tuple[Leaf, ActionHead]], width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(head for _, head in parts)
        self.leaves = [leaf for leaf, _ in parts]
        self.dtype = getattr(torch, dtype_of(space))
        self.widths = [head(torch.zeros(1, 1, width)).shape[-1] for _, head in parts]
        measures = {head.measure for _, head in parts}
        self.measure: Literal["accuracy", "squared_error"] = "accuracy" if "accuracy" in measures else "squared_error"
        if all(isinstance(head, HasDivergence) for _, head in parts):
            self.divergence = self._divergence

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.cat([head(hidden) for head in self._heads()], -1)

    def nats(self, parameters: Tensor, actions: Tensor) -> Tensor:
        split = zip(self._heads(), self._split(parameters), self._cut(actions), strict=True)
        return torch.stack([head.nats(of_leaf, action) for head, of_leaf, action in split]).sum(0)

    def measured(self, parameters: Tensor, actions: Tensor) -> Tensor:
        split = zip(self._heads(), self._split(parameters), self._cut(actions), self.leaves, strict=True)
        alike = [each for each in split if each[0].measure == self.measure]
        values = torch.stack([head.measured(of_leaf, action) for head, of_leaf, action, _ in alike])
        if self.measure == "accuracy":
            return values.prod(0)
        counts = values.new_tensor([leaf.space.num_features for *_, leaf in alike])
        return (values * counts[:, None, None]).sum(0) / counts.sum()

    def draw(self, parameters: Tensor, generator: torch.Generator | None, *, greedy: bool) -> Tensor:
        drawn = [
            head.draw(of_leaf, generator, greedy=greedy)
            for head, of_leaf in zip(self._heads(), self._split(parameters), strict=True)
        ]
        return torch.cat([each.reshape(len(parameters), -1).to(self.dtype) for each in drawn], -1)

    def _divergence(self, parameters: Tensor, wanted: Tensor) -> Tensor:
        split = zip(self._heads(), self._split(parameters), self._split(wanted), strict=True)
        nats = [head.divergence(*both) for head, *both in split if isinstance(head, HasDivergence)]  # all of them do
        return torch.stack(nats).sum(0)

    def _heads(self) -> list[ActionHead]:
        return [cast(ActionHead, head) for head in self.parts]

    def _split(self, parameters: Tensor) -> list[Tensor]:
        return list(parameters.split(self.widths, -1))

    def _cut(self, actions: Tensor) -> list[Tensor]:
        """Return the action of each leaf as its head takes it."""
        cut = [actions[..., leaf.slice].to(getattr(torch, dtype_of(leaf.space))) for leaf in self.leaves]
        pairs = zip(cut, self.leaves, strict=True)
        return [each[..., 0] if isinstance(leaf.space, Discrete) else each for each, leaf in pairs]
