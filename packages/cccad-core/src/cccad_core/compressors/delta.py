"""A matrix that maps keys to values, corrected by the delta rule.

Every token first looks up what the matrix says for its key, then moves it towards its own value: fast weights (arXiv
2102.11174) as the memory between segments (ARMT, arXiv 2407.04841). The whole segment is folded at once: its
corrections solve one unit-triangular system (the form of DeltaNet, arXiv 2406.06484, section 3).
"""

import torch
from attrs import field, frozen, validators
from torch import Tensor, nn
from torch.nn.functional import normalize

from cccad_core.compressors.base import Compressor, Segment, State, linear_flops
from cccad_core.compressors.latents import Place, Show


@frozen(kw_only=True)
class DeltaSpec:
    """Fast weights: a matrix from keys to values, corrected by the delta rule, whose rows the backbone sees."""

    num_latents: int = field(default=8, validator=validators.ge(1), metadata={"help": "rows: features of a key"})
    max_rms: float = field(
        default=4.0, validator=validators.gt(0.0), metadata={"help": "of a row; larger ones are cut"}
    )

    def build(self, width: int) -> "Delta":
        return Delta(self, width)


class Delta(Compressor):
    """State: `matrix`, `b k d`; its rows are cut to a norm, so it cannot grow, however keys and values disagree."""

    def __init__(self, spec: DeltaSpec, width: int) -> None:
        super().__init__()
        self.num_latents, self.max_norm = spec.num_latents, spec.max_rms * width**0.5
        self.initial = nn.Parameter(torch.randn(spec.num_latents, width) * width**-0.5)
        self.place = Place(width)
        self.norm = nn.LayerNorm(width)
        self.key = nn.Linear(width, spec.num_latents, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.rate = nn.Linear(width, 1)
        self.show = Show(spec.num_latents, width)

    def begin(self, size: int) -> State:
        return {"matrix": self.initial.expand(size, -1, -1)}

    def read(self, state: State) -> Tensor:
        prefix: Tensor = self.show(state["matrix"])
        return prefix

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        old, tokens = state["matrix"].float(), self.norm(self.place(segment))
        keys = normalize(self.key(tokens).float(), dim=-1)  # b s k
        values, rate = self.value(tokens).float(), torch.sigmoid(self.rate(tokens).float())  # b s d, b s 1
        if segment.mask is not None:
            rate = rate * segment.mask[..., None]
        with torch.autocast(tokens.device.type, enabled=False):  # corrections of corrections need single precision
            system = (rate * (keys @ keys.mT)).tril(-1)  # b s s, its diagonal of ones left out
            wanted = rate * (values - keys @ old)
            corrections = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
            matrix = old + keys.mT @ corrections
        return {"matrix": matrix * (self.max_norm / matrix.norm(dim=-1, keepdim=True).clamp(min=self.max_norm))}, {}

    def flops_per_write(self, num_tokens: int) -> int:
        """As the contract says; the triangular system, `s s d` more, is no product and is not counted."""
        products = num_tokens * self.num_latents * (num_tokens + 2 * self.value.in_features)
        return 2 * products + linear_flops(num_tokens, self.key, self.value, self.rate)
