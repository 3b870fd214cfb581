"""What sets one training pass apart from all others: its chance, and how far the course of training has come."""

import torch
from attrs import frozen
from torch import Tensor


@frozen(kw_only=True)
class Moment:
    """One update's share of chance, a function of *seed* alone, so that a resumed run repeats it.

    `state_passing`: how likely a row starts from a final state, of its own `from_itself`, as if it lived twice, or else
    of another row; `latent_noise`: standard deviation of the noise on every prefix; `fade`: what is left of the
    reconstruction weight, 1 to 0; `auxiliary`: the weight of the compressor's own losses.
    """

    seed: int = 0
    state_passing: float = 0.0
    from_itself: bool = False
    latent_noise: float = 0.0
    fade: float = 1.0
    auxiliary: float = 1.0

    def donors(self, size: int) -> tuple[Tensor, Tensor]:
        """Return for each of *size* rows which row lends its final state, and whether it is taken; both `b`."""
        chance = torch.Generator().manual_seed(self.seed)
        shift = int(torch.randint(1, max(size, 2), (), generator=chance))
        is_passed = torch.rand(size, generator=chance) < self.state_passing
        if self.from_itself:
            return torch.arange(size), is_passed
        return (torch.arange(size) + shift) % size, is_passed & (size > 1)

    def blur(self, prefixes: list[Tensor]) -> list[Tensor]:
        """Return *prefixes*, each `b k d`, with the noise of this update."""
        if not self.latent_noise:
            return prefixes
        chance = torch.Generator().manual_seed(self.seed ^ 1)  # else it would repeat what `donors` drew
        noise = [torch.randn(prefix.shape, generator=chance) for prefix in prefixes]
        return [p + self.latent_noise * n.to(p.device, p.dtype) for p, n in zip(prefixes, noise, strict=True)]
