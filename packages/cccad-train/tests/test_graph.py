"""The graph of a run: its order, whose weights a stage begins with, and digests by which earlier runs are known."""

import ast
from pathlib import Path

import cccad_train
import pytest
from cccad_core.specs import load
from cccad_train.experiment import ExperimentSpec
from cccad_train.run.graph import resolve

WARM, TEACHER = (
    "train.warm_start='ad'",
    "train.objective={ kind = 'imitation', teacher = { agent = 'ad', weight = 0.5 } }",
)
RECORDED = {"collect": "c9fd8908", "pretrain-cad": "bbbec3b5", "train-cad": "e698588b", "train-ad": "ed186176",
            "evaluate": "dad0a71f"}  # fmt: skip
"""What stages.json of a run of the micro spec holds."""


@pytest.fixture
def graph(micro):
    """Return the graph of the micro spec with overrides."""
    return lambda *overrides: resolve(load(micro, ExperimentSpec, overrides))


def names(stages):
    return [stage.name for stage in stages]


def test_stages_come_in_the_order_of_their_needs(graph):
    stages = graph().stages
    trained = ["pretrain-cad", "train-cad", "train-ad", "train-blind"]
    assert names(stages) == ["collect", *trained, "evaluate", "release", "report"]
    for overrides in ([], [WARM], [TEACHER], [WARM, TEACHER]):
        stages = graph(*overrides).stages
        for number, stage in enumerate(stages):
            assert set(stage.needs) <= set(stages[:number])
            assert stage.weights_from is None or stage.weights_from in stage.needs


def test_a_stage_knows_whose_weights_it_begins_with(graph):
    plain = graph()
    assert plain.stage("pretrain", "cad").weights_from is None
    assert plain.stage("train", "cad").weights_from is plain.stage("pretrain", "cad")
    assert plain.stage("train", "ad").weights_from is None
    warm = graph(WARM)
    assert warm.stage("pretrain", "cad").weights_from is warm.stage("train", "ad")
    taught = graph(TEACHER)
    assert names(taught.stage("train", "cad").needs) == ["collect", "pretrain-cad", "train-ad"]
    assert taught.stage("train", "cad").weights_from is taught.stage("pretrain", "cad")


def test_only_one_kind_of_stage_brings_what_it_is_built_on_or_asks_for_it(graph):
    assert names(graph().wanted("pretrain")) == ["pretrain-cad"]
    assert names(graph(WARM).wanted("pretrain")) == ["train-ad", "pretrain-cad"]
    assert names(graph(WARM).required("pretrain")) == ["collect"]
    assert names(graph(WARM).required("train")) == ["collect", "pretrain-cad"]
    assert names(graph().required("evaluate")) == ["collect", "train-cad", "train-ad", "train-blind"]
    assert names(graph().required("release")) == ["collect", "train-cad", "train-ad", "train-blind", "evaluate"]
    assert names(graph().required("report")) == ["evaluate"]


@pytest.mark.parametrize("aid", [WARM, TEACHER])
def test_what_another_agent_depends_on_counts(graph, aid):
    changed = graph(aid, "controls.ad.train.num_updates=7")
    assert changed.stage("train", "cad").inputs != graph(aid).stage("train", "cad").inputs
    assert changed.stage("collect").inputs == graph(aid).stage("collect").inputs


def test_stages_of_earlier_runs_are_known_by_their_digests(graph):
    """The digests follow from the fields of the spec alone: they move only when these do. No agent was blind then."""
    assert {stage.name: stage.inputs for stage in graph("blind=false").stages if stage.name in RECORDED} == RECORDED


def test_histories_that_cannot_be_read_leave_stages_without_inputs(graph, tmp_path):
    stages = graph(f"data.path='{tmp_path / 'nowhere'}'").stages
    assert [stage.inputs for stage in stages] == [None] * len(stages)


def test_no_stage_is_a_string_that_is_taken_apart_or_put_together():
    """Names such as 'train-cad' are made in one place, `Stage.name`."""
    kinds = ("pretrain-", "train-")
    places = [
        f"{path.name}:{node.lineno}"
        for path in Path(cccad_train.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in kinds
    ]
    assert places == []
