"""The contract of a family: what is asked for by `isinstance`, parameters of any kind, and families that know less."""

import pytest
from cccad_data import Histories, InlineSpec, RandomSpec, collect, verify
from cccad_data.cli import main
from cccad_data.errors import FamilyError
from cccad_data.families.laws import check_family
from cccad_data.families.toys import Corridor, CorridorSpec, CorridorTask, LeversSpec, TrackSpec
from cccad_data.family import (
    HasOptimum,
    HasRandomReturn,
    KnowsDynamics,
    KnowsOptimalActions,
    Replayable,
    Task,
    TaskFamily,
    TaskSplit,
    VectorEnvironment,
    episodes_per_cycle,
    has_random_rewards,
    has_random_transitions,
    has_scores,
    optimal_returns,
    random_returns,
)

SPLIT = {"seed": 0, "held_out_frac": 0.2}


class PaintedSpec(CorridorSpec):
    def build(self):
        return Painted(self)


class Painted(Corridor):
    """A corridor whose tasks have a text, a float and a truth value among their parameters."""

    def __init__(self, spec):
        super().__init__(spec)
        self.tasks = tuple(
            CorridorTask(
                task_id=f"painted/{colour}-{task.params['goal']}",
                params={**task.params, "colour": colour, "slope": 0.1 * index, "is_wet": index % 2 == 0},
            )
            for index, (task, colour) in enumerate(zip(self.tasks, ["röd", "blue"] * 4, strict=False))
        )


@pytest.mark.parametrize("spec", [CorridorSpec(), TrackSpec(), LeversSpec(), PaintedSpec()])
def test_the_toys_fulfil_the_contract(spec):
    family = spec.build()
    assert isinstance(family, TaskFamily)
    assert isinstance(family.tasks[0], Task)
    assert isinstance(family.split(), TaskSplit)
    assert isinstance(family.make_vec(family.tasks), VectorEnvironment)


def test_what_a_family_can_do_is_asked_by_its_methods():
    corridor, track, levers = CorridorSpec().build(), TrackSpec().build(), LeversSpec().build()
    families = (corridor, track, levers)
    assert [isinstance(family, HasOptimum) for family in families] == [True, True, False]
    assert [isinstance(family, HasRandomReturn) for family in families] == [True, False, False]
    assert [has_scores(family) for family in (corridor, track, levers)] == [True, False, False]
    assert isinstance(corridor, KnowsDynamics)
    assert isinstance(corridor, Replayable)
    assert not isinstance(levers, KnowsDynamics | Replayable)
    assert isinstance(levers.make_vec(levers.tasks), KnowsOptimalActions)
    assert not isinstance(track.make_vec(track.tasks), KnowsOptimalActions)


def test_what_a_family_does_not_say_is_the_usual():
    assert (has_random_rewards(TrackSpec().build()), has_random_rewards(LeversSpec().build())) == (False, True)
    assert not has_random_transitions(LeversSpec().build())
    assert episodes_per_cycle(LeversSpec().build()) == 1


def test_what_needs_an_optimum_says_so():
    levers = LeversSpec().build()
    with pytest.raises(FamilyError, match="the task family 'levers' has no 'optimal_returns'"):
        optimal_returns(levers, levers.tasks)
    with pytest.raises(FamilyError, match="the task family 'track' has no 'random_returns'"):
        random_returns(TrackSpec().build(), TrackSpec().build().tasks)


@pytest.mark.parametrize("spec", [LeversSpec(), TrackSpec()])
def test_a_family_without_optimum_keeps_the_laws_is_collected_and_audited(spec, tmp_path):
    family = spec.build()
    check_family(spec)
    source = RandomSpec(num_envs=2, env_steps=60).build()
    path = collect(family, source, InlineSpec().build(), out=tmp_path / "set", split=SPLIT, seed=0)
    assert verify(path, family) == []


def test_parameters_of_every_kind_come_back_from_the_disk(tmp_path, capsys):
    family = PaintedSpec().build()
    check_family(PaintedSpec())
    source = RandomSpec(num_envs=2, env_steps=60).build()
    path = collect(family, source, InlineSpec().build(), out=tmp_path / "set", split=SPLIT, seed=0)
    for lazy in (False, True):
        for task in Histories.open(path, lazy=lazy):
            original = family.task(task.task_id)
            assert task.params == original.params
            assert [type(value) for value in task.params.values()] == [int, str, float, bool]
    assert verify(path, family) == []
    assert main(["info", str(path)]) == 0
    assert any("röd" in task_id for task_id in Histories.open(path).task_ids)
    capsys.readouterr()
