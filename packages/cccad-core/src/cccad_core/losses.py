"""What is minimised, as modules: wrapped for several processes they stay the same arithmetic.

Both take a batch and `num_targets`, the number of targets of the *global* batch divided by the number of processes,
so that averaging gradients over processes gives the gradient of the global mean.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div

from cccad_core.batch import HistoryBatch
from cccad_core.heads import Categorical
from cccad_core.moment import Moment
from cccad_core.policy import Policy
from cccad_core.reconstruction import Rebuilt


class Imitation(nn.Module):
    """Mean negative log-likelihood of every target, in nats, plus a little reconstruction if weighted.

    A frozen *teacher* that sees more at once adds the mean of KL(teacher || policy) over the same targets, weighted.
    Raises ValueError where there is a teacher and actions are not discrete.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        max_gradient_rounds: int | None = None,
        reconstruction_weight: float = 0.0,
        reward_weighted: bool = False,
        teacher: Policy | None = None,
        teacher_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if teacher is not None and not isinstance(policy.head, Categorical):
            raise ValueError("a teacher needs discrete actions: there is no such divergence for boxes")
        self.policy = policy
        self.max_gradient_rounds = max_gradient_rounds
        self.reconstruction_weight, self.reward_weighted = reconstruction_weight, reward_weighted
        self.teacher, self.teacher_weight = teacher, teacher_weight
        if teacher is not None:
            teacher.eval().requires_grad_(False)

    def forward(self, batch: HistoryBatch, num_targets: float, moment: Moment | None = None) -> dict[str, Tensor]:
        """Return `loss` (what is minimised) and its named parts, each a scalar."""
        decisions = self.policy(
            batch,
            max_gradient_rounds=self.max_gradient_rounds,
            reconstruct=self.reconstruction_weight > 0,
            moment=moment,
        )
        actions, head, targets = batch.actions, self.policy.head, batch.targets & batch.mask
        nats = (head.nats(decisions.parameters, actions) * targets).sum() / num_targets
        with torch.no_grad():
            measured = (head.measured(decisions.parameters, actions) * targets).sum() / num_targets
        losses = {"imitation_nats": nats, head.measure: measured, "writes": nats.new_tensor(decisions.num_writes)}
        moment, total = moment or Moment(), nats
        for name, value in decisions.auxiliary.items():
            losses[name] = value.mean()
            total = total + moment.auxiliary * losses[name]
        if self.teacher is not None:
            losses["teacher_nats"] = (self._from_teacher(batch, decisions.parameters) * targets).sum() / num_targets
            total = total + self.teacher_weight * losses["teacher_nats"]
        if decisions.rebuilt:
            rebuilt = rebuilt_losses(decisions.rebuilt, reward_weighted=self.reward_weighted)
            losses.update(rebuilt)
            total = total + moment.fade * self.reconstruction_weight * rebuilt["reconstruction"]
        return {"loss": total, **losses}

    def _from_teacher(self, batch: HistoryBatch, parameters: Tensor) -> Tensor:
        """Return KL(teacher || policy) of every decision, `b t`, in nats."""
        assert self.teacher is not None
        with torch.no_grad():
            wanted = self.teacher(batch).parameters.float().log_softmax(-1)
        return kl_div(parameters.float().log_softmax(-1), wanted, reduction="none", log_target=True).sum(-1)


class Pretraining(nn.Module):
    """Reconstruction of real fields from the latents alone: the warm start of the compressor."""

    def __init__(self, policy: Policy, *, max_gradient_rounds: int | None = None) -> None:
        super().__init__()
        self.policy = policy
        self.max_gradient_rounds = max_gradient_rounds

    def forward(self, batch: HistoryBatch, num_targets: float, moment: Moment | None = None) -> dict[str, Tensor]:
        """Return `loss`, the loss of each field and its accuracy, each a scalar; *batch* must need a write."""
        rebuilt = rebuilt_losses(self.policy.fold(batch, max_gradient_rounds=self.max_gradient_rounds))
        return {"loss": rebuilt["reconstruction"], **rebuilt}


def rebuilt_losses(rebuilt: list[Rebuilt], *, reward_weighted: bool = False) -> dict[str, Tensor]:
    """Average over all real transitions that were folded in.

    Returns each field's loss and accuracy, the accuracy of always telling its most common value (`..._majority`, by
    the same measure), and as `reconstruction` the sum of the losses over fields. *reward_weighted*: in the losses,
    transitions with a reward that is not 0 weigh as much together as all others together.
    """
    real, rewarded = _flat([r.mask for r in rebuilt]), _flat([r.rewarded for r in rebuilt])
    even = weights = _mean_over(real)
    if reward_weighted and bool((real & rewarded).any()) and bool((real & ~rewarded).any()):
        weights = (_mean_over(real & rewarded) + _mean_over(real & ~rewarded)) / 2

    losses, told = {}, {}
    for name in rebuilt[0].losses:
        losses[f"reconstruction_{name}"] = _flat([r.losses[name] for r in rebuilt]) @ weights
    for name in rebuilt[0].hits:
        told[f"reconstruction_{name}_accuracy"] = _flat([r.hits[name] for r in rebuilt]) @ even
        values = _flat([r.values[name] for r in rebuilt])
        told[f"reconstruction_{name}_majority"] = ((values - _most_common(values[real])).abs() < 0.5).float() @ even
    return {"reconstruction": torch.stack(list(losses.values())).sum(), **losses, **told}


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def _mean_over(chosen: Tensor) -> Tensor:
    """Return the weights by which a sum becomes the mean over *chosen*; zeros where nothing is."""
    return chosen.float() / chosen.sum().clamp(min=1)


def _most_common(values: Tensor) -> Tensor:
    """Return the value that is there most often, 0 where there is none."""
    unique, counts = values.unique(return_counts=True)
    return unique[counts.argmax()] if len(unique) else values.new_zeros(())
