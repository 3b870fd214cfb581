"""Evict nothing: the whole life stays in the window, and keys and values are cached without bound (the reference)."""

from attrs import frozen

from cccad_core.compressors.window import Window


@frozen(kw_only=True)
class FullSpec:
    """Evict nothing: the reference that sees its whole life, at a cost that grows with it."""

    num_latents = 0

    def build(self, width: int) -> Window:
        return Window(width, evicts=False)
