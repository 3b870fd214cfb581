"""Other worlds: which tasks are held out in them, what is refused, and who plays them by rule."""

import json

import numpy as np
import pytest
from cccad_core.errors import SpecError
from cccad_data import NoisyOracleSpec
from cccad_envs import BanditSpec, RecallSpec
from cccad_envs.darkroom import DarkroomSpec
from cccad_train.console import Meter
from cccad_train.experiment import DataSpec, EvaluateSpec, ExperimentSpec, SplitSpec
from cccad_train.run.stages.held_out import Evaluation
from cccad_train.run.worlds import other_worlds, own_world
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

DATA = DataSpec(source=NoisyOracleSpec())


def experiment(env, worlds, **split):
    return ExperimentSpec(name="x", env=env, data=DATA, split=SplitSpec(**split), evaluate=EvaluateSpec(worlds=worlds))


def ids(tasks):
    return [task.task_id for task in tasks]


def test_where_ids_agree_the_same_tasks_are_held_out():
    spec = experiment(RecallSpec(num_bits=4), {"x10": {"num_filler": 200}}, max_held_out_tasks=5)
    own = own_world(spec)
    world = other_worlds(spec, own)["x10"]
    assert world.family.horizon == 208
    assert len(own.held_out) == 5
    assert ids(world.held_out) == ids(own.held_out)


def test_where_ids_differ_the_split_is_the_worlds_own():
    spec = experiment(BanditSpec(num_tasks=40), {"fresh": {"task_seed": 1}}, seed=3, held_out_frac=0.2)
    world = other_worlds(spec, own_world(spec))["fresh"]
    assert ids(world.held_out) == ids(BanditSpec(num_tasks=40, task_seed=1).build().split(3, 0.2).held_out)


def test_a_world_with_only_some_of_the_tasks_never_holds_out_a_trained_one():
    spec = experiment(RecallSpec(num_tasks=100), {"fewer": {"num_tasks": 40}}, seed=5, held_out_frac=0.5)
    own = own_world(spec)
    held_out = ids(other_worlds(spec, own)["fewer"].held_out)
    assert len(held_out) == 18  # of 20: two are trained on
    assert set(held_out) & set(ids(own.train)) == set()


def test_all_that_is_wrong_with_worlds_is_said_with_its_path():
    wrong = {"typo": {"horizn": 9}, "other": {"size": 6}, "never": {"horizon": 0}, "good": {"horizon": 9}}
    spec = experiment(DarkroomSpec(size=5), wrong)
    with pytest.raises(SpecError) as caught:
        other_worlds(spec, own_world(spec))
    typo, other, never = str(caught.value).splitlines()
    assert typo == "extra field 'horizn' (did you mean 'horizon'?) @ evaluate.worlds.typo"
    assert other.startswith("an agent plays only where spaces are those of its env: {'observation'")
    assert other.endswith("@ evaluate.worlds.other")
    assert never == "'horizon' must be >= 1: 0 @ evaluate.worlds.never"


def test_a_wrong_world_is_refused_before_anything_is_done(micro, cccad_run, tmp_path):
    told = cccad_run(micro, "--out", tmp_path / "out", "--set", "evaluate.worlds.big={ size = 5 }")
    assert told.code == 2
    assert "evaluate.worlds.big" in told.err
    assert not (tmp_path / "out").exists()


DETOURS = "data.sampler.detours.frac=0.5"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["env={ kind = 'darkroom-permuted', size = 4, horizon = 8 }"], "tasks that differ in their rewards alone"),
        (["env={ kind = 'bandit' }"], "rewards that follow from an episode; 'bandit' pays otherwise"),
        (["split.max_train_tasks=1"], "histories of at least two tasks"),
    ],
)
def test_detours_that_cannot_be_had_are_refused_before_anything_is_collected(
    settings, told, micro, cccad_run, tmp_path
):
    overrides = [word for text in (DETOURS, *settings) for word in ("--set", text)]
    done = cccad_run(micro, "--out", tmp_path / "out", *overrides)
    assert done.code == 2
    assert f"detours need {told}" in done.err
    assert done.err.strip().endswith("@ data.sampler.detours")
    assert not (tmp_path / "out").exists()


def test_results_and_report_tell_of_every_world(copied_run, cccad):
    worlds = "evaluate.worlds.long={ horizon = 12 }"
    told = cccad("evaluate", copied_run, "--set", worlds, "--set", "evaluate.num_episodes=3", "--device", "cpu")
    assert told.code == 0, told.err
    results = json.loads((copied_run / "evaluation" / "results.json").read_text())
    inner = results["worlds"]["long"]
    assert inner["horizon"] == 12
    assert ids_of(inner) == ids_of(results)
    assert sorted(inner["summary"]) == ["ad", "cad", "optimal", "random"]
    assert np.array(inner["agents"]["cad"]["returns"]).shape == (2, 2, 3)
    assert inner["agents"]["cad"]["compressions"][0] == [12, 24]  # of 36 env steps, in segments of 12
    assert inner["summary"]["optimal"]["normalized_last10_mean"] == 1.0
    page = (copied_run / "report.html").read_text()
    assert page.count("<th>agent</th>") == 2
    assert "In the world long" in page
    assert "last 3 or 10" in page  # the source's histories are longer
    assert "in long:" in told.out


def ids_of(results):
    return [task["task_id"] for task in results["tasks"]]


def played(family, tasks, **settings):
    spec = EvaluateSpec(**settings)
    evaluation = Evaluation(family, tasks, spec, Meter("evaluate", 100, "episodes", is_silent=True))
    evaluation.references()
    return evaluation


def test_a_family_brings_its_own_strategies_into_the_table():
    family = BanditSpec(num_arms=3, horizon=50, num_tasks=20).build()
    summary = played(family, family.tasks[:6], num_episodes=4, num_replicas=8).results({})["summary"]
    assert list(summary) == ["optimal", "random", "uniform", "ucb1", "thompson", "best-arm"]
    score = {name: row["normalized_last10_mean"] for name, row in summary.items()}
    assert score["best-arm"] == pytest.approx(1.0, abs=0.15)
    assert score["uniform"] == pytest.approx(0.0, abs=0.15)
    assert score["uniform"] + 0.3 < score["thompson"] < score["best-arm"] + 0.1


class Reach(VectorEnv):
    """Real actions that are paid by their distance from 0; an episode is four of them."""

    def __init__(self, num_envs):
        self.num_envs, self.elapsed = num_envs, 0
        self.single_action_space = Box(-1, 1, (2,), np.float32)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions):
        assert self.action_space.contains(actions)
        self.elapsed += 1
        seen, ended = np.zeros((self.num_envs, 1), np.float32), np.full(self.num_envs, self.elapsed % 4 == 0)
        return seen, -np.abs(actions).sum(1), np.zeros_like(ended), ended, {"final_obs": seen, "_final_obs": ended}


class ReachFamily:
    """One task without a known optimum."""

    name = "reach"

    def make_vec(self, tasks):
        return Reach(len(tasks))


def test_real_actions_are_drawn_at_random_and_an_unknown_optimum_is_left_out():
    evaluation = played(ReachFamily(), ["only"], num_episodes=2, num_replicas=50)
    assert list(evaluation.agents) == ["random"]
    assert np.mean(evaluation.agents["random"]["returns"]) == pytest.approx(-4.0, abs=0.3)
