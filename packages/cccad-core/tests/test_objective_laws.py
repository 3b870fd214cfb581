"""The laws of an objective hold for ours, and each bug planted here is found by the law that names it."""

from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from cccad_core.heads.base import ActionHead
from cccad_core.heads.categorical import Categorical
from cccad_core.laws.law import LawBroken
from cccad_core.laws.objective import BOXES, check_objective
from cccad_core.memory.compressed import compressed
from cccad_core.objectives.base import Objective
from cccad_core.objectives.imitation import Imitation, ImitationSpec
from cccad_core.objectives.reconstruction import ReconstructionSpec
from cccad_core.objectives.terms import AuxiliaryTerm, ReconstructionTerm, TeacherTerm

RICH = ImitationSpec(
    reconstruction=ReconstructionTerm(weight=0.5, reward_weighted=True),
    auxiliary=AuxiliaryTerm(weight=0.5),
    teacher=TeacherTerm(agent="other"),
)


@pytest.mark.parametrize("spec", [ImitationSpec(), RICH, ReconstructionSpec()], ids=["plain", "rich", "rebuild"])
def test_ours_keep_the_laws(spec):
    check_objective(spec)


def test_ours_keep_the_laws_where_actions_are_real_numbers():
    check_objective(ImitationSpec(), spaces=BOXES)


class PlainImitation(Imitation):
    """Imitation with nothing beside it."""

    def __init__(self, policy, others):
        super().__init__(ImitationSpec(), policy, 2, None)
        self.other = others.get("teacher")

    def forward(self, batch, num_targets, weights, moment=None, flags=None):
        return super().forward(batch, num_targets, {"auxiliary": 1.0})


class MeansOverItsOwnRows(PlainImitation):
    def forward(self, batch, num_targets, *parts):
        return super().forward(batch, float(batch.mask.sum()) ** 0.5, *parts)


class SeesPadding(PlainImitation):
    def forward(self, batch, *parts):
        return super().forward(evolve(batch, mask=torch.ones_like(batch.mask)), *parts)


class DrawsByItself(PlainImitation):
    def forward(self, *parts):
        losses = super().forward(*parts)
        return {**losses, "loss": losses["loss"] + torch.rand(())}


class NudgesItsWeights(PlainImitation):
    def forward(self, *parts):
        with torch.no_grad():
            compressed(self.policy.memory).backbone.norm.bias.add_(1e-3)
        return super().forward(*parts)


class ReturnsLossesByRow(PlainImitation):
    def forward(self, batch, *parts):
        return {**super().forward(batch, *parts), "by_row": batch.rewards.sum(1)}


class AsksAnotherHead(PlainImitation):
    heads = ("head",)

    def forward(self, batch, *parts):
        losses = super().forward(batch, *parts)
        pull = sum(p.square().sum() for p in self.policy.reconstruction.parameters())
        return {**losses, "loss": losses["loss"] + pull}


class TeachesItsTeacher(PlainImitation):
    def forward(self, batch, *parts):
        losses = super().forward(batch, *parts)
        return {**losses, "loss": losses["loss"] + self.other(batch).ask(self.other.head).square().mean()}


class IsNoObjective(torch.nn.Module):
    def __init__(self, policy, _others):
        super().__init__()
        self.policy = policy


@frozen
class Planted:
    """The spec of an objective that is made by a class."""

    make: type
    schedule: Any = None
    heads: type = ActionHead

    @property
    def agents(self):
        return {"teacher": "other"} if self.make is TeachesItsTeacher else {}

    def takes(self, head):
        return isinstance(head, self.heads)

    def weights(self, done):
        return {"term": 1.0} if self.schedule is None else self.schedule(done)

    def build(self, policy, horizon=None, others=None):
        return self.make(policy, others)


def test_without_a_planted_bug_nothing_is_caught():
    check_objective(Planted(PlainImitation))


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (MeansOverItsOwnRows, "processes add up"),
        (SeesPadding, "padding is invisible"),
        (DrawsByItself, "an objective leaves no trace"),
        (NudgesItsWeights, "an objective leaves no trace"),
        (ReturnsLossesByRow, "losses by name"),
        (AsksAnotherHead, "the heads that are named learn"),
        (TeachesItsTeacher, "other agents stay as they are"),
        (IsNoObjective, "an objective is whole"),
    ],
)
def test_a_planted_bug_is_caught_by_its_law(make, law):
    assert issubclass(make, Objective) == (make is not IsNoObjective)
    with pytest.raises(LawBroken, match=f"law '{law}' is broken"):
        check_objective(Planted(make))


class ReadsLogits(PlainImitation):
    """As if every head were a softmax over actions."""

    def forward(self, batch, num_targets, *parts):
        losses = super().forward(batch, num_targets, *parts)
        logs = self.policy(batch).ask(self.policy.head).log_softmax(-1)
        label = logs.gather(-1, batch.actions[..., None])[..., 0]
        return {**losses, "loss": -(label * batch.mask).sum() / num_targets}


def test_an_objective_of_one_kind_of_head_says_so_or_is_caught():
    check_objective(Planted(ReadsLogits, heads=Categorical))
    with pytest.raises(LawBroken, match=r"law 'what is taken can be used' is broken: .* the head of box actions"):
        check_objective(Planted(ReadsLogits))
    with pytest.raises(LawBroken, match="law 'an objective takes a head' is broken: it takes no head of box actions"):
        check_objective(Planted(ReadsLogits, heads=Categorical), spaces=BOXES)


@pytest.mark.parametrize(
    "schedule",
    [lambda done: {"term": 0.5 - done}, lambda done: {"term": 1.0} if done < 1 else {}, lambda _: {"a": float("nan")}],
    ids=["negative", "another term", "no number"],
)
def test_a_schedule_that_makes_no_sense_is_caught(schedule):
    with pytest.raises(LawBroken, match="law 'weights follow a schedule' is broken"):
        check_objective(Planted(PlainImitation, schedule))
