"""What is minimised, as modules: wrapped for several processes they stay the same arithmetic.

Both take a batch and `num_targets`, the number of targets of the *global* batch divided by the number of processes,
so that averaging gradients over processes gives the gradient of the global mean.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div

from cccad_core.batch import Flags, HistoryBatch
from cccad_core.folding import Memory
from cccad_core.heads import Categorical
from cccad_core.moment import CALM, Moment
from cccad_core.policy import Decisions, Policy
from cccad_core.reconstruction import Rebuilt
from cccad_core.windows import Windows


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

    def forward(
        self, batch: HistoryBatch, num_targets: float | Tensor, moment: Moment = CALM, flags: Flags | None = None
    ) -> dict[str, Tensor]:
        """Return `loss` (what is minimised) and its named parts, each a scalar."""
        decisions = self.policy(batch, flags=flags, horizon=self.max_gradient_rounds, moment=moment)
        head, targets = self.policy.head, batch.targets & batch.mask
        parameters = decisions.ask(head)
        total = nats = (head.nats(parameters, batch.actions) * targets).sum() / num_targets
        with torch.no_grad():
            measured = (head.measured(parameters, batch.actions) * targets).sum() / num_targets
        writes = nats.new_full((), decisions.windows.most_writes)
        losses = {"imitation_nats": nats, head.measure: measured, "writes": writes}
        for name, value in decisions.memory.auxiliary.items():
            losses[name] = value.mean()
            total = total + moment.auxiliary * losses[name]
        if self.teacher is not None:
            losses["teacher_nats"] = (self._from_teacher(batch, flags, parameters) * targets).sum() / num_targets
            total = total + self.teacher_weight * losses["teacher_nats"]
        rebuilt = self._rebuilt(batch, decisions)
        if rebuilt:
            parts = rebuilt_losses(rebuilt, reward_weighted=self.reward_weighted)
            losses.update(parts)
            total = total + moment.fade * self.reconstruction_weight * parts["reconstruction"]
        return {"loss": total, **losses}

    def _rebuilt(self, batch: HistoryBatch, decisions: Decisions) -> list[Rebuilt]:
        if not self.reconstruction_weight:
            return []
        return rebuild(self.policy, decisions.windows, decisions.memory, batch)

    def _from_teacher(self, batch: HistoryBatch, flags: Flags | None, parameters: Tensor) -> Tensor:
        """Return KL(teacher || policy) of every decision, `b t`, in nats."""
        assert self.teacher is not None
        with torch.no_grad():
            wanted = self.teacher(batch, flags=flags).ask(self.teacher.head).float().log_softmax(-1)
        return kl_div(parameters.float().log_softmax(-1), wanted, reduction="none", log_target=True).sum(-1)


class Pretraining(nn.Module):
    """Reconstruction of real fields from the latents alone: the warm start of the compressor."""

    def __init__(self, policy: Policy, *, max_gradient_rounds: int | None = None) -> None:
        super().__init__()
        self.policy = policy
        self.max_gradient_rounds = max_gradient_rounds

    def forward(
        self, batch: HistoryBatch, num_targets: float | Tensor, moment: Moment = CALM, flags: Flags | None = None
    ) -> dict[str, Tensor]:
        """Return `loss`, the loss of each field and its accuracy, each a scalar; *batch* must need a write."""
        policy = self.policy
        windows = policy.context.windows(flags or batch.flags(), moment.shared_seed, batch.mask.device)
        tokens = policy.layout.sequence(batch)
        memory = policy.remember(windows, tokens, batch.mask, horizon=self.max_gradient_rounds, moment=moment)
        rebuilt = rebuilt_losses(rebuild(policy, windows, memory, batch))
        return {"loss": rebuilt["reconstruction"], **rebuilt}


def rebuild(policy: Policy, windows: Windows, memory: Memory, batch: HistoryBatch) -> list[Rebuilt]:
    """Rebuild, from the latents after each write, the transitions that lie wholly inside its segment's tokens."""
    folded = windows.folded(memory.prefixes, batch, policy.layout.behind)
    return [policy.reconstruction(latents, segments) for latents, segments in folded]


def rebuilt_losses(rebuilt: list[Rebuilt], *, reward_weighted: bool = False) -> dict[str, Tensor]:
    """Average over all real transitions that were folded in.

    Returns each field's loss and accuracy, the accuracy of always telling its most common value (`..._majority`, by
    the same measure), and as `reconstruction` the sum of the losses over fields. *reward_weighted*: in the losses,
    transitions with a reward that is not 0 weigh as much together as all others together.
    """
    real, rewarded = _flat([r.mask for r in rebuilt]), _flat([r.rewarded for r in rebuilt])
    even = weights = _mean_over(real)
    if reward_weighted:
        with_reward, without = real & rewarded, real & ~rewarded
        is_mixed = with_reward.any() & without.any()
        weights = torch.where(is_mixed, (_mean_over(with_reward) + _mean_over(without)) / 2, even)

    losses, measures = {}, {}
    for name in rebuilt[0].losses:
        losses[f"reconstruction_{name}"] = _flat([r.losses[name] for r in rebuilt]) @ weights
    for name in rebuilt[0].hits:
        values = _flat([r.values[name] for r in rebuilt])
        is_common = ((values - _most_common(values, real)).abs() < 0.5).float()
        measures[f"reconstruction_{name}_accuracy"] = _flat([r.hits[name] for r in rebuilt]) @ even
        measures[f"reconstruction_{name}_majority"] = is_common @ even
    return {"reconstruction": torch.stack(list(losses.values())).sum(), **losses, **measures}


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def _mean_over(chosen: Tensor) -> Tensor:
    """Return the weights by which a sum becomes the mean over *chosen*; zeros where nothing is."""
    return chosen.float() / chosen.sum().clamp(min=1)


def _most_common(values: Tensor, is_real: Tensor) -> Tensor:
    """Return the real value that is there most often, the smallest of several; without waiting for a device."""
    ordered, order = values.sort()
    num_before = torch.nn.functional.pad(is_real[order].cumsum(0), (1, 0))  # real ones before each place
    first, last = (torch.searchsorted(ordered, ordered, right=right) for right in (False, True))
    return ordered[(num_before[last] - num_before[first]).argmax()]
