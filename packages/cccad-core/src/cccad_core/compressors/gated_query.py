"""Each latent looks at the segment and moves towards what is there, as far as a learned gate lets it.

The gate starts biased to remember, so gradients reach far back through many writes (compare the forget bias of an LSTM,
the gates of GTrXL, arXiv 1910.06764, and the recurrent state of Block-Recurrent Transformers, arXiv 2203.07852). It
is a stretched sigmoid (arXiv 1712.01312), which can close wholly: what is not written over is not forgotten.
"""

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn

from cccad_core.compressors.base import Compressor, Segment, State, linear_flops
from cccad_core.compressors.latents import Look, Place


@frozen(kw_only=True)
class GatedQuerySpec:
    """Latents look at themselves and the segment, and a learned gate decides how far each moves (the default)."""

    num_latents: int = field(default=8, validator=validators.ge(1), metadata={"help": "tokens of memory"})
    num_layers: int = field(
        default=1, validator=[validators.ge(1), validators.le(1_000)], metadata={"help": "layers of the fold"}
    )
    num_heads: int = field(default=4, validator=validators.ge(1), metadata={"help": "attention heads of the fold"})
    mlp_ratio: int = field(
        default=2,
        validator=validators.ge(1),
        metadata={"help": "width of the hidden layer of the fold's perceptron, in widths of the model"},
    )
    gate_bias: float = field(default=-1.0, metadata={"help": "below 0 a fresh gate keeps more than it takes"})
    gate_stretch: float = field(
        default=0.3,
        validator=validators.ge(0.0),
        metadata={"help": "how far the gate's sigmoid reaches beyond 0 and 1, where it is cut; 0: it never closes"},
    )
    gate_cost: float = field(
        default=0.0,
        validator=validators.ge(0.0),
        metadata={"help": "auxiliary loss of a write through a wholly open gate; keeps shut what need not change"},
    )

    def build(self, width: int) -> "GatedQuery":
        return GatedQuery(self, width)


class Gate(nn.Module):
    """How far each feature moves from *old* to *answers*, 0 to 1; `b k d, b k d -> b k d`."""

    def __init__(self, width: int, bias: float, stretch: float) -> None:
        super().__init__()
        self.open = nn.Linear(2 * width, width)
        nn.init.constant_(self.open.bias, bias)
        self.stretch = stretch

    def forward(self, old: Tensor, answers: Tensor) -> Tensor:
        share = torch.sigmoid(self.open(torch.cat([old, answers], -1)))
        return torch.clamp(share * (1 + 2 * self.stretch) - self.stretch, 0, 1)


class GatedQuery(Compressor):
    """State: `latents`, `b k d`; each write is a convex combination of bounded vectors, so it cannot grow."""

    def __init__(self, spec: GatedQuerySpec, width: int) -> None:
        super().__init__()
        self.num_latents = spec.num_latents
        self.initial = nn.Parameter(torch.randn(spec.num_latents, width))
        self.slots = nn.Parameter(torch.randn(spec.num_latents, width) * width**-0.5)
        self.place = Place(width)
        self.looks = nn.ModuleList(Look(width, spec.num_heads, spec.mlp_ratio) for _ in range(spec.num_layers))
        self.norm = nn.LayerNorm(width)
        self.gate_cost = spec.gate_cost
        self.gate = Gate(width, spec.gate_bias, spec.gate_stretch)
        self.show = nn.Linear(width, width, bias=False)

    def begin(self, size: int) -> State:
        return {"latents": self.norm(self.initial).expand(size, -1, -1)}

    def read(self, state: State) -> Tensor:
        prefix: Tensor = self.show(state["latents"]) + self.slots
        return prefix

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        old = state["latents"]
        answers, tokens = old + self.slots, self.place(segment)
        for look in self.looks:
            answers = look(answers, tokens, segment.mask)
        answers = self.norm(answers)
        take = self.gate(old, answers)
        if segment.record is not None:
            segment.record["openness"] = take.flatten(1).mean(1)
        costs = {"gate_cost": self.gate_cost * take.mean((1, 2))} if self.gate_cost else {}
        return {"latents": old + take * (answers - old)}, costs

    def flops_per_write(self, num_tokens: int) -> int:
        looks = sum(look.flops(self.num_latents, num_tokens) for look in self.looks if isinstance(look, Look))
        return looks + linear_flops(self.num_latents, self.gate.open)
