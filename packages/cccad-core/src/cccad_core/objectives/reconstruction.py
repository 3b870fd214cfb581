"""Rebuild real fields of what was folded in from the latents alone: the warm start of the compressor."""

from collections.abc import Mapping
from typing import cast

import torch
from attrs import frozen
from torch import Tensor

from cccad_core.batch import Flags, HistoryBatch
from cccad_core.heads.reconstruction import Rebuilt
from cccad_core.memory.base import Rebuildable, Writes
from cccad_core.memory.moment import CALM, Moment
from cccad_core.objectives.base import Objective, ObjectiveSpec, Weights
from cccad_core.policy import Policy


@frozen(kw_only=True)
class ReconstructionSpec(ObjectiveSpec):
    """Only write, and ask the latents what was folded in: pre-training. Stretches must need a write."""

    def build(
        self, policy: Policy, horizon: int | None = None, others: Mapping[str, Policy] | None = None
    ) -> "Rebuilding":
        return Rebuilding(policy, horizon)


class Rebuilding(Objective):
    """The sum of the fields' losses, averaged over all real transitions that were folded in; nothing is decided."""

    heads = ("reconstruction",)

    def __init__(self, policy: Policy, horizon: int | None = None) -> None:
        super().__init__(policy, horizon)
        refuse_what_folds_nothing(policy)

    def forward(
        self,
        batch: HistoryBatch,
        num_targets: float | Tensor,
        weights: Weights,
        moment: Moment = CALM,
        flags: Flags | None = None,
    ) -> dict[str, Tensor]:
        policy, memory = self.policy, cast(Rebuildable, self.policy.memory)
        writes = memory.remember(policy.tokens(batch, flags), horizon=self.horizon, moment=moment)
        losses = rebuilt_losses(rebuild(policy, writes, batch))
        return {"loss": losses["reconstruction"], **losses}


def refuse_what_folds_nothing(policy: Policy) -> None:
    """Raise ValueError where the memory of *policy* cannot be asked what it folded."""
    folds = isinstance(policy.memory, Rebuildable)
    if not folds:
        raise ValueError("reconstruction asks a memory what it folded in, and this one folds nothing")


def rebuild(policy: Policy, writes: Writes | None, batch: HistoryBatch) -> list[Rebuilt]:
    """Rebuild, from the latents after each write, the transitions that lie wholly inside its segment's tokens."""
    folded = [] if writes is None else writes.folded(batch, policy.layout.behind)
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
