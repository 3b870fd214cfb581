"""The policy: a layout makes tokens, a memory makes hidden states of them, and heads say what these mean."""

from typing import Annotated, Any, ClassVar

import torch
from attrs import field, frozen, validators
from torch import nn

from cccad_core.batch import Flags, HistoryBatch
from cccad_core.encoders.base import Encoders
from cccad_core.fitting import encoder_for, head_for
from cccad_core.heads.reconstruction import Reconstruction
from cccad_core.layouts import FusedSpec, ObservationSpec
from cccad_core.memory.base import Decisions, HasLatents, HasPlainWindow, Memory, Tokens
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.memory.memoryless import MemorylessSpec
from cccad_core.memory.moment import CALM, Moment
from cccad_core.registry import refuse_what_lacks
from cccad_core.spaces import Spaces
from cccad_core.specs import Kind


@frozen(kw_only=True)
class PolicySpec:
    """A policy's shape: how it sees, what it remembers, and how wide it is."""

    MOVED: ClassVar[dict[str, str]] = {
        **{f"context.{name}": f"memory.{name}" for name in ("window", "carry", "trigger")},
        "context.every": "memory.trigger.decisions",
        **{name: f"memory.{name}" for name in ("compressor", "num_layers", "num_heads", "mlp_ratio")},
    }

    tokens: Annotated[Any, Kind("tokens")] = field(
        factory=FusedSpec, metadata={"help": "how transitions become tokens"}
    )
    encoder: Annotated[Any, Kind("encoder")] | None = field(
        default=None, metadata={"help": "how observations are read; by default as fits their space"}
    )
    head: Annotated[Any, Kind("head")] | None = field(
        default=None, metadata={"help": "how actions are drawn; by default as fits their space"}
    )
    memory: Annotated[Any, Kind("memory")] = field(
        factory=CompressedSpec, metadata={"help": "what is carried from one decision to the next"}
    )
    width: int = field(default=32, validator=validators.ge(2), metadata={"help": "of tokens and hidden states"})

    def __attrs_post_init__(self) -> None:
        """Check what no single field can: raises ValueError."""
        refuse_what_lacks(self.tokens, "tokens")
        refuse_what_lacks(self.memory, "memory")
        for kind, part in (("encoder", self.encoder), ("head", self.head)):
            if part is not None:
                refuse_what_lacks(part, kind)
        self.memory.check(self.width, self.tokens.slots)

    @property
    def num_latents(self) -> int:
        """Latents that the memory shows at every decision: 0 where it has none."""
        return self.memory.num_latents if isinstance(self.memory, HasLatents) else 0

    @property
    def has_plain_window(self) -> bool:
        """Whether what leaves its window is forgotten, as in plain Algorithm Distillation."""
        return isinstance(self.memory, HasPlainWindow) and self.memory.is_plain(self.width)

    @property
    def is_blind(self) -> bool:
        """Whether a decision depends on the current observation alone, so that no task can be told from another."""
        return isinstance(self.tokens, ObservationSpec) and isinstance(self.memory, MemorylessSpec)

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


HEADS = ("head", "reconstruction")
"""What an objective may ask a policy: which action it takes, and what was folded into its latents."""


class Policy(nn.Module):
    """Imitates the learner of a history from within that history (arXiv 2210.14215), at bounded memory."""

    def __init__(self, spec: PolicySpec, spaces: Spaces) -> None:
        super().__init__()
        self.spec, self.spaces = spec, spaces
        encoders = spec.encoders(spaces)
        self.layout = spec.tokens.build(encoders)
        self.memory: Memory[Any] = spec.memory.build(spec.width, self.layout.slots)
        self.head = head_for(spaces.action, spec.head).build(spaces.action, spec.width)
        self.reconstruction = Reconstruction(encoders, self.memory.num_heads, slots=self.layout.slots)

    def forward(
        self, batch: HistoryBatch, *, flags: Flags | None = None, horizon: int | None = None, moment: Moment = CALM
    ) -> Decisions:
        """Make every decision of *batch* in one pass; *flags*, *horizon* and *moment* are those of `Memory.forward`.

        *moment* is all the chance that there is. *flags*: those of the batch, if they are at hand on the CPU.
        """
        return self.memory(self.tokens(batch, flags), horizon=horizon, moment=moment)  # type: ignore[no-any-return]

    def tokens(self, batch: HistoryBatch, flags: Flags | None = None) -> Tokens:
        """Return what the memory reads of *batch*."""
        history, queries = self.layout.sequence(batch), self.layout.queries(batch)
        return Tokens(history=history, queries=queries, mask=batch.mask, flags=flags or batch.flags())
