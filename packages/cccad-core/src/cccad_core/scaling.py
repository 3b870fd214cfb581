"""The range of a box as tensors: what encoders scale by, and what heads squash into."""

import torch
from torch import Tensor

from cccad_core.spaces import Box

HUGE = 1e18
"""A bound from here on says nothing of the scale of its feature; below, float32 still holds the square of a range."""


def unit_range(space: Box) -> tuple[Tensor, Tensor, Tensor]:
    """Return centre and scale of every feature, and whether it has two bounds; without, and where constant, scale 1."""
    low, high = (torch.tensor(bound, dtype=torch.float32) for bound in space.bounds())
    bounded = (low.abs() < HUGE) & (high.abs() < HUGE)
    half = (high - low) / 2
    scaled = bounded & (half > torch.finfo(torch.float32).tiny)
    return torch.where(bounded, (low + high) / 2, 0.0), torch.where(scaled, half, 1.0), bounded
