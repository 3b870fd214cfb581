"""The policy: tokens, memory and backbone joined by the rolling context, with every decision a training target."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from attrs import define, field, frozen, validators
from torch import Tensor, nn

from cccad_core.batch import Flags, HistoryBatch
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.encoders.base import Encoders
from cccad_core.fitting import encoder_for, head_for
from cccad_core.heads.reconstruction import Reconstruction
from cccad_core.layouts import FusedSpec
from cccad_core.memory.backbone import Backbone
from cccad_core.memory.context import ContextSpec
from cccad_core.memory.folding import Memory, remember
from cccad_core.memory.moment import CALM, Moment
from cccad_core.memory.windows import Windows
from cccad_core.registry import refuse_what_lacks
from cccad_core.spaces import Spaces
from cccad_core.specs import Kind


@frozen(kw_only=True)
class PolicySpec:
    """A policy's shape: how it sees, how much at once, what it remembers, and how large it is."""

    tokens: Annotated[Any, Kind("tokens")] = field(
        factory=FusedSpec, metadata={"help": "how transitions become tokens"}
    )
    encoder: Annotated[Any, Kind("encoder")] | None = field(
        default=None, metadata={"help": "how observations are read; by default as fits their space"}
    )
    head: Annotated[Any, Kind("head")] | None = field(
        default=None, metadata={"help": "how actions are drawn; by default as fits their space"}
    )
    context: ContextSpec = field(factory=ContextSpec, metadata={"help": "how much it sees, and when it writes"})
    compressor: Annotated[Any, Kind("compressor")] = field(
        factory=GatedQuerySpec, metadata={"help": "what becomes of what leaves the window"}
    )
    width: int = field(default=32, validator=validators.ge(2), metadata={"help": "of tokens and hidden states"})
    num_layers: int = field(
        default=2, validator=[validators.ge(1), validators.le(1_000)], metadata={"help": "of the backbone"}
    )
    num_heads: int = field(default=4, validator=validators.ge(1), metadata={"help": "attention heads of the backbone"})
    mlp_ratio: int = field(
        default=4,
        validator=validators.ge(1),
        metadata={"help": "width of the backbone's hidden layers, in widths of the model"},
    )

    def __attrs_post_init__(self) -> None:
        """Check what no single field can: raises ValueError."""
        refuse_what_lacks(self.tokens, "tokens")
        refuse_what_lacks(self.compressor, "compressor")
        for kind, part in (("encoder", self.encoder), ("head", self.head)):
            if part is not None:
                refuse_what_lacks(part, kind)
        if self.width % (2 * self.num_heads):
            raise ValueError(f"'width' must be a multiple of 2 * num_heads = {2 * self.num_heads}: {self.width}")
        self.context.build(self.compressor.num_latents, slots=self.tokens.slots)

    @property
    def has_plain_window(self) -> bool:
        """Whether what leaves the window is forgotten, as in plain Algorithm Distillation."""
        return not self.compressor.num_latents and self.compressor.build(self.width).evicts

    def encoders(self, spaces: Spaces) -> Encoders:
        """Return what reads observations and actions; raises SpaceError where no encoder does."""
        return Encoders(
            spaces=spaces,
            width=self.width,
            for_observations=encoder_for(spaces.observation, self.encoder),
            for_actions=encoder_for(spaces.action),
        )

    def build(self, spaces: Spaces, seed: int) -> "Policy":
        """Return a fresh policy; its weights depend on *seed* alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Policy(self, spaces)


@define
class Decisions:
    """What one pass over a batch yields.

    `hidden`: what the policy knows at every decision, `n t d`, window by window, as `windows` shows them; `memory`:
    what the writes left.
    """

    hidden: list[Tensor]
    memory: Memory
    windows: Windows

    def ask(self, head: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what *head* says of every decision, `b t a`."""
        return self.windows.in_time([head(hidden) for hidden in self.hidden])


HEADS = ("head", "reconstruction")
"""What an objective may ask a policy: which action it takes, and what was folded into its latents."""


class Policy(nn.Module):
    """Imitates the learner of a history from within that history (arXiv 2210.14215), at bounded memory."""

    def __init__(self, spec: PolicySpec, spaces: Spaces) -> None:
        super().__init__()
        self.spec, self.spaces = spec, spaces
        encoders = spec.encoders(spaces)
        self.layout = spec.tokens.build(encoders)
        self.compressor = spec.compressor.build(spec.width)
        self.context = spec.context.build(
            self.compressor.num_latents, slots=self.layout.slots, evicts=self.compressor.evicts
        )
        longest = max(spec.context.window, self.compressor.num_thought(self.context.first_segment * self.layout.slots))
        self.backbone = Backbone(spec.width, spec.num_layers, spec.num_heads, spec.mlp_ratio, longest)
        self.head = head_for(spaces.action, spec.head).build(spaces.action, spec.width)
        self.reconstruction = Reconstruction(encoders, spec.num_heads, slots=self.layout.slots)

    def forward(
        self, batch: HistoryBatch, *, flags: Flags | None = None, horizon: int | None = None, moment: Moment = CALM
    ) -> Decisions:
        """Make every decision of *batch* in one pass, writing as the rolling context says.

        Gradients of the last window's decisions reach its *horizon* newest writes (see `folding.fold`). *moment* is all
        the chance that there is. *flags*: those of the batch, if they are at hand on the CPU.
        """
        windows = self.context.windows(flags or batch.flags(), moment, batch.mask.device)
        tokens, queries = self.layout.sequence(batch), self.layout.queries(batch)
        memory = self.remember(windows, tokens, batch.mask, horizon=horizon, moment=moment)
        shown = windows.shown(memory.prefixes, tokens, queries)
        hidden = [self.backbone(*together)[:, :: self.layout.slots] for together in shown]
        return Decisions(hidden, memory, windows)

    def remember(
        self, windows: Windows, tokens: Tensor, mask: Tensor, *, horizon: int | None = None, moment: Moment = CALM
    ) -> Memory:
        """Fold a stretch of *tokens* into memory without deciding anything: what pre-training asks for."""
        think = self.backbone.think
        return remember(self.compressor, windows, tokens, mask, think=think, horizon=horizon, moment=moment)
