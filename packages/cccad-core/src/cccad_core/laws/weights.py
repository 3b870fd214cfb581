"""The laws of the weights of a small part: drawn by torch's seed alone, kept in the state dictionary, and learned."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from cccad_core.errors import reason
from cccad_core.laws.law import LawBroken, require, same
from cccad_core.spaces import Space

Module_co = TypeVar("Module_co", bound=nn.Module, covariant=True)
Built = TypeVar("Built", bound=nn.Module)


class BuildsInSpaces(Protocol[Module_co]):
    """The spec of a part that takes some spaces."""

    def takes(self, space: Space) -> bool: ...

    def build(self, space: Space, width: int) -> Module_co: ...


def taken(what: str, spec: BuildsInSpaces[nn.Module], spaces: Sequence[Space]) -> list[Space]:
    """Return those of *spaces* that *spec* takes; raises LawBroken where there is none."""
    chosen = [space for space in spaces if spec.takes(space)]
    which = " or ".join(space.kind for space in spaces)
    require(f"{what} takes a space", bool(chosen), f"takes() says no to a space of kind {which}")
    return chosen


def built(spec: BuildsInSpaces[Built], space: Space, width: int, use: Callable[[Built], object]) -> Built:
    """Return what *spec* builds for a *space* that it takes, used once; raises LawBroken where that fails."""
    torch.manual_seed(0)
    try:
        part = spec.build(space, width)
        use(part)
    except Exception as error:
        what = f"takes() says yes to a {space.kind} space, and then: {reason(error)}"
        raise LawBroken(f"law 'what is taken can be used' is broken: {what}") from error
    return part


def check_seeded_and_kept(build: Callable[[], Built], use: Callable[[Built], Tensor]) -> None:
    """Check that a fresh part's answers are decided by torch's seed, and by its state dictionary once one is loaded."""
    parts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        parts.append(build().eval())
    first, twin, other = parts
    with torch.no_grad():
        what = "answers of two parts that were built with one seed"
        same("the seed draws the weights", use(twin), use(first), what, 0)
    check_kept(first, lambda: other, use)


def check_kept(part: nn.Module, build: Callable[[], Built], use: Callable[[Built], Tensor]) -> None:
    """Check that another part answers like *part* once it has loaded its state dictionary."""
    other = build().eval()
    with torch.no_grad():
        answer = use(cast(Built, part))
        other.load_state_dict(part.state_dict())
        same("weights are kept", use(other), answer, "answers of a part and of one that loads its weights", 0)


def check_learned(part: nn.Module, loss: Tensor) -> None:
    """Check that the gradient of *loss* reaches every weight of *part*."""
    law = "every weight learns"
    require(law, loss.requires_grad, "no gradient reaches any weight")
    loss.backward()
    dead = [name for name, value in part.named_parameters() if value.grad is None or not bool(value.grad.any())]
    require(law, not dead, f"no gradient reaches {', '.join(dead)}")
