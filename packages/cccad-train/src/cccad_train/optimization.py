"""AdamW with a warm-up, a plateau and a linear decay to zero."""

from typing import Any

import torch
from attrs import field, frozen, validators

_positive = validators.gt(0.0)
_fraction = [validators.ge(0.0), validators.le(1.0)]


@frozen(kw_only=True)
class OptimizerSpec:
    """AdamW (arXiv 1711.05101); matrices and tables are decayed, vectors are not."""

    learning_rate: float = field(default=3e-3, validator=_positive)
    warmup_updates: int = field(default=100, validator=validators.ge(0))
    decay_frac: float = field(default=0.6, validator=_fraction, metadata={"help": "last part, decaying to zero"})
    weight_decay: float = field(default=0.01, validator=validators.ge(0.0))
    beta1: float = field(default=0.9, validator=_fraction)
    beta2: float = field(default=0.99, validator=_fraction)
    max_grad_norm: float = field(default=1.0, validator=_positive)
    compressor_scale: float = field(
        default=1.0, validator=_positive, metadata={"help": "of the compressor's rate, in parts of learning_rate"}
    )

    def build(self, module: torch.nn.Module, compressor: torch.nn.Module | None = None) -> torch.optim.AdamW:
        """Return the optimizer over what is trained of *module*; *compressor*, a part of it, has a rate of its own."""
        trained = [p for p in module.parameters() if p.requires_grad]
        folding = set() if compressor is None or self.compressor_scale == 1.0 else set(compressor.parameters())
        parts = [(1.0, [p for p in trained if p not in folding])]
        parts += [(self.compressor_scale, [p for p in trained if p in folding])]
        groups = [group for scale, parameters in parts for group in self._groups(parameters, scale)]
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=(self.beta1, self.beta2), fused=True)

    def _groups(self, parameters: list[torch.nn.Parameter], scale: float) -> list[dict[str, Any]]:
        matrices, vectors = [p for p in parameters if p.dim() >= 2], [p for p in parameters if p.dim() < 2]
        decays = ((matrices, self.weight_decay), (vectors, 0.0))
        return [{"params": group, "weight_decay": decay, "scale": scale} for group, decay in decays if group]

    def rate(self, update: int, num_updates: int) -> float:
        """Return the learning rate of *update* out of *num_updates*."""
        warm = min(1.0, (update + 1) / self.warmup_updates) if self.warmup_updates else 1.0
        decay = max(1.0, self.decay_frac * num_updates)
        return self.learning_rate * min(warm, 1.0, (num_updates - update) / decay)
