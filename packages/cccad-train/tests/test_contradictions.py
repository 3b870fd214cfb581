"""A declared optimum or random return that playing contradicts is a warning in results, terminal and report."""

import json
import types

import numpy as np
import pytest
from cccad_data.families.scale import Scale
from cccad_envs.bandit import BanditSpec
from cccad_envs.darkroom import DarkroomSpec
from cccad_envs.switching_darkroom import SwitchingDarkroomSpec
from cccad_train.console import Meter
from cccad_train.experiment import EvaluateSpec
from cccad_train.files import Json
from cccad_train.report.page import summary_table
from cccad_train.run.stages.contradictions import contradictions
from cccad_train.run.stages.held_out import Evaluation

SPEC = EvaluateSpec(num_episodes=12, num_replicas=8)
FAMILIES = [
    DarkroomSpec(size=5, horizon=8),
    BanditSpec(num_arms=3, horizon=10, num_tasks=40),
    SwitchingDarkroomSpec(size=3, horizon=6, num_episodes_each=2),
]


def scale(best, random):
    none = np.zeros(len(best))
    return Scale(best=np.array(best), random=np.array(random), best_errors=none, random_errors=none, is_optimum=True)


def warnings_of(family):
    tasks = family.split(seed=0, held_out_frac=0.1).held_out[:4]
    played = Evaluation(family, tasks, SPEC, Meter("evaluate", 100, "episodes", is_silent=True))
    played.references()
    return played.results({})["warnings"]


@pytest.mark.parametrize("spec", FAMILIES, ids=lambda spec: type(spec).__name__)
def test_our_families_declare_what_is_played(spec):
    assert warnings_of(spec.build()) == []


@pytest.mark.parametrize(
    ("name", "shift"), [("optimal_returns", 4.0), ("optimal_returns", -2.0), ("random_returns", -3.0)]
)
def test_a_wrongly_declared_return_is_told_with_both_numbers(name, shift):
    family = DarkroomSpec(size=5, horizon=8).build()
    honest = getattr(family, name)
    setattr(family, name, types.MethodType(lambda _, tasks: honest(tasks) + shift, family))
    warnings = warnings_of(family)
    what = {"optimal_returns": "the optimum that", "random_returns": "the random return that"}[name]
    assert any(text.startswith(what) and "is contradicted on" in text for text in warnings)


def test_an_agent_that_earns_more_than_the_optimum_is_told():
    cad: Json = {"label": "cad", "returns": np.full((2, 4, 30), 3.0)}
    agents: dict[str, Json] = {"cad": cad, "source": {"label": "source"}}
    [text] = contradictions(agents, ["a/0", "a/1"], scale([3.0, 2.0], [0.0, 0.0]))
    assert text == "the optimum that the family declares is surpassed: on a/1 it is 2, but cad earned 3 a piece"


def test_few_episodes_of_a_sparse_family_contradict_nothing():
    agents = {"random": {"label": "random", "returns": np.zeros((1, 2, 6))}}
    assert contradictions(agents, ["a/0"], scale([1.0], [0.05])) == []


def test_warnings_stand_in_the_terminal_and_on_the_page(copied_run, cccad):
    file = copied_run / "evaluation" / "results.json"
    results = json.loads(file.read_text())
    assert results["warnings"] == []
    file.write_text(json.dumps({**results, "warnings": ["the optimum is off"]}))
    assert cccad("report", copied_run).code == 0
    assert "Warning: the optimum is off." in (copied_run / "report.html").read_text()
    assert "\nwarning: the optimum is off" in summary_table(json.loads(file.read_text()))
