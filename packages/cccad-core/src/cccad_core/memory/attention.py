"""Causal self-attention over a window, with rotary positions that are local to it and a cache per decision."""

import math

import torch
from attrs import Factory, define
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Rotary(nn.Module):
    """Rotate pairs of features by an angle that grows with the position (arXiv 2104.09864)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, head_width: int, num_positions: int, base: float = 1000.0) -> None:
        super().__init__()
        self.head_width, self.base = head_width, base
        self.register_buffer("cos", torch.empty(0), persistent=False)
        self.register_buffer("sin", torch.empty(0), persistent=False)
        self.reserve(num_positions)

    def reserve(self, num_positions: int) -> None:
        """Make the tables long enough for *num_positions*; what they hold already stays as it is."""
        if num_positions > len(self.cos):
            self.cos, self.sin = self._tables(num_positions, self.cos.device)

    def _tables(self, num_positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return cosine and signed sine of every position and feature, `n c`."""
        frequency = self.base ** (-torch.arange(0, self.head_width, 2, device=device) / self.head_width)
        angle = torch.outer(torch.arange(num_positions, device=device), frequency).repeat(1, 2)
        half = torch.ones(self.head_width // 2, device=device)
        return angle.cos(), angle.sin() * torch.cat([-half, half])

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate *x*, `b h n c`, by tables taken `at` its positions."""
        return x * cos + x.roll(x.shape[-1] // 2, -1) * sin

    def at(self, positions: Tensor, num_positions: int = 0) -> tuple[Tensor, Tensor]:
        """Return the tables for *positions*, `n` or `b n`, ready to multiply `b h n c`.

        Where *num_positions* are more than are held, as where nothing leaves a window, tables are made for this once.
        """
        is_held = num_positions <= len(self.cos)
        cos, sin = (self.cos, self.sin) if is_held else self._tables(num_positions, self.cos.device)
        cos, sin = cos[positions], sin[positions]
        return (cos[:, None], sin[:, None]) if positions.dim() == 2 else (cos, sin)


@define
class Cache:
    """Keys and values of one layer by window slot, `b h w c`."""

    keys: Tensor
    values: Tensor

    def doubled(self) -> "Cache":
        """Return this with as many empty slots again behind."""
        return Cache(*(torch.cat([held, torch.zeros_like(held)], 2) for held in (self.keys, self.values)))


@define(kw_only=True)
class AttentionRecord:
    """How one decision attends, handed out by the backbone on request.

    `slots`, `b`, is where in its window each row decided; `shares`, by layer, `b h w`, sum to 1 over the slots up to
    there and are 0 behind them.
    """

    slots: Tensor = Factory(lambda: torch.zeros(0, dtype=torch.int64))
    shares: list[Tensor] = Factory(list)


class Attention(nn.Module):
    """Multi-head self-attention; `b n d -> b n d`."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def project(self, x: Tensor, rotary: Rotary, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries, rotated keys and values, each `b h n c`."""
        q, k, v = rearrange(self.qkv(x), "b n (three h c) -> three b h n c", three=3, h=self.num_heads)
        return rotary(q, *tables), rotary(k, *tables), v

    def forward(self, x: Tensor, rotary: Rotary, tables: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """Attend within *x*; *mask* `n n` is True where a row may look, None means causal."""
        mixed, _, _ = self.attend(x, rotary, tables, mask)
        return mixed

    def attend(
        self, x: Tensor, rotary: Rotary, tables: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Like `forward`, and return the keys and values that a cache may keep."""
        q, k, v = self.project(x, rotary, tables)
        y = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.out(rearrange(y, "b h n c -> b n (h c)")), k, v

    def decide(
        self,
        x: Tensor,
        rotary: Rotary,
        slots: Tensor,
        cache: Cache,
        visible: Tensor,
        record: AttentionRecord | None = None,
    ) -> Tensor:
        """Attend from one token per row, `b 1 d`, standing at *slots*, `b`; its key and value enter the cache.

        *visible*, `b 1 1 w`, is True for the slots that the row may look at.
        """
        q, k, v = self.project(x, rotary, rotary.at(slots[:, None]))
        index = slots[:, None, None, None].expand(-1, self.num_heads, 1, k.shape[-1])
        cache.keys.scatter_(2, index, k)
        cache.values.scatter_(2, index, v)
        if record is not None:
            scores = q @ cache.keys.transpose(-1, -2) / math.sqrt(q.shape[-1])  # b h 1 w
            record.shares.append(scores.masked_fill(~visible, -torch.inf).softmax(-1)[:, :, 0])
        y = scaled_dot_product_attention(q, cache.keys, cache.values, attn_mask=visible)
        return torch.as_tensor(self.out(rearrange(y, "b h n c -> b n (h c)")))
