"""The task-blind control of every experiment (`experiment.py`): it cannot tell tasks apart, and the report names it."""

import json

import numpy as np
import pytest
import torch
from attrs import evolve
from cccad_core.laws.noise import SPACES, random_batch
from cccad_core.layouts import ObservationSpec
from cccad_core.memory.memoryless import MemorylessSpec
from cccad_core.policy import PolicySpec
from cccad_core.specs import load
from cccad_train.experiment import BLIND, AgentSpec, ExperimentSpec
from cccad_train.fit.spec import TrainSpec
from cccad_train.report.page import summary_table, write_report

BLIND_POLICY = PolicySpec(tokens=ObservationSpec(), memory=MemorylessSpec())


@pytest.fixture
def micro_spec(micro):
    return load(micro, ExperimentSpec, [])


def test_every_experiment_has_one_of_the_main_agents_width_and_with_a_quarter_of_its_updates(micro_spec):
    agents = micro_spec.agents()
    assert list(agents)[-1] == BLIND
    assert agents[BLIND].policy.is_blind
    assert agents[BLIND].policy.width == micro_spec.policy.width
    assert agents[BLIND].train.num_updates == -(-micro_spec.train.num_updates // 4)


def test_it_is_left_out_where_it_is_not_wanted_and_one_of_ones_own_takes_its_place(micro_spec):
    own = AgentSpec(policy=evolve(BLIND_POLICY, width=8), train=TrainSpec(num_updates=3))
    assert BLIND not in evolve(micro_spec, blind=False).agents()
    assert evolve(micro_spec, controls={BLIND: own}).agents()[BLIND] is own
    assert BLIND not in evolve(micro_spec, policy=BLIND_POLICY, pretrain=None).agents()


def test_its_decisions_depend_on_the_current_observation_alone():
    policy = BLIND_POLICY.build(SPACES, seed=0).eval()
    batch, other = (random_batch(SPACES, size=2, length=20, seed=seed) for seed in (1, 2))
    strange = evolve(other, observations=batch.observations)
    with torch.no_grad():
        ours, theirs = (policy(each).ask(policy.head) for each in (batch, strange))
    assert torch.equal(ours, theirs)
    assert not torch.equal(batch.rewards, strange.rewards)


def results_with(copied_run, agent, blind):
    """Give all lives of the agent, and of the blind control, the same part of what the optimum has above random."""
    path = copied_run / "evaluation" / "results.json"
    results = json.loads(path.read_text())
    for name, share in (("cad", agent), (BLIND, blind)):
        lives = np.array(results["agents"][name]["returns"])
        ends = [(task["random_return"], task["optimal_return"]) for task in results["tasks"]]
        wanted = [[[low + share * (high - low)] * lives.shape[2]] * lives.shape[1] for low, high in ends]
        results["agents"][name]["returns"] = wanted
        del results["summary"][name]
    path.write_text(json.dumps(results))
    return results


@pytest.mark.parametrize(
    ("agent", "blind", "sentence"),
    [
        (0.9, 0.1, "A task-blind policy, which sees the current observation alone, ends at 0.10."),
        (0.9, 0.8, "This shows no in-context learning: a task-blind policy"),
        (0.1, 0.08, "This shows no in-context learning: a task-blind policy"),
        (0.17, 0.01, "A task-blind policy, which sees the current observation alone, ends at 0.01."),
    ],
)
def test_report_and_terminal_say_at_once_how_near_it_comes(agent, blind, sentence, copied_run):
    results = results_with(copied_run, agent, blind)
    assert sentence in summary_table(results)
    page = write_report(copied_run).read_text()
    headline = page.split('<p class="headline">')[1].split("</p>")[0]
    assert sentence in " ".join(headline.split())
