"""Histories of noise, in which parts are checked, and what is done to them."""

import torch
from attrs import evolve
from torch import Tensor

from cccad_core.batch import HistoryBatch
from cccad_core.spaces import (
    Box,
    Dict,
    Discrete,
    MultiDiscrete,
    Space,
    Spaces,
    Tuple,
    dtype_of,
    leaves_of,
)

WIDTH = 16
SPACES = Spaces(observation=MultiDiscrete((5, 4)), action=Discrete(3))


def random_batch(spaces: Spaces, *, size: int, length: int, seed: int) -> HistoryBatch:
    """Return histories of noise, without padding; episodes of 7 decisions terminate and are cut off by turns."""
    generator = torch.Generator().manual_seed(seed)

    def draw(space: Space) -> Tensor:
        if isinstance(space, Dict | Tuple):
            parts = [draw(leaf.space) for leaf in leaves_of(space)]
            return torch.cat([part.to(getattr(torch, dtype_of(space))) for part in parts], -1)
        if isinstance(space, Box) and space.dtype == "uint8":
            low, high = (torch.tensor(bound) for bound in space.bounds())
            share = torch.rand(size, length, space.num_features, generator=generator)
            return (low + share * (high - low + 1)).clamp(low, high).to(torch.uint8)
        if isinstance(space, Box):
            noise = torch.randn(size, length, space.num_features, generator=generator)
            low, high = (torch.tensor(bound) for bound in space.bounds())
            is_bounded = low.isfinite() & high.isfinite()
            return torch.where(is_bounded, low + (high - low) * noise.sigmoid(), noise).clamp(low, high)
        return torch.stack([torch.randint(n, (size, length), generator=generator) for n in space.sizes], -1)

    actions = draw(spaces.action)
    end = (torch.arange(length) + 4 * torch.arange(size)[:, None]) % 14  # rows end episodes at different times
    return HistoryBatch(
        observations=draw(spaces.observation),
        actions=actions[..., 0] if isinstance(spaces.action, Discrete) else actions,
        rewards=torch.randint(2, (size, length), generator=generator).float(),
        terminations=end == 6,
        truncations=end == 13,
        next_observations=draw(spaces.observation),
        mask=torch.ones(size, length, dtype=torch.bool),
        targets=torch.ones(size, length, dtype=torch.bool),
    )


def edit_after(batch: HistoryBatch, other: HistoryBatch, at: Tensor) -> HistoryBatch:
    """Return *batch* with all that decision `at[i]` of row *i* may not know from *other*, and its rewards raised."""
    late = torch.arange(batch.length) >= at[:, None]
    later = torch.arange(batch.length) > at[:, None]
    by_action = late if batch.actions.dim() == 2 else late[..., None]
    return evolve(
        batch,
        observations=torch.where(later[..., None], other.observations, batch.observations),
        actions=torch.where(by_action, other.actions, batch.actions),
        rewards=torch.where(late, other.rewards + 3.0, batch.rewards),
        next_observations=torch.where(late[..., None], other.next_observations, batch.next_observations),
        terminations=batch.terminations ^ late,
    )


def padded_with_garbage(batch: HistoryBatch, noise: HistoryBatch) -> HistoryBatch:
    """Return *batch* with what its mask hides replaced by *noise* and absurd rewards."""
    garbage = evolve(noise, rewards=noise.rewards + 100.0)
    hidden = ("observations", "actions", "rewards", "next_observations", "terminations")
    fields = {name: _padded(batch.mask, getattr(batch, name), getattr(garbage, name)) for name in hidden}
    return evolve(batch, **fields)


def _padded(mask: Tensor, value: Tensor, garbage: Tensor) -> Tensor:
    return torch.where(mask if value.dim() == 2 else mask[..., None], value, garbage)
