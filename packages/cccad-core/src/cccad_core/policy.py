"""The policy: tokens, compressor and backbone joined by the rolling context, with every decision a training target."""

from typing import Annotated, Any

import torch
from attrs import Factory, define, field, frozen, validators
from torch import Tensor, nn

from cccad_core.backbone import Backbone
from cccad_core.batch import HistoryBatch
from cccad_core.compressors.base import Segment, detach
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.context import ContextSpec, Piece
from cccad_core.heads import build_head
from cccad_core.reconstruction import Rebuilt, Reconstruction
from cccad_core.spaces import Spaces
from cccad_core.specs import Kind
from cccad_core.tokens import FusedSpec


@frozen(kw_only=True)
class PolicySpec:
    """A policy's shape: how it sees, how much at once, what it remembers, and how large it is."""

    tokens: Annotated[Any, Kind("tokens")] = Factory(FusedSpec)
    context: ContextSpec = Factory(ContextSpec)
    compressor: Annotated[Any, Kind("compressor")] = Factory(GatedQuerySpec)
    width: int = field(default=32, validator=validators.ge(2))
    num_layers: int = field(default=2, validator=validators.ge(1))
    num_heads: int = field(default=4, validator=validators.ge(1))
    mlp_ratio: int = field(default=4, validator=validators.ge(1))

    def __attrs_post_init__(self) -> None:
        """Check what no single field can: raises ValueError."""
        if self.width % (2 * self.num_heads):
            raise ValueError(f"'width' must be a multiple of 2 * num_heads = {2 * self.num_heads}: {self.width}")
        self.context.build(self.compressor.num_latents)

    def build(self, spaces: Spaces, seed: int) -> "Policy":
        """Return a fresh policy; its weights depend on *seed* alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Policy(self, spaces)


@define(kw_only=True)
class Decisions:
    """What one pass over a batch yields.

    `parameters`, `b t a`, are the action distribution's (logits for discrete actions). `auxiliary` holds losses by
    name, `b`, unreduced; `rebuilt` covers every write when reconstruction was asked for; `num_writes` how many
    writes were really done.
    """

    parameters: Tensor
    auxiliary: dict[str, Tensor]
    rebuilt: list[Rebuilt]
    num_writes: int


@define(kw_only=True)
class Folded:
    """What the writes of a pass leave: the prefix of every window, `b k d`, and auxiliary losses by name, `b`."""

    prefixes: list[Tensor]
    auxiliary: dict[str, Tensor]


class Policy(nn.Module):
    """Imitates the learner of a history from within that history (arXiv 2210.14215), at bounded memory."""

    def __init__(self, spec: PolicySpec, spaces: Spaces) -> None:
        super().__init__()
        self.spec, self.spaces = spec, spaces
        self.layout = spec.tokens.build(spaces, spec.width)
        self.compressor = spec.compressor.build(spec.width)
        self.context = spec.context.build(self.compressor.num_latents)
        self.backbone = Backbone(spec.width, spec.num_layers, spec.num_heads, spec.mlp_ratio, spec.context.window)
        self.head = build_head(spaces.action, spec.width)
        self.reconstruction = Reconstruction(spaces, spec.width, spec.num_heads)

    def forward(
        self, batch: HistoryBatch, *, max_gradient_rounds: int | None = None, reconstruct: bool = False
    ) -> Decisions:
        """Make every decision of *batch* in one pass, writing as the rolling context says.

        Gradients of the last window's decisions reach its *max_gradient_rounds* newest writes (all when None): the
        input state of every write that many rounds back is detached, so the newest writes always learn.
        """
        pieces = self.context.pieces(batch.length)
        tokens = self.layout.sequence(batch)
        folded = self._fold(tokens, batch.mask, pieces, max_gradient_rounds)
        return Decisions(
            parameters=self._decide(tokens, batch, folded.prefixes, pieces),
            auxiliary=folded.auxiliary,
            rebuilt=self._rebuild(folded.prefixes[1:], batch, pieces[:-1]) if reconstruct else [],
            num_writes=len(folded.prefixes) - 1,
        )

    def fold(self, batch: HistoryBatch, *, max_gradient_rounds: int | None = None) -> list[Rebuilt]:
        """Only write, and rebuild what each write folded in: the pass of reconstruction pre-training."""
        pieces = self.context.pieces(batch.length)
        folded = self._fold(self.layout.sequence(batch), batch.mask, pieces, max_gradient_rounds)
        return self._rebuild(folded.prefixes[1:], batch, pieces[:-1])

    def _fold(self, tokens: Tensor, mask: Tensor, pieces: list[Piece], max_gradient_rounds: int | None) -> Folded:
        """Write between each two *pieces*; return the prefix that every piece sees."""
        state = self.compressor.begin(tokens.shape[0])
        folded = Folded(prefixes=[self.compressor.read(state)], auxiliary={})
        is_padded = not bool(mask.all())
        for index, piece in enumerate(pieces[:-1]):
            rounds_left = len(pieces) - 1 - index
            if max_gradient_rounds is not None and rounds_left % max_gradient_rounds == 0:
                state = detach(state)
            part = slice(piece.start, piece.stop)
            segment = Segment(tokens=tokens[:, part], mask=mask[:, part] if is_padded else None)
            state, losses = self.compressor.write(state, segment)
            folded.prefixes.append(self.compressor.read(state))
            for name, loss in losses.items():
                folded.auxiliary[name] = folded.auxiliary.get(name, 0.0) + loss
        return folded

    def _decide(self, tokens: Tensor, batch: HistoryBatch, prefixes: list[Tensor], pieces: list[Piece]) -> Tensor:
        """Return the parameters of all decisions, `b t a`: windows of one length pass the backbone together."""
        asked = self.layout.asking(batch.observations) if self.layout.asks else None
        told: dict[int, Tensor] = {}
        for together in _by_length([piece.stop - piece.raw_start for piece in pieces]):
            windows = [slice(pieces[i].raw_start, pieces[i].stop) for i in together]
            hidden = self.backbone(
                torch.cat([prefixes[i] for i in together]),
                torch.cat([tokens[:, window] for window in windows]),
                None if asked is None else torch.cat([asked[:, window] for window in windows]),
            )
            told.update(zip(together, self.head(hidden).chunk(len(together)), strict=True))
        return torch.cat([told[i][:, piece.start - piece.raw_start :] for i, piece in enumerate(pieces)], 1)

    def _rebuild(self, latents: list[Tensor], batch: HistoryBatch, pieces: list[Piece]) -> list[Rebuilt]:
        """Rebuild, from the latents after each write, the transitions that lie wholly inside its segment's tokens."""
        behind = 0 if self.layout.asks else 1
        rebuilt: list[Rebuilt] = []
        for together in _by_length([piece.stop - piece.start for piece in pieces]):
            segments = [batch.at(slice(pieces[i].start, pieces[i].stop - behind)) for i in together]
            rebuilt.append(self.reconstruction(torch.cat([latents[i] for i in together]), HistoryBatch.join(segments)))
        return rebuilt


def _by_length(lengths: list[int]) -> list[list[int]]:
    """Return the places of each distinct length."""
    return [[i for i, other in enumerate(lengths) if other == length] for length in dict.fromkeys(lengths)]
