"""What is minimised, as modules: wrapped for several processes they stay the same arithmetic.

Both take a batch and `num_targets`, the number of targets of the *global* batch divided by the number of processes,
so that averaging gradients over processes gives the gradient of the global mean.
"""

import torch
from torch import Tensor, nn

from cccad_core.batch import HistoryBatch
from cccad_core.policy import Policy
from cccad_core.reconstruction import Rebuilt


class Imitation(nn.Module):
    """Mean negative log-likelihood of every target, in nats, plus a little reconstruction if weighted."""

    def __init__(
        self, policy: Policy, *, max_gradient_rounds: int | None = None, reconstruction_weight: float = 0.0
    ) -> None:
        super().__init__()
        self.policy = policy
        self.max_gradient_rounds = max_gradient_rounds
        self.reconstruction_weight = reconstruction_weight

    def forward(self, batch: HistoryBatch, num_targets: float) -> dict[str, Tensor]:
        """Return `loss` (what is minimised) and its named parts, each a scalar."""
        reconstruct = self.reconstruction_weight > 0
        decisions = self.policy(batch, max_gradient_rounds=self.max_gradient_rounds, reconstruct=reconstruct)
        actions, head, targets = batch.actions, self.policy.head, batch.targets & batch.mask
        nats = (head.nats(decisions.parameters, actions) * targets).sum() / num_targets
        with torch.no_grad():
            hits = (head.hits(decisions.parameters, actions) * targets).sum() / num_targets
        losses = {"imitation_nats": nats, "accuracy": hits, "writes": nats.new_tensor(decisions.num_writes)}
        total = nats
        for name, value in decisions.auxiliary.items():
            losses[name] = value.mean()
            total = total + losses[name]
        if decisions.rebuilt:
            rebuilt = rebuilt_losses(decisions.rebuilt)
            losses.update(rebuilt)
            total = total + self.reconstruction_weight * rebuilt["reconstruction"]
        return {"loss": total, **losses}


class Pretraining(nn.Module):
    """Reconstruction of real fields from the latents alone: the warm start of the compressor."""

    def __init__(self, policy: Policy, *, max_gradient_rounds: int | None = None) -> None:
        super().__init__()
        self.policy = policy
        self.max_gradient_rounds = max_gradient_rounds

    def forward(self, batch: HistoryBatch, num_targets: float) -> dict[str, Tensor]:
        """Return `loss`, the loss of each field and its accuracy, each a scalar; *batch* must need a write."""
        rebuilt = rebuilt_losses(self.policy.fold(batch, max_gradient_rounds=self.max_gradient_rounds))
        return {"loss": rebuilt["reconstruction"], **rebuilt}


def rebuilt_losses(rebuilt: list[Rebuilt]) -> dict[str, Tensor]:
    """Average over all real transitions that were folded in.

    Returns each field's loss and accuracy, and as `reconstruction` the sum of the losses over fields.
    """
    real = torch.cat([r.mask.flatten() for r in rebuilt])
    num_real = real.sum().clamp(min=1)

    def mean(parts: list[Tensor]) -> Tensor:
        return (torch.cat([part.flatten() for part in parts]) * real).sum() / num_real

    losses = {f"reconstruction_{name}": mean([r.losses[name] for r in rebuilt]) for name in rebuilt[0].losses}
    hits = {f"reconstruction_{name}_accuracy": mean([r.hits[name] for r in rebuilt]) for name in rebuilt[0].hits}
    return {"reconstruction": torch.stack(list(losses.values())).sum(), **losses, **hits}
