"""Latents that look, and how memory is shown: the layers that compressors share."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from cccad_core.compressors.base import Segment, linear_flops, sinusoids


class Look(nn.Module):
    """Latents attend to themselves and to a segment, then pass a feed-forward; `b k d, b s d -> b k d`."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"'compressor.num_heads' must divide 'width' = {width}: {num_heads}")
        self.num_heads = num_heads
        self.norm_latents = nn.LayerNorm(width)
        self.norm_segment = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.ReLU(), nn.Linear(mlp_ratio * width, width))

    def forward(self, latents: Tensor, segment: Tensor, mask: Tensor | None, *, alone: bool = False) -> Tensor:
        """*mask*, `b s`, hides padding of the segment; *alone*, each latent sees no other latent but itself."""
        own = self.norm_latents(latents)
        sources = torch.cat([own, self.norm_segment(segment)], 1)
        q = rearrange(self.query(own), "b k (h c) -> b h k c", h=self.num_heads)
        k, v = rearrange(self.key_value(sources), "b s (two h c) -> two b h s c", two=2, h=self.num_heads)
        visible, num_latents = None, latents.shape[1]
        if mask is not None or alone:
            among = torch.ones(num_latents, num_latents, dtype=torch.bool, device=latents.device)
            among = torch.eye(num_latents, dtype=torch.bool, device=latents.device) if alone else among
            real = among.new_ones(segment.shape[:2]) if mask is None else mask  # b s
            own_part, segment_part = among.expand(len(latents), -1, -1), real[:, None].expand(-1, num_latents, -1)
            visible = torch.cat([own_part, segment_part], 2)[:, None]  # b 1 k k+s
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=visible)
        latents = latents + self.out(rearrange(mixed, "b h k c -> b k (h c)"))
        changed: Tensor = latents + self.mlp(self.norm_mlp(latents))
        return changed

    def flops(self, num_latents: int, num_tokens: int) -> int:
        """Return what one row's look costs, 2 for each multiply-add."""
        num_sources = num_latents + num_tokens
        of_latents = linear_flops(num_latents, self.query, self.out, *self.mlp)
        return (
            of_latents
            + linear_flops(num_sources, self.key_value)
            + 4 * num_latents * num_sources * self.query.in_features
        )


class Place(nn.Module):
    """Mark where in its segment each token stood, and pick what is folded: tokens as they enter the backbone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, segment: Segment) -> Tensor:
        tokens = segment.tokens
        placed: Tensor = tokens + self.scale * sinusoids(tokens.shape[1], tokens.shape[2], tokens)
        return placed


class Show(nn.Module):
    """What the backbone sees of memory: normalised, projected, each vector marked by its slot; `b k d -> b k d`."""

    def __init__(self, num_latents: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width, bias=False)
        self.slots = nn.Parameter(torch.randn(num_latents, width) * width**-0.5)

    def forward(self, latents: Tensor) -> Tensor:
        shown: Tensor = self.project(self.norm(latents)) + self.slots
        return shown
