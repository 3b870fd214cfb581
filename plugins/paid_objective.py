"""Imitate, and above all what was paid: decisions whose env step was rewarded weigh more, an objective in one file.

Name the file in a spec, by its path relative to that spec, and its objective is known there:

    imports = ["../plugins/paid_objective.py"]

    [train.objective]
    kind = "paid"
    weight = 20.0

Where one decision of a long episode is worth everything, and the others are plain, the mean over all of them hardly
says that the one was wrong. `experiments/t_maze.toml` is such a case.
"""

from collections.abc import Mapping

from attrs import Factory, field, frozen, validators
from cccad_core.batch import Flags, HistoryBatch
from cccad_core.heads.base import ActionHead
from cccad_core.memory.moment import CALM, Moment
from cccad_core.objectives.base import Objective, ObjectiveSpec, Weights, with_auxiliary
from cccad_core.objectives.terms import AuxiliaryTerm
from cccad_core.policy import Policy
from cccad_core.registry import register
from torch import Tensor


@register("objective", "paid")
@frozen(kw_only=True)
class PaidSpec(ObjectiveSpec):
    """Imitation in which env steps with a reward above 0 weigh more than others."""

    weight: float = field(
        default=20.0, validator=validators.ge(0.0), metadata={"help": "of a decision that was paid; others weigh 1"}
    )
    auxiliary: AuxiliaryTerm = field(
        default=Factory(AuxiliaryTerm), metadata={"help": "what the compressor's own losses weigh"}
    )

    def takes(self, head: ActionHead) -> bool:
        return True

    def weights(self, done: float) -> dict[str, float]:
        """Return the weights of the terms when the share *done* of the updates is over."""
        return {"auxiliary": self.auxiliary.at(done)}

    def build(self, policy: Policy, horizon: int | None = None, others: Mapping[str, Policy] | None = None) -> "Paid":
        return Paid(self.weight, policy, horizon)


class Paid(Objective):
    """The sum over targets of their weight times -log p(action), by the number of targets."""

    heads = ("head",)

    def __init__(self, weight: float, policy: Policy, horizon: int | None) -> None:
        super().__init__(policy, horizon)
        self.weight = weight

    def forward(
        self,
        batch: HistoryBatch,
        num_targets: float | Tensor,
        weights: Weights,
        moment: Moment = CALM,
        flags: Flags | None = None,
    ) -> dict[str, Tensor]:
        decisions = self.policy(batch, flags=flags, horizon=self.horizon, moment=moment)
        nats = self.policy.head.nats(decisions.ask(self.policy.head), batch.actions) * (batch.targets & batch.mask)
        is_paid = batch.rewards > 0
        paid, others = ((nats * part).sum() / num_targets for part in (is_paid, ~is_paid))
        loss = self.weight * paid + others
        losses = {
            "paid_nats": paid,
            "other_nats": others,
            "writes": paid.new_full((), decisions.most_writes),
        }
        loss = with_auxiliary(loss, losses, decisions, weights["auxiliary"])
        return {"loss": loss, **losses}
