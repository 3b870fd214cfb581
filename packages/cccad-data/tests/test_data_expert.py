"""The source `expert`: anybody's expert with fading noise, for all rows at once or for one environment at a time."""

import sys
import textwrap

import numpy as np
import pytest
from attrs import evolve
from cccad_data import ExpertSpec, InlineSpec, ProcessesSpec, SourceError, collect
from cccad_data.collecting.source_laws import check_source
from cccad_data.families.toys import Track, TrackSpec, TrackVec
from cccad_data.histories.dataset import Histories

EXPERTS = """
    import numpy as np

    def toward(observations, params):
        goals = np.array(params["goal"])[:, None] / 100
        return (goals - observations) * 4

    def turning(observations, params):
        return np.repeat(params["goal"] > 0, 2).reshape(-1, 2).astype(int)

    def flat(observations, params):
        return np.zeros(7)

    def failing(observations, params):
        return params["gaol"]

    class Watching:
        def __init__(self, environment):
            self.environment = environment

        def __call__(self, observation):
            return [(self.environment.goal - observation[0]) * 4]

    number = 3
"""
LIFE = {"num_envs": 4, "env_steps": 80}


@pytest.fixture
def experts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some_experts.py").write_text(textwrap.dedent(EXPERTS))
    yield "some_experts.py"
    for name in [name for name in sys.modules if name.startswith("some_experts")]:
        del sys.modules[name]


def returns(task):
    return task.episode_returns().reshape(task.num_histories, -1).mean(axis=0)


def test_an_expert_gets_the_observations_and_the_tasks_of_all_rows(experts):
    family = TrackSpec().build()
    spec = ExpertSpec(expert=f"{experts}:toward", noise_start=0.0, **LIFE)
    for task, histories in zip(family.tasks, spec.build().collect(family, family.tasks, seed=0), strict=True):
        assert returns(histories) == pytest.approx(family.optimal_return(task), abs=1e-5)  # too far is put at the bound


def test_noise_fades_from_its_start_to_none(experts):
    family = TrackSpec().build()
    spec = ExpertSpec(expert=f"{experts}:toward", noise_start=0.5, noise_end_frac=0.5, num_envs=200, env_steps=160)
    (task,) = spec.build().collect(family, family.tasks[:1], seed=0)
    wanted = ((-0.75 - np.asarray(task.observations)[:, 0]) * 4).clip(-1.0, 1.0)
    strays = np.abs(np.asarray(task.actions)[:, 0] - wanted).reshape(200, 160) > 1e-5
    assert strays[:, :8].mean() == pytest.approx(0.5, abs=0.05)
    assert strays[:, 36:44].mean() == pytest.approx(0.25, abs=0.05)
    assert not strays[:, 80:].any()


class Row:
    """One environment of a track."""

    def __init__(self, goal):
        self.goal = goal


class MadeOfRows(Track):
    """A track whose vector environment shows its rows."""

    def make_vec(self, tasks):
        vector = super().make_vec(tasks)
        vector.envs = [Row(goal) for goal in vector.goals]
        return vector


def test_an_expert_may_look_into_the_environment_of_its_row(experts):
    family = MadeOfRows(TrackSpec())
    life = {"noise_start": 0.0, **LIFE}
    watching = ExpertSpec(expert=f"{experts}:Watching", per_environment=True, **life).build()
    knowing = ExpertSpec(expert=f"{experts}:toward", **life).build()
    both = [source.collect(family, family.tasks, seed=1) for source in (watching, knowing)]
    for one, other in zip(*both, strict=True):
        assert np.allclose(one.actions, other.actions, atol=1e-6)


def test_where_rows_have_no_environments_of_their_own_that_is_said(experts):
    family = TrackSpec().build()
    source = ExpertSpec(expert=f"{experts}:Watching", per_environment=True, **LIFE).build()
    with pytest.raises(SourceError, match="needs single environments; family 'track' has none"):
        source.collect(family, family.tasks, seed=0)


class KnobsVec(TrackVec):
    """Pays for each of two knobs that is turned to the goal."""

    def _play(self, actions):
        assert actions.shape == (self.num_envs, 2)
        return (actions == (self.goals > 0)[:, None]).mean(axis=1), np.zeros(self.num_envs, bool)


class Knobs(Track):
    """Several choices at once."""

    def __init__(self, spec):
        super().__init__(spec)
        self.spaces = {**self.spaces, "action": {"kind": "multi-discrete", "sizes": [3, 4]}}

    def make_vec(self, tasks):
        goals = np.array([task.params["goal"] / 100 for task in tasks])
        return KnobsVec(self.horizon, goals, np.zeros(1, np.float32))


def test_several_choices_at_once_are_actions(experts):
    family = Knobs(TrackSpec())
    source = ExpertSpec(expert=f"{experts}:turning", num_envs=30, env_steps=80).build()
    task = source.collect(family, family.tasks[2:3], seed=0)[0]
    assert task.actions.shape == (2400, 2)
    assert set(np.unique(task.actions[:, 1])) == {0, 1, 2, 3}
    assert returns(task)[0] < 5.0 < returns(task)[-1]


def test_it_keeps_the_laws_of_a_source(experts):
    check_source(ExpertSpec(expert=f"{experts}:toward", **LIFE), TrackSpec().build())


def test_worker_processes_find_the_same_expert(experts, tmp_path):
    family, spec = TrackSpec().build(), ExpertSpec(expert=f"{experts}:toward", tasks_per_unit=2, **LIFE)
    both = []
    for name, executor in (("one", InlineSpec()), ("two", ProcessesSpec(num_workers=2))):
        split = {"seed": 0, "held_out_frac": 0.25}
        collect(family, spec.build(), executor.build(), out=tmp_path / name, split=split, seed=0)
        both.append(Histories.open(tmp_path / name))
    for one, other in zip(*both, strict=True):
        assert all(np.array_equal(values, other.arrays()[name]) for name, values in one.arrays().items())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs an 'expert', such as 'my_expert.py:act', or a saved 'policy'"),
        ({"expert": "some_experts.py:toward", "policy": "x.zip"}, "needs an 'expert'"),
        ({"expert": "some_experts.py"}, "is no import path"),
        ({"expert": "nowhere.py:act"}, "there is no file 'nowhere.py'"),
        ({"expert": "no_such_module:act"}, "cannot be imported: ModuleNotFoundError"),
        ({"expert": "some_experts.py:towards"}, "did you mean 'toward'"),
        ({"expert": "some_experts.py:number"}, "cannot be called"),
    ],
)
@pytest.mark.usefixtures("experts")
def test_an_expert_that_is_not_there_is_named_before_anything_is_played(fields, message):
    with pytest.raises(SourceError, match=message):
        ExpertSpec(**fields).build()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flat", r"returns actions of shape \(7,\), not \(16, 1\)"),
        ("failing", "'some_experts.py:failing' fails in family 'track', env step 0: KeyError: 'gaol'"),
    ],
)
@pytest.mark.usefixtures("experts")
def test_an_expert_that_does_not_fit_is_blamed(name, message):
    family = TrackSpec().build()
    source = evolve(ExpertSpec(**LIFE, expert="some_experts.py:toward"), expert=f"some_experts.py:{name}").build()
    with pytest.raises(SourceError, match=message):
        source.collect(family, family.tasks, seed=0)
