"""What a law is: something that others rely on, and that a part which breaks it is told by name."""

from cccad_data.errors import DataError


class LawBrokenError(DataError):
    """A task family or a source does not keep a law that collection, training and evaluation rely on."""


def require(law: str, kept: bool, what: str) -> None:
    """Raise LawBrokenError, saying *what* is wrong, unless *law* is *kept*."""
    if not kept:
        raise LawBrokenError(f"law '{law}' is broken: {what}")
