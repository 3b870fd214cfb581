"""Imitate, but never be quite sure: cross-entropy against labels that are smoothed, an objective in one file.

Name the file in a spec, by its path relative to that spec, and its objective is known there:

    imports = ["../plugins/smoothed_objective.py"]

    [train.objective]
    kind = "smoothed"
    smoothing = 0.05

An objective asks the policy for the heads that it needs, here the action head alone, and says which of them it takes,
here those with a logit for each action; it owns its weights and their schedule, here none. Copy the file, change the
name, and run `cccad check objective NAME --imports FILE`.
"""

from collections.abc import Mapping

from attrs import field, frozen, validators
from cccad_core.batch import Flags, HistoryBatch
from cccad_core.heads.base import ActionHead
from cccad_core.heads.categorical import Categorical
from cccad_core.memory.moment import CALM, Moment
from cccad_core.objectives.base import Objective, ObjectiveSpec, Weights
from cccad_core.policy import Policy
from cccad_core.registry import register
from torch import Tensor


@register("objective", "smoothed")
@frozen(kw_only=True)
class SmoothedSpec(ObjectiveSpec):
    """Imitation of discrete actions with label smoothing (arXiv 1512.00567, section 7)."""

    smoothing: float = field(
        default=0.05,
        validator=[validators.ge(0.0), validators.lt(1.0)],
        metadata={"help": "how much of each label is spread over all actions"},
    )

    def takes(self, head: ActionHead) -> bool:
        return isinstance(head, Categorical)

    def build(
        self, policy: Policy, horizon: int | None = None, others: Mapping[str, Policy] | None = None
    ) -> "Smoothed":
        return Smoothed(self.smoothing, policy, horizon)


class Smoothed(Objective):
    """The mean over targets of `(1 - smoothing) * -log p(action) + smoothing * mean of -log p`."""

    heads = ("head",)

    def __init__(self, smoothing: float, policy: Policy, horizon: int | None) -> None:
        super().__init__(policy, horizon)
        self.smoothing = smoothing

    def forward(
        self,
        batch: HistoryBatch,
        num_targets: float | Tensor,
        weights: Weights,
        moment: Moment = CALM,
        flags: Flags | None = None,
    ) -> dict[str, Tensor]:
        decisions = self.policy(batch, flags=flags, horizon=self.horizon, moment=moment)
        logs = decisions.ask(self.policy.head).float().log_softmax(-1)  # b t a
        label = logs.gather(-1, batch.actions[..., None])[..., 0]
        nats = -(1 - self.smoothing) * label - self.smoothing * logs.mean(-1)
        loss = (nats * (batch.targets & batch.mask)).sum() / num_targets
        return {"loss": loss, "smoothed_nats": loss}
