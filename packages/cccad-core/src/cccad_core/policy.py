"""The policy: tokens, compressor and backbone joined by the rolling context, with every decision a training target."""

from typing import Annotated, Any

import torch
from attrs import Factory, define, field, frozen, validators
from torch import Tensor, nn

from cccad_core.backbone import Backbone
from cccad_core.batch import HistoryBatch
from cccad_core.compressors.base import keep_rows, take_rows
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.context import ContextSpec
from cccad_core.heads import build_head
from cccad_core.moment import Moment
from cccad_core.passes import Apart, Folded, Together
from cccad_core.reconstruction import Rebuilt, Reconstruction
from cccad_core.registry import refuse_what_lacks
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
    num_layers: int = field(default=2, validator=[validators.ge(1), validators.le(1_000)])
    num_heads: int = field(default=4, validator=validators.ge(1))
    mlp_ratio: int = field(default=4, validator=validators.ge(1))

    def __attrs_post_init__(self) -> None:
        """Check what no single field can: raises ValueError."""
        refuse_what_lacks(self.tokens, "tokens")
        refuse_what_lacks(self.compressor, "compressor")
        if self.width % (2 * self.num_heads):
            raise ValueError(f"'width' must be a multiple of 2 * num_heads = {2 * self.num_heads}: {self.width}")
        self.context.build(self.compressor.num_latents, slots=self.tokens.slots)

    @property
    def has_plain_window(self) -> bool:
        """Whether what leaves the window is forgotten, as in plain Algorithm Distillation."""
        return not self.compressor.num_latents and self.compressor.build(self.width).evicts

    def build(self, spaces: Spaces, seed: int) -> "Policy":
        """Return a fresh policy; its weights depend on *seed* alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Policy(self, spaces)


@define(kw_only=True)
class Decisions:
    """What one pass over a batch yields.

    `parameters`, `b t a`, are the action distribution's (logits for discrete actions). `auxiliary` holds losses by
    name, `b`, unreduced; `rebuilt` covers every write when reconstruction was asked for; `plan` says where the windows
    were, and `writes`, `b`, how many were really done.
    """

    parameters: Tensor
    auxiliary: dict[str, Tensor]
    rebuilt: list[Rebuilt]
    plan: Together | Apart
    writes: Tensor

    @property
    def num_writes(self) -> int:
        """Writes in the row with the most."""
        return int(self.writes.max())


class Policy(nn.Module):
    """Imitates the learner of a history from within that history (arXiv 2210.14215), at bounded memory."""

    num_passes: Tensor

    def __init__(self, spec: PolicySpec, spaces: Spaces) -> None:
        super().__init__()
        self.spec, self.spaces = spec, spaces
        self.layout = spec.tokens.build(spaces, spec.width)
        self.compressor = spec.compressor.build(spec.width)
        self.context = spec.context.build(
            self.compressor.num_latents, slots=self.layout.slots, evicts=self.compressor.evicts
        )
        longest = max(spec.context.window, self.compressor.num_thought(self.context.first_segment * self.layout.slots))
        self.backbone = Backbone(spec.width, spec.num_layers, spec.num_heads, spec.mlp_ratio, longest)
        self.head = build_head(spaces.action, spec.width)
        self.reconstruction = Reconstruction(spaces, spec.width, spec.num_heads, slots=self.layout.slots)
        if spec.context.trigger == "random":
            self.register_buffer("num_passes", torch.zeros((), dtype=torch.int64))  # seeds them; saved with the weights

    def forward(
        self,
        batch: HistoryBatch,
        *,
        max_gradient_rounds: int | None = None,
        reconstruct: bool = False,
        moment: Moment | None = None,
    ) -> Decisions:
        """Make every decision of *batch* in one pass, writing as the rolling context says.

        Gradients of the last window's decisions reach its *max_gradient_rounds* newest writes (all when None): the
        input state of every write that many rounds back is detached, so the newest writes always learn. *moment*: what
        chance does to this pass, in training alone. Raises ValueError unless max_gradient_rounds >= 1.
        """
        plan, tokens = self.plan(batch), self.layout.sequence(batch)
        folded = self._fold(plan, tokens, batch, max_gradient_rounds, moment)
        return Decisions(
            parameters=plan.decide(self, tokens, batch, folded),
            auxiliary=folded.auxiliary,
            rebuilt=plan.rebuild(self, batch, folded) if reconstruct else [],
            plan=plan,
            writes=folded.writes,
        )

    def fold(self, batch: HistoryBatch, *, max_gradient_rounds: int | None = None) -> list[Rebuilt]:
        """Only write, and rebuild what each write folded in: the pass of reconstruction pre-training."""
        plan = self.plan(batch)
        folded = self._fold(plan, self.layout.sequence(batch), batch, max_gradient_rounds, None)
        return plan.rebuild(self, batch, folded)

    def _fold(
        self, plan: Together | Apart, tokens: Tensor, batch: HistoryBatch, rounds: int | None, moment: Moment | None
    ) -> Folded:
        if rounds is not None and rounds < 1:
            raise ValueError(f"'max_gradient_rounds' must be >= 1, or None for all: {rounds}")
        state = self.compressor.begin(batch.size)
        if moment is None or not self.training:
            return plan.fold(self, tokens, batch.mask, rounds, state)
        donors, is_passed = moment.donors(batch.size)
        if is_passed.any():
            with torch.no_grad():
                final = plan.fold(self, tokens, batch.mask, rounds, state).state
            torch.clear_autocast_cache()  # else weights that were cast here would get no gradient below
            lent = take_rows(final, donors.to(tokens.device))
            state = keep_rows(lent, state, is_passed.to(tokens.device))
        folded = plan.fold(self, tokens, batch.mask, rounds, state)
        folded.prefixes = moment.blur(folded.prefixes)
        return folded

    def plan(self, batch: HistoryBatch) -> Together | Apart:
        """Return where the windows of a pass over *batch* begin and end.

        Where chance triggers, training passes are numbered, and the number is the seed: every process of one run cuts
        an update alike. Outside of training such a policy writes when its window is full.
        """
        if self.context.by_row:
            return Apart.of(self.context, (batch.terminations | batch.truncations) & batch.mask)
        lengths = None
        if self.training and self.context.trigger == "random":
            lengths = self.context.random_lengths(int(self.num_passes))
            self.num_passes += 1
        return Together(pieces=self.context.pieces(batch.length, lengths=lengths))
