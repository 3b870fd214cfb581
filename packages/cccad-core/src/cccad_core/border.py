"""The border between environments and a policy: only elements of the spaces pass, checked once per batch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cccad_core.errors import UnfitValueError
from cccad_core.spaces import Box, Dict, Discrete, Leaf, LeafSpace, Space, Tuple, dtype_of, leaves_of

_MOST = torch.finfo(torch.float32).max  # infinite bounds let no infinity in


class Border:
    """Turns a batch of elements of one space into rows of numbers, `b o`, and refuses all else.

    Elements come as an array or a tensor; those of a space of parts also as a mapping or a tuple of batched parts.
    """

    def __init__(self, space: Space, device: torch.device) -> None:
        self.leaves = [(leaf, LeafBorder(leaf.space, device)) for leaf in leaves_of(space)]
        self.device = device
        self.dtype, self.num_features = getattr(torch, dtype_of(space)), space.num_features

    def __call__(self, values: Any, what: str, num_decisions: Tensor) -> Tensor:
        """Return *values* as `b o`, of the space's dtype; *num_decisions*, `b`, are those of each row before.

        Raises UnfitValueError, which begins with *what*, and says part, row, decision and value.
        """
        if len(self.leaves) == 1 and not self.leaves[0][0].path:
            return self.leaves[0][1](values, what, num_decisions)
        rows = []
        for leaf, border in self.leaves:
            part, called = self._part(values, leaf, what), f"{what}, '{leaf.path}'"
            rows.append(border(part, called, num_decisions).to(self.dtype))
        return torch.cat(rows, 1)

    def _part(self, values: Any, leaf: Leaf, what: str) -> Any:
        """Return the part of *values* at a *leaf*; rows of numbers are cut."""
        if not isinstance(values, Mapping | tuple | list):
            rows = as_numbers(values, what, self.device)
            if rows.shape[1:] != (self.num_features,):
                raise UnfitValueError(f"{what}: they must be of shape [b, {self.num_features}], not {list(rows.shape)}")
            return rows[:, leaf.slice]
        try:
            for name in leaf.path.split("/"):
                values = values[name] if isinstance(values, Mapping) else values[int(name)]
        except (LookupError, ValueError, TypeError):
            raise UnfitValueError(f"{what}: there is no part '{leaf.path}'") from None
        return values


class LeafBorder:
    """The border of one leaf."""

    def __init__(self, space: LeafSpace, device: torch.device) -> None:
        self.space, self.device = space, device
        if isinstance(space, Box) and space.dtype == "uint8":
            ends = [torch.tensor(end).to(torch.uint8) for end in space.bounds()]
        elif isinstance(space, Box):
            low, high = (torch.tensor(end, dtype=torch.float64).clamp(-_MOST, _MOST) for end in space.bounds())
            ends = [_outward(low, -torch.inf), _outward(high, torch.inf)]
        else:
            ends = [torch.zeros(space.num_features, dtype=torch.int64), torch.tensor(space.sizes) - 1]
        self.low, self.high = (end.to(device) for end in ends)

    def __call__(self, values: Any, what: str, num_decisions: Tensor) -> Tensor:
        """Return *values* as `b o`, as `Border` does."""
        numbers, size = as_numbers(values, what, self.device), len(num_decisions)
        if numbers.numel() != size * self.space.num_features or numbers.shape[:1] != (size,):
            wanted = f"[{size}, {self.space.num_features}]"
            raise UnfitValueError(f"{what}: they must be of shape {wanted}, not {list(numbers.shape)}")
        numbers = numbers.reshape(size, -1)
        kept = numbers.to(self.low.dtype)
        is_cast = numbers.dtype.is_floating_point != kept.dtype.is_floating_point or kept.dtype == torch.uint8
        if not kept.clamp(self.low, self.high).equal(kept) or (is_cast and not kept.to(numbers.dtype).equal(numbers)):
            is_right = (kept.clamp(self.low, self.high) == kept) & (kept.to(numbers.dtype) == numbers)
            wrong = is_right if is_right.all() else ~is_right
            refuse(numbers, wrong, what, f"which is not in {self.space!r:.160}", num_decisions)
        return kept


def as_parts(space: Space, rows: Tensor) -> Any:
    """Return *rows*, `b a`, as an environment takes elements of *space*: batched leaves in mappings and tuples."""
    if isinstance(space, Dict | Tuple):
        named = space.parts if isinstance(space, Dict) else tuple(enumerate(space.parts))
        cut = rows.split([part.num_features for _, part in named], -1)
        pairs = [(name, as_parts(part, own)) for (name, part), own in zip(named, cut, strict=True)]
        return dict(pairs) if isinstance(space, Dict) else tuple(part for _, part in pairs)
    kept = rows.to(getattr(torch, dtype_of(space)))
    if isinstance(space, Box):
        return kept.reshape(-1, *space.shape)
    return kept[:, 0] if isinstance(space, Discrete) else kept


def finite(values: Any, what: str, num_decisions: Tensor, device: torch.device) -> Tensor:
    """Return *values*, one for each row, as float32, `b`; raises UnfitValueError where one is not finite."""
    numbers = as_numbers(values, what, device)
    if numbers.shape != num_decisions.shape:
        raise UnfitValueError(f"{what}: they must be of shape {list(num_decisions.shape)}, not {list(numbers.shape)}")
    kept = numbers.to(torch.float32)
    if not is_finite(kept):
        refuse(numbers[:, None], ~kept.isfinite()[:, None], what, num_decisions=num_decisions)
    return kept


def is_finite(values: Tensor) -> bool:
    """Say whether all of float32 *values* are finite; a sixth of the time that `isfinite().all()` takes."""
    return values.clamp(-_MOST, _MOST).equal(values)


def as_numbers(values: Any, what: str, device: torch.device) -> Tensor:
    """Return *values* as a tensor; raises UnfitValueError where they are no numbers."""
    try:
        return torch.as_tensor(values, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnfitValueError(f"{what}: {values!s:.80} is no array of numbers") from error


def refuse(
    values: Tensor,
    wrong: Tensor,
    what: str,
    why: str = "which is no finite number",
    num_decisions: Tensor | None = None,
) -> None:
    """Raise UnfitValueError for the first of the *values* that are *wrong*, both `b o`."""
    row, feature = torch.nonzero(wrong)[0].tolist()
    step = "" if num_decisions is None else f", env step {int(num_decisions[row]):,}"
    where = f" in feature {feature}" if values.shape[1] > 1 else ""
    raise UnfitValueError(f"{what}, row {row}{step}: {values[row, feature].item()!r}{where}, {why}")


def _outward(numbers: Tensor, toward: float) -> Tensor:
    """Return *numbers*, float64, as the nearest float32 that are not short of them, *toward* an infinity."""
    near = numbers.float()
    is_short = near > numbers if toward < 0 else near < numbers
    return torch.where(is_short, near.nextafter(torch.tensor(toward)), near)
