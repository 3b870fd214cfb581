"""The policy: tokens, compressor and backbone joined by the rolling context, with every decision a training target."""

from typing import Annotated, Any

import torch
from attrs import Factory, define, field, frozen, validators
from torch import Tensor, nn

from cccad_core.backbone import Backbone
from cccad_core.batch import HistoryBatch
from cccad_core.compressors.base import Segment, State, detach
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.context import ContextSpec
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
    name, `b`, unreduced; `rebuilt` one entry per write when reconstruction was asked for; `num_writes` how many
    writes were really done.
    """

    parameters: Tensor
    auxiliary: dict[str, Tensor]
    rebuilt: list[Rebuilt]
    num_writes: int


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
        tokens = self.layout.sequence(batch)
        queries = self.layout.asking(batch.observations) if self.layout.asks else None
        state, parameters = self.compressor.begin(batch.size), []
        auxiliary: dict[str, Tensor] = {}
        rebuilt: list[Rebuilt] = []
        pieces = self.context.pieces(batch.length)
        for index, piece in enumerate(pieces):
            asked = None if queries is None else queries[:, piece.start : piece.stop]
            _, hidden = self.backbone(self.compressor.read(state), tokens[:, piece.raw_start : piece.stop], asked)
            parameters.append(self.head(hidden[:, hidden.shape[1] - (piece.stop - piece.start) :]))
            rounds_left = len(pieces) - 1 - index
            if rounds_left:
                state = self._truncate(state, rounds_left, max_gradient_rounds)
                state, losses = self._write(state, tokens, batch.mask, piece.start, piece.stop)
                auxiliary = {name: auxiliary.get(name, 0.0) + loss for name, loss in losses.items()}
                if reconstruct:
                    rebuilt.append(self._rebuild(state, batch, piece.start, piece.stop))
        return Decisions(
            parameters=torch.cat(parameters, 1), auxiliary=auxiliary, rebuilt=rebuilt, num_writes=len(pieces) - 1
        )

    def fold(self, batch: HistoryBatch, *, max_gradient_rounds: int | None = None) -> list[Rebuilt]:
        """Only write, and rebuild what each write folded in: the pass of reconstruction pre-training."""
        tokens, state = self.layout.sequence(batch), self.compressor.begin(batch.size)
        rebuilt: list[Rebuilt] = []
        pieces = self.context.pieces(batch.length)[:-1]
        for index, piece in enumerate(pieces):
            state = self._truncate(state, len(pieces) - index, max_gradient_rounds)
            state, _ = self._write(state, tokens, batch.mask, piece.start, piece.stop)
            rebuilt.append(self._rebuild(state, batch, piece.start, piece.stop))
        return rebuilt

    def _truncate(self, state: State, rounds_left: int, max_gradient_rounds: int | None) -> State:
        cut = max_gradient_rounds is not None and rounds_left % max_gradient_rounds == 0
        return detach(state) if cut else state

    def _write(
        self, state: State, tokens: Tensor, mask: Tensor, start: int, stop: int
    ) -> tuple[State, dict[str, Tensor]]:
        part = mask[:, start:stop]
        segment = Segment(tokens=tokens[:, start:stop], mask=None if bool(part.all()) else part)
        written: tuple[State, dict[str, Tensor]] = self.compressor.write(state, segment)
        return written

    def _rebuild(self, state: State, batch: HistoryBatch, start: int, stop: int) -> Rebuilt:
        """Rebuild the transitions that lie wholly inside a segment's tokens."""
        complete = stop if self.layout.asks else stop - 1
        rebuilt: Rebuilt = self.reconstruction(self.compressor.read(state), batch.at(slice(start, complete)))
        return rebuilt
