"""The contract of an objective: what is minimised, which heads of the policy it asks, and how its terms weigh when.

A spec class of kind `objective` is an `ObjectiveSpec`, which says what it has besides its fields.

Wrapped for several processes an objective stays the same arithmetic: *num_targets* is the number of targets of the
*global* batch divided by the number of processes, so that averaging gradients over processes gives the gradient of the
global mean.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from attrs import frozen
from torch import Tensor, nn

from cccad_core.batch import Flags, HistoryBatch
from cccad_core.heads.base import ActionHead
from cccad_core.memory.base import Decisions
from cccad_core.memory.moment import CALM, Moment
from cccad_core.policy import Policy

Weights = Mapping[str, float | Tensor]


@frozen(kw_only=True)
class ObjectiveSpec(ABC):
    """What every objective answers; without more it is one term, for heads of any kind, that needs no other agent."""

    @property
    def agents(self) -> dict[str, str]:
        """The other agents of the experiment that it needs, trained and frozen, by the field that names them."""
        return {}

    def takes(self, head: ActionHead) -> bool:
        """Say whether policies that act by this *head* can be trained by it."""
        return True

    def weights(self, done: float) -> dict[str, float]:
        """Return how much each of its terms weighs when the share *done* of the updates is over: the schedule."""
        return {}

    @abstractmethod
    def build(
        self, policy: Policy, horizon: int | None = None, others: Mapping[str, Policy] | None = None
    ) -> "Objective":
        """Return the objective of a *policy* whose head is taken; *others*: policies by the fields of `agents`."""


class Objective(nn.Module, ABC):
    """What is minimised over a policy's weights.

    `heads` names the heads of the policy that it asks; the others are left as they are. `horizon` is how many writes
    the gradient of a row's last window reaches (all when None).
    """

    heads: tuple[str, ...]

    def __init__(self, policy: Policy, horizon: int | None = None) -> None:
        super().__init__()
        self.policy, self.horizon = policy, horizon

    @abstractmethod
    def forward(
        self,
        batch: HistoryBatch,
        num_targets: float | Tensor,
        weights: Weights,
        moment: Moment = CALM,
        flags: Flags | None = None,
    ) -> dict[str, Tensor]:
        """Return `loss`, which is minimised, and whatever else is worth a line in the metrics, each a scalar.

        Of *batch*, `targets & mask` are the decisions that count, and their sum is divided by *num_targets*. *weights*
        are what the spec's `weights` returned for this update. *moment*, the chance of this update, and *flags*, where
        episodes end, kept on the CPU so that nobody waits for the device, are handed on to the policy.
        """


def with_auxiliary(loss: Tensor, losses: dict[str, Tensor], decisions: Decisions, weight: float | Tensor) -> Tensor:
    """Return *loss* with the memory's own losses, each of this *weight*, which are put into *losses* by name."""
    for name, value in decisions.auxiliary.items():
        losses[name] = value.mean()
        loss = loss + weight * losses[name]
    return loss
