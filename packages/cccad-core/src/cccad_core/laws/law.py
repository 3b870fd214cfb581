"""What it means to keep a law, and to break it."""

from torch import Tensor

TOLERANCE = 2e-5


class LawBroken(AssertionError):
    """A part does not keep a law that training, evaluation and the agent rely on."""


def require(law: str, is_kept: bool, what: str) -> None:
    """Raise LawBroken, which says *what* is wrong, unless *law* is kept."""
    if not is_kept:
        raise LawBroken(f"law '{law}' is broken: {what}")


def same(law: str, a: Tensor, b: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """Raise LawBroken unless *a* and *b*, which *what* names, are the same within *tolerance*."""
    require(law, a.shape == b.shape, f"{what} have shapes {tuple(a.shape)} and {tuple(b.shape)}")
    gap = float((a - b).abs().max()) if a.numel() else 0.0
    require(law, gap <= tolerance, f"{what} differ by {gap:.2g} (allowed {tolerance:.2g})")
