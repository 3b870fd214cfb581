"""AdamW with a warm-up, a plateau and a linear decay to zero."""

import torch
from attrs import field, frozen, validators

_positive = validators.gt(0.0)
_below_one = [validators.ge(0.0), validators.lt(1.0)]
_fraction = [validators.ge(0.0), validators.le(1.0)]


@frozen(kw_only=True)
class OptimizerSpec:
    """AdamW (arXiv 1711.05101); matrices and tables are decayed, vectors are not."""

    learning_rate: float = field(
        default=3e-3, validator=_positive, metadata={"help": "of the plateau between warm-up and decay"}
    )
    warmup_updates: int = field(
        default=100, validator=validators.ge(0), metadata={"help": "in which the rate rises evenly from zero"}
    )
    decay_frac: float = field(default=0.6, validator=_fraction, metadata={"help": "last part, decaying to zero"})
    weight_decay: float = field(
        default=0.01, validator=validators.ge(0.0), metadata={"help": "of matrices and tables, times the learning rate"}
    )
    beta1: float = field(default=0.9, validator=_below_one, metadata={"help": "memory of the mean of gradients"})
    beta2: float = field(default=0.99, validator=_below_one, metadata={"help": "memory of the mean of their squares"})
    max_grad_norm: float = field(
        default=1.0, validator=_positive, metadata={"help": "longer gradients are shortened to this length"}
    )
    compressor_scale: float = field(
        default=1.0, validator=_positive, metadata={"help": "of the compressor's rate, in parts of learning_rate"}
    )

    def build(self, module: torch.nn.Module, compressor: torch.nn.Module | None = None) -> torch.optim.AdamW:
        """Return the optimizer over what is trained of *module*; *compressor*, a part of it, has a rate of its own."""
        folding = set() if compressor is None else set(compressor.parameters())
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        # Matrices first: the gradient's norm is summed in this order.
        for parameter in sorted((p for p in module.parameters() if p.requires_grad), key=lambda p: p.dim() < 2):
            decay = self.weight_decay if parameter.dim() >= 2 else 0.0
            scale = self.compressor_scale if parameter in folding else 1.0
            groups.setdefault((decay, scale), []).append(parameter)
        options = [{"params": p, "weight_decay": decay, "scale": scale} for (decay, scale), p in groups.items()]
        return torch.optim.AdamW(options, lr=self.learning_rate, betas=(self.beta1, self.beta2), fused=True)

    def rate(self, update: int, num_updates: int) -> float:
        """Return the learning rate of *update* out of *num_updates*."""
        # + 1, so that the first update moves the weights, and the last of the warm-up has the full rate.
        warm = min(1.0, (update + 1) / self.warmup_updates) if self.warmup_updates else 1.0
        # One update long at least: a share of 0 divides by no zero, and leaves the plateau as it is to the very end.
        decay = max(1.0, self.decay_frac * num_updates)
        return self.learning_rate * min(warm, 1.0, (num_updates - update) / decay)
