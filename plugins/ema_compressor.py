"""Remember the fading mean of what has left the window, in several time scales at once: a compressor in one file.

Name the file in a spec, by its path relative to that spec, and its compressor is known there:

    imports = ["../plugins/ema_compressor.py"]

    [policy.memory]
    kind = "compressed"

    [policy.memory.compressor]
    kind = "ema"
    keep_fracs = [0.5, 0.9, 0.99]      # one latent each

It hardly learns what to keep, so it is a baseline that every learned compressor should beat, and a file to start from:
copy it, change the name, and run `cccad_core.laws.compressor.check_compressor(YourSpec())`.
"""

import torch
from attrs import field, frozen, validators
from cccad_core.compressors.base import Compressor, Segment, State
from cccad_core.registry import register
from torch import Tensor, nn

is_fraction = validators.and_(validators.ge(0.0), validators.lt(1.0))


@register("compressor", "ema")
@frozen(kw_only=True)
class EmaSpec:
    """One latent per time scale: an exponential moving average of the segments' mean tokens."""

    keep_fracs: tuple[float, ...] = field(
        default=(0.5, 0.9, 0.99),
        validator=[validators.min_len(1), validators.deep_iterable(is_fraction)],
        metadata={"help": "how much of each latent a write keeps"},
    )

    @property
    def num_latents(self) -> int:
        """Tokens of memory, one per time scale."""
        return len(self.keep_fracs)

    def build(self, width: int) -> "Ema":
        return Ema(self, width)


class Ema(Compressor):
    """State: `means`, `b k d`; each write is a convex combination of tokens, so it cannot grow."""

    keep_fracs: Tensor

    def __init__(self, spec: EmaSpec, width: int) -> None:
        super().__init__()
        self.num_latents = spec.num_latents
        self.register_buffer("keep_fracs", torch.tensor(spec.keep_fracs)[:, None], persistent=False)  # k 1
        self.initial = nn.Parameter(torch.randn(spec.num_latents, width) * width**-0.5)
        self.show = nn.Linear(width, width, bias=False)
        self.slots = nn.Parameter(torch.randn(spec.num_latents, width) * width**-0.5)

    def begin(self, size: int) -> State:
        return {"means": self.initial.expand(size, -1, -1)}

    def read(self, state: State) -> Tensor:
        prefix: Tensor = self.show(state["means"]) + self.slots
        return prefix

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        old, tokens = state["means"], segment.tokens
        real = tokens.new_ones(tokens.shape[:2]) if segment.mask is None else segment.mask.to(tokens.dtype)  # b s
        num_real = real.sum(1)[:, None, None]  # b 1 1
        fresh = (tokens * real[..., None]).sum(1, keepdim=True) / num_real.clamp(min=1)  # b 1 d
        mixed = self.keep_fracs * old + (1 - self.keep_fracs) * fresh
        return {"means": torch.where(num_real > 0, mixed, old)}, {}  # padding alone leaves the memory as it is

    def flops_per_write(self, num_tokens: int) -> int:
        return 0  # sums and scalings; no matrix product
