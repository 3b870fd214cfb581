"""The chance of one training pass, which sets it apart from all others."""

import torch
from attrs import frozen
from torch import Tensor

from cccad_core.compressors.base import State, keep_rows, take_rows


@frozen(kw_only=True)
class Moment:
    """One update's share of chance, a function of its seeds alone, so that a resumed run repeats it.

    `seed` is a process's own, since its rows are its own; `shared_seed` is the same in every process of one update, and
    what must be the same in all of them, such as where windows end, is drawn from it (None: nothing is left to chance).

    `state_passing`: how likely a row starts from a final state, of its own `from_itself`, as if it lived twice, or else
    of another row; `latent_noise`: standard deviation of the noise on every prefix.
    """

    seed: int = 0
    shared_seed: int | None = None
    state_passing: float = 0.0
    from_itself: bool = False
    latent_noise: float = 0.0

    def donors(self, size: int) -> tuple[Tensor, Tensor]:
        """Return for each of *size* rows which row lends its final state, and whether it is taken; both `b`."""
        chance = torch.Generator().manual_seed(self.seed)
        shift = int(torch.randint(1, max(size, 2), (), generator=chance))
        is_passed = torch.rand(size, generator=chance) < self.state_passing
        if self.from_itself:
            return torch.arange(size), is_passed
        return (torch.arange(size) + shift) % size, is_passed & (size > 1)

    def lends(self, size: int) -> bool:
        """Say whether any of *size* rows starts from a final state."""
        return self.state_passing > 0 and bool(self.donors(size)[1].any())

    def lend(self, final: State, born: State) -> State:
        """Return the states that rows start from, of the *final* and the *born* ones."""
        like = next(iter(born.values()))
        donors, is_passed = (value.to(like.device) for value in self.donors(len(like)))
        return keep_rows(take_rows(final, donors), born, is_passed)

    def blur(self, prefixes: list[Tensor]) -> list[Tensor]:
        """Return *prefixes*, each `b k d`, with the noise of this update."""
        if not self.latent_noise:
            return prefixes
        chance = torch.Generator().manual_seed(self.seed ^ 1)  # else it would repeat what `donors` drew
        noise = [torch.randn(prefix.shape, generator=chance) for prefix in prefixes]
        return [p + self.latent_noise * n.to(p.device, p.dtype) for p, n in zip(prefixes, noise, strict=True)]


CALM = Moment()
"""No chance: what evaluation, agents and teachers live in."""
