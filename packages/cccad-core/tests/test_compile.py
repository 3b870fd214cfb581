"""Compiled whole, training and a decision are what they are when they are not, and nothing is compiled twice.

This is what the pure forward is for: geometry and chance are settled on the CPU before tensors are touched.
"""

import shutil
from typing import Any

import pytest
import torch
from cccad_core.agent import Agent
from cccad_core.laws.noise import SPACES, random_batch
from cccad_core.memory.moment import Moment
from cccad_core.objectives.imitation import ImitationSpec
from cccad_core.policy import PolicySpec
from torch._dynamo.utils import counters

WITHOUT_COMPILER = not any(map(shutil.which, ("c++", "g++", "clang++")))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(WITHOUT_COMPILER, reason="torch.compile needs a C++ compiler here, and there is none"),
]
NUM_UPDATES = 10
ROUNDING: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compiled(function):
    return torch.compile(function, fullgraph=True, dynamic=False)


def test_training_compiles_whole_and_once():
    policy, spec = PolicySpec().build(SPACES, seed=0), ImitationSpec()
    objective = spec.build(policy)
    fast = compiled(objective)
    for update in range(NUM_UPDATES):
        batch = random_batch(SPACES, size=4, length=120, seed=update)
        weights = {name: torch.tensor(weight) for name, weight in spec.weights(update / NUM_UPDATES).items()}
        moment, num_targets = Moment(seed=update, shared_seed=update), torch.tensor(480.0 - update)
        outcomes = []
        for forward in (objective, fast):
            policy.zero_grad()
            losses = forward(batch, num_targets, weights, moment, batch.flags())
            losses["loss"].backward()
            gradients = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
            outcomes.append(({name: value.detach() for name, value in losses.items()}, gradients))
        torch.testing.assert_close(outcomes[1], outcomes[0], **ROUNDING)
        assert "memory.compressor.gate.open.weight" in outcomes[1][1]
    assert counters["stats"]["unique_graphs"] == 1


def test_one_decision_compiles_whole_and_once():
    agent = Agent(PolicySpec().build(SPACES, seed=0))
    fast, batch = compiled(agent._answer), random_batch(SPACES, size=4, length=20, seed=0)
    plain_life, fast_life = agent.begin(4), agent.begin(4)
    for t in range(20):
        observations = batch.observations[:, t]
        plain = agent.decide(plain_life, observations)
        with torch.no_grad():
            torch.testing.assert_close(fast(fast_life, observations), plain, **ROUNDING)
        for life in (plain_life, fast_life):
            life.last.actions[:, 0] = batch.actions[:, t]
            ends = batch.terminations[:, t], batch.truncations[:, t]
            agent.observe(life, batch.rewards[:, t], *ends, batch.next_observations[:, t])
    assert counters["stats"]["unique_graphs"] == 1
