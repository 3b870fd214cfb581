"""The laws of an objective: a finite loss that learns, adds up over processes, sees no padding and leaves no trace."""

import math
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from cccad_core.batch import HistoryBatch
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.errors import reason
from cccad_core.laws.law import LawBroken, require, same
from cccad_core.laws.noise import SPACES, padded_with_garbage, random_batch
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.objectives.base import Objective
from cccad_core.policy import HEADS, Policy, PolicySpec
from cccad_core.spaces import Box, Spaces

SMALL = PolicySpec(
    memory=CompressedSpec(window=8, compressor=GatedQuerySpec(num_latents=2, num_heads=2), num_heads=2, num_layers=1),
    width=16,
)
TOLERANCE = 1e-5


BOXES = Spaces(observation=Box(shape=(2,), low=-1.0, high=1.0), action=Box(shape=(2,), low=-1.0, high=1.0))


def check_objective(spec: Any, *, spaces: Spaces | None = None) -> None:
    """Check every law for an objective *spec*, on a small policy of those *spaces*; raises LawBroken.

    Without *spaces* that is a policy with discrete and one with real actions, of which it must take one.
    """
    for name in ("agents", "takes", "weights"):
        require("an objective is whole", hasattr(spec, name), f"its spec has no {name}")
    _check_weights(spec)
    tried = (SPACES, BOXES) if spaces is None else (spaces,)
    fitting = [each for each in tried if spec.takes(SMALL.build(each, seed=1).head)]
    which = " or ".join(each.action.kind for each in tried)
    require("an objective takes a head", bool(fitting), f"it takes no head of {which} actions")
    for each in fitting:
        _check_in(spec, each)


def _check_in(spec: Any, spaces: Spaces) -> None:
    """Check the laws on a policy of those *spaces*, whose head is taken."""
    others = {place: SMALL.build(spaces, seed=2 + index) for index, place in enumerate(spec.agents)}
    policy = SMALL.build(spaces, seed=1)
    objective = spec.build(policy, 2, others)
    is_whole = isinstance(objective, Objective) and objective.policy is policy
    require("an objective is whole", is_whole, "build() must return an Objective with the policy that it is given")
    heads = getattr(objective, "heads", None)
    what = f"'heads' must be a tuple with the names of the policy's heads that it asks, of {HEADS}: {heads!r:.60}"
    require("an objective is whole", isinstance(heads, tuple) and len(heads) > 0, what)
    unknown = [name for name in objective.heads if name not in HEADS]
    require("heads are those of a policy", not unknown, f"it asks for the heads {unknown}; a policy has {HEADS}")
    batch, weights = random_batch(spaces, size=4, length=20, seed=0), spec.weights(1.0)
    try:
        objective(batch, 80.0, weights)
    except Exception as error:
        what = f"takes() says yes to the head of {spaces.action.kind} actions, and then: {reason(error)}"
        raise LawBroken(f"law 'what is taken can be used' is broken: {what}") from error
    _check_loss(objective, batch, weights)
    _check_learning(objective, batch, weights, others)
    _check_sum(objective, batch, weights)
    _check_padding(objective, spaces, batch, weights)


def _check_weights(spec: Any) -> None:
    """A schedule is a function of how much is done, with the same terms throughout, and never below zero."""
    law, names = "weights follow a schedule", set(spec.weights(0.0))
    for done in (0.0, 0.25, 0.5, 1.0):
        weights = spec.weights(done)
        are_right = all(math.isfinite(weight) and weight >= 0 for weight in weights.values())
        require(law, are_right, f"weights({done}) is {weights}; weights are finite and not below 0")
        require(law, set(weights) == names, f"weights({done}) has the terms {sorted(weights)}, not {sorted(names)}")
        require(law, spec.weights(done) == weights, f"weights({done}) is {weights}, then {spec.weights(done)}")


def _check_loss(objective: Objective, batch: HistoryBatch, weights: Any) -> None:
    """Losses are finite scalars by name, and the same for the same batch: nothing is kept, drawn or counted."""
    losses, before = objective(batch, 80.0, weights), _copied(objective.state_dict())
    require("losses by name", isinstance(losses, dict) and "loss" in losses, "forward() must return a dict with 'loss'")
    for name, value in losses.items():
        is_scalar = isinstance(value, Tensor) and value.shape == () and bool(value.isfinite())
        require("losses by name", is_scalar, f"'{name}' is {value!r:.60}, no finite scalar")
    again = objective(batch, 80.0, weights)
    for name, value in losses.items():
        same("an objective leaves no trace", again[name].detach(), value.detach(), f"'{name}' of one batch, twice,", 0)
    after = objective.state_dict()
    moved = [name for name, value in before.items() if not torch.equal(after[name], value)]
    require("an objective leaves no trace", not moved, f"its forward pass changes {', '.join(moved)}")


def _check_learning(objective: Objective, batch: HistoryBatch, weights: Any, others: dict[str, Policy]) -> None:
    """The heads that it names learn, the others do not, and nor do other agents' policies."""
    objective.zero_grad()
    objective(batch, 80.0, weights)["loss"].backward()
    for head in HEADS:
        learns = any(p.grad is not None and bool(p.grad.any()) for p in getattr(objective.policy, head).parameters())
        is_named = head in objective.heads
        verbs = ("names" if is_named else "does not name", "learns" if learns else "does not learn")
        what = f"it {verbs[0]} the head '{head}', which {verbs[1]}"
        require("the heads that are named learn", learns == is_named, what)
    taught = [place for place, other in others.items() if any(p.grad is not None for p in other.parameters())]
    require("other agents stay as they are", not taught, f"gradients reach {', '.join(taught)}")


def _check_sum(objective: Objective, batch: HistoryBatch, weights: Any) -> None:
    """Gradients of two processes with half of the rows each average to that of the whole."""
    whole = _gradient(objective, batch, 80.0, weights)
    halves = [_gradient(objective, batch.rows(slice(i, i + 2)), 40.0, weights) for i in (0, 2)]
    average = (halves[0] + halves[1]) / 2
    same("processes add up", average, whole, "gradients of two halves and of the whole", TOLERANCE)


def _check_padding(objective: Objective, spaces: Spaces, batch: HistoryBatch, weights: Any) -> None:
    """Garbage after a history's end changes no loss."""
    mask = torch.arange(20) < torch.tensor([20, 13, 8, 20])[:, None]
    ended = evolve(batch, mask=mask)
    dirty = padded_with_garbage(ended, random_batch(spaces, size=4, length=20, seed=4))
    clean, changed = objective(ended, float(mask.sum()), weights), objective(dirty, float(mask.sum()), weights)
    for name, value in clean.items():
        same(
            "padding is invisible",
            changed[name].detach(),
            value.detach(),
            f"'{name}' with garbage after the end and without",
        )


def _gradient(objective: Objective, batch: HistoryBatch, num_targets: float, weights: Any) -> Tensor:
    objective.zero_grad()
    objective(batch, num_targets, weights)["loss"].backward()
    return torch.cat([p.grad.flatten() for p in objective.policy.parameters() if p.grad is not None])


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}
