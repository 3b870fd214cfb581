"""Algorithm Distillation: imitate every decision of a history from within that history (arXiv 2210.14215)."""

from collections.abc import Mapping

import torch
from attrs import Factory, field, frozen
from torch import Tensor

from cccad_core.batch import Flags, HistoryBatch
from cccad_core.heads.base import ActionHead, HasDivergence
from cccad_core.memory.moment import CALM, Moment
from cccad_core.objectives.base import Objective, ObjectiveSpec, Weights, with_auxiliary
from cccad_core.objectives.reconstruction import rebuild, rebuilt_losses, refuse_what_folds_nothing
from cccad_core.objectives.terms import AuxiliaryTerm, ReconstructionTerm, TeacherTerm
from cccad_core.policy import Policy


@frozen(kw_only=True)
class ImitationSpec(ObjectiveSpec):
    """The mean negative log-likelihood of every target, in nats, and a little of other terms if asked for."""

    reconstruction: ReconstructionTerm = field(
        default=Factory(ReconstructionTerm), metadata={"help": "rebuild what was folded in, too"}
    )
    auxiliary: AuxiliaryTerm = field(
        default=Factory(AuxiliaryTerm), metadata={"help": "what the compressor's own losses weigh"}
    )
    teacher: TeacherTerm | None = field(
        default=None, metadata={"help": "another agent whose action probabilities are learned too"}
    )

    def takes(self, head: ActionHead) -> bool:
        return self.teacher is None or isinstance(head, HasDivergence)

    @property
    def agents(self) -> dict[str, str]:
        """The agent that teaches, if any."""
        return {} if self.teacher is None else {"teacher": self.teacher.agent}

    def weights(self, done: float) -> dict[str, float]:
        """Return the weights of the terms when the share *done* of the updates is over."""
        teacher = {} if self.teacher is None else {"teacher": self.teacher.weight}
        return {"auxiliary": self.auxiliary.at(done), "reconstruction": self.reconstruction.at(done), **teacher}

    def build(
        self, policy: Policy, horizon: int | None = None, others: Mapping[str, Policy] | None = None
    ) -> "Imitation":
        return Imitation(self, policy, horizon, (others or {}).get("teacher"))


class Imitation(Objective):
    """The loss of *spec*. A frozen *teacher* that sees more at once adds the mean of KL(teacher || policy).

    Raises ValueError where there is a teacher and the policy's head has no divergence from the teacher's, and where
    there is something to rebuild and nothing is folded.
    """

    def __init__(self, spec: ImitationSpec, policy: Policy, horizon: int | None, teacher: Policy | None) -> None:
        super().__init__(policy, horizon)
        if not spec.takes(policy.head) or (teacher is not None and type(teacher.head) is not type(policy.head)):
            raise ValueError("a teacher needs a head that has a divergence, of the same kind as the policy's")
        self.spec, self.teacher = spec, teacher
        self.rebuilds = spec.reconstruction.weight > 0
        if self.rebuilds:
            refuse_what_folds_nothing(policy)
        self.heads = ("head", "reconstruction") if self.rebuilds else ("head",)
        if teacher is not None:
            teacher.eval().requires_grad_(False)

    def forward(
        self,
        batch: HistoryBatch,
        num_targets: float | Tensor,
        weights: Weights,
        moment: Moment = CALM,
        flags: Flags | None = None,
    ) -> dict[str, Tensor]:
        decisions = self.policy(batch, flags=flags, horizon=self.horizon, moment=moment)
        head, targets = self.policy.head, batch.targets & batch.mask
        parameters = decisions.ask(head)
        loss = nats = (head.nats(parameters, batch.actions) * targets).sum() / num_targets
        with torch.no_grad():
            measured = (head.measured(parameters, batch.actions) * targets).sum() / num_targets
        writes = nats.new_full((), decisions.most_writes)
        losses = {"imitation_nats": nats, head.measure: measured, "writes": writes}
        loss = with_auxiliary(loss, losses, decisions, weights["auxiliary"])
        if self.teacher is not None:
            losses["teacher_nats"] = (self._from_teacher(batch, flags, parameters) * targets).sum() / num_targets
            loss = loss + weights["teacher"] * losses["teacher_nats"]
        rebuilt = rebuild(self.policy, decisions.writes, batch) if self.rebuilds else []
        if rebuilt:  # there is a write to ask about
            rebuilt_by_field = rebuilt_losses(rebuilt, reward_weighted=self.spec.reconstruction.reward_weighted)
            losses.update(rebuilt_by_field)
            loss = loss + weights["reconstruction"] * rebuilt_by_field["reconstruction"]
        return {"loss": loss, **losses}

    def _from_teacher(self, batch: HistoryBatch, flags: Flags | None, parameters: Tensor) -> Tensor:
        """Return KL(teacher || policy) of every decision, `b t`, in nats."""
        assert self.teacher is not None
        assert isinstance(self.policy.head, HasDivergence)
        with torch.no_grad():
            wanted = self.teacher(batch, flags=flags).ask(self.teacher.head)
        return self.policy.head.divergence(parameters, wanted)
