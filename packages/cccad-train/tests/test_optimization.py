"""The optimizer's schedule and groups, and the precision in which a stage is fitted."""

from typing import cast

import pytest
import torch
from attrs import evolve
from cccad_core.objectives.base import Objective
from cccad_train.fit.batches import Batches
from cccad_train.fit.checkpoints import Progress
from cccad_train.fit.loop import apply, fit
from cccad_train.fit.optimization import OptimizerSpec
from cccad_train.fit.spec import TrainSpec
from cccad_train.launch import build_accelerator

SPEC = OptimizerSpec(learning_rate=2.0, warmup_updates=10, decay_frac=0.5)


@pytest.mark.parametrize(
    ("update", "rate"), [(0, 0.2), (4, 1.0), (9, 2.0), (49, 2.0), (50, 2.0), (75, 1.0), (90, 0.4), (99, 0.04)]
)
def test_the_rate_warms_up_stays_and_decays_to_zero(update, rate):
    assert SPEC.rate(update, 100) == pytest.approx(rate)


def test_without_warm_up_and_decay_the_rate_is_level():
    level = OptimizerSpec(learning_rate=2.0, warmup_updates=0, decay_frac=0.0)
    assert {level.rate(update, 100) for update in range(100)} == {2.0}


def test_matrices_are_decayed_and_vectors_are_not():
    optimizer = OptimizerSpec(weight_decay=0.3).build(torch.nn.Linear(4, 3))
    assert [(group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in optimizer.param_groups] == [
        (0.3, [(3, 4)]),
        (0.0, [(3,)]),
    ]


def test_the_compressor_can_have_a_learning_rate_of_its_own():
    module = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 1), "compressor": torch.nn.Linear(2, 1)})
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    spec = OptimizerSpec(warmup_updates=0, weight_decay=0.0, compressor_scale=0.25)
    optimizer = spec.build(module, module["compressor"])
    loss = module["compressor"](torch.ones(1, 2)).sum() + module["backbone"](torch.ones(1, 2)).sum()
    apply(loss, optimizer, build_accelerator("cpu"), spec, rate=0.1)
    moved = {name: float((before[name] - now.detach()).abs().max()) for name, now in module.named_parameters()}
    expected = {"backbone": 0.1, "compressor": 0.025}  # Adam's first step is as long as the rate
    assert moved == {name: pytest.approx(expected[name.split(".")[0]], rel=1e-3) for name in before}


def test_what_is_frozen_is_not_trained_and_one_rate_makes_no_groups_of_its_own():
    module = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 1), "compressor": torch.nn.Linear(2, 1)})
    module["backbone"].requires_grad_(requires_grad=False)
    optimizer = OptimizerSpec().build(module, module["compressor"])
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1]


class Multiply(torch.nn.Module):
    """Remembers in which precision it multiplied."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.ones(2, 2)), set()

    def forward(self, batch, num_targets, weights, moment, flags):
        product = batch @ self.weight
        self.seen.add(product.dtype)
        return {"loss": product.float().square().sum() / num_targets}


class Ones:
    """The same batch for every update."""

    def __init__(self, spec):
        self.spec = spec

    def batch(self, update):
        return torch.ones(3, 2), None, 3.0

    def moment(self, update):
        return self.spec.moment(seed=update, shared_seed=update)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_each_stage_is_fitted_in_its_own_precision(precision, dtype):
    spec, objective, progress = TrainSpec(num_updates=3, precision=precision), Multiply(), Progress()
    spec = evolve(spec, optimizer=OptimizerSpec(warmup_updates=0))
    optimizer, heard = spec.optimizer.build(objective), []
    hooks = [lambda update, losses: heard.append((update, float(losses["loss"].detach())))]
    batches = cast("Batches", Ones(spec))
    fit(cast("Objective", objective), batches, optimizer, progress, build_accelerator("cpu"), hooks=hooks)
    assert objective.seen == {dtype}
    assert objective.weight.dtype == torch.float32
    assert progress.update == 3
    assert [update for update, _ in heard] == [1, 2, 3]
    assert heard[0][1] > heard[1][1] > heard[2][1]
