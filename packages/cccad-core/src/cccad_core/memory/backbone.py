"""The decoder-only transformer that reads a window: compressed prefix, raw tokens, and queries where a layout asks."""

from typing import cast

import torch
from torch import Tensor, nn

from cccad_core.memory.attention import Attention, AttentionRecord, Cache, Rotary


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.ReLU(), nn.Linear(mlp_ratio * width, width))


class Backbone(nn.Module):
    """A stack of `Block`s over at most *window* slots, positions local to the window."""

    def __init__(self, width: int, num_layers: int, num_heads: int, mlp_ratio: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.rotary = Rotary(width // num_heads, window)
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        for block in self.layers:
            for last in (block.attention.out, cast("nn.Linear", block.mlp[2])):
                nn.init.normal_(last.weight, std=(2 * num_layers * last.in_features) ** -0.5)

    @property
    def layers(self) -> list[Block]:
        """The blocks, from the input to the output."""
        return cast("list[Block]", list(self.blocks))

    def forward(self, prefix: Tensor, tokens: Tensor, queries: Tensor | None = None) -> Tensor:
        """Return the hidden state of one decision per token, `b n d`.

        Shapes: *prefix* `b k d`, *tokens* `b n d`, and, where a layout asks, *queries* `b n d`: query *i* stands where
        token *i* would, and sees the prefix, the tokens before its own, and itself. Without queries the tokens decide.
        """
        k, n = prefix.shape[1], tokens.shape[1]
        if queries is None:
            hidden, _ = self.run(torch.cat([prefix, tokens], 1), torch.arange(k + n, device=tokens.device), None)
            return hidden[:, k:]
        slots, mask = _asking(k, n, tokens.device)
        hidden, _ = self.run(torch.cat([prefix, tokens, queries], 1), slots, mask)
        return hidden[:, k + n :]

    def think(self, x: Tensor, slots: Tensor, mask: Tensor | None) -> Tensor:
        """Return the hidden states of *x*, `b n d`, standing at *slots*, `n` or `b n`: what a compressor may use."""
        return self.run(x, slots, mask)[0]

    def flops(self, num_vectors: int) -> int:
        """Return what `think` costs for one row of *num_vectors*, 2 for each multiply-add; attention counts as full."""
        layers = [part for part in self.modules() if isinstance(part, nn.Linear)]
        attention = 4 * num_vectors**2 * self.norm.weight.numel() * len(self.blocks)
        return attention + 2 * num_vectors * sum(layer.weight.numel() for layer in layers)

    def run(self, x: Tensor, slots: Tensor, mask: Tensor | None) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return hidden states of *x*, `b n d`, standing at *slots*, and each layer's keys and values, `b h n c`."""
        x, kept = self._through(self.layers, x, self.rotary.at(slots, x.shape[1]), mask)
        return self.norm(x), kept

    def keys_and_values(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's keys and values of *x*, `b n d`, from slot 0 on: as `run`, without the last output."""
        tables = self.rotary.at(torch.arange(x.shape[1], device=x.device), x.shape[1])
        *lower, last = self.layers
        x, kept = self._through(lower, x, tables, None)
        _, keys, values = last.attention.project(last.norm_attention(x), self.rotary, tables)
        return [*kept, (keys, values)]

    def _through(
        self, blocks: list[Block], x: Tensor, tables: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Return what *blocks* make of *x* one after the other, and the keys and values that each attended to."""
        kept = []
        for block in blocks:
            mixed, keys, values = block.attention.attend(block.norm_attention(x), self.rotary, tables, mask)
            kept.append((keys, values))
            x = x + mixed
            x = x + block.mlp(block.norm_mlp(x))
        return x, kept

    def empty_cache(self, rows: int, window: int, like: Tensor) -> list[Cache]:
        """Return caches for *rows* lives, of zeros."""
        width = like.shape[-1] // self.num_heads
        return [Cache(*like.new_zeros(2, rows, self.num_heads, window, width)) for _ in self.blocks]

    def decide(self, x: Tensor, slots: Tensor, caches: list[Cache], record: AttentionRecord | None = None) -> Tensor:
        """Return the hidden state, `b 1 d`, of one token per row at *slots*, `b`, and put it into the caches.

        What each layer attends to is added to *record*, if there is one.
        """
        window = caches[0].keys.shape[2]
        visible = (torch.arange(window, device=x.device) <= slots[:, None])[:, None, None]
        for block, cache in zip(self.layers, caches, strict=True):
            x = x + block.attention.decide(block.norm_attention(x), self.rotary, slots, cache, visible, record)
            x = x + block.mlp(block.norm_mlp(x))
        hidden: Tensor = self.norm(x)
        return hidden


def _asking(k: int, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return slots and mask of `[prefix, tokens, queries]`: query *i* stands where its token would, and replaces it."""
    slots = torch.cat([torch.arange(k + n, device=device), torch.arange(k, k + n, device=device)])
    is_query = torch.arange(k + 2 * n, device=device) >= k + n
    earlier = slots[None, :] < slots[:, None]
    mask = (earlier & ~is_query) | torch.eye(k + 2 * n, dtype=torch.bool, device=device)
    return slots, mask
