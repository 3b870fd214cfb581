"""Other environments: which tasks are held out in them, what is refused, and who plays them by rule."""

import json

import numpy as np
import pytest
from cccad_core.errors import SpecError
from cccad_data import NoisyOracleSpec
from cccad_envs import BanditSpec, RecallSpec
from cccad_envs.darkroom import DarkroomSpec
from cccad_train.console import Meter
from cccad_train.experiment import DataSpec, EvaluateSpec, ExperimentSpec, SplitSpec
from cccad_train.run.environments import other_environments, own_environment
from cccad_train.run.stages.held_out import Evaluation
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

DATA = DataSpec(source=NoisyOracleSpec())


def experiment(env, environments, **split):
    evaluate = EvaluateSpec(environments=environments)
    return ExperimentSpec(name="x", env=env, data=DATA, split=SplitSpec(**split), evaluate=evaluate)


def ids(tasks):
    return [task.task_id for task in tasks]


def test_where_ids_agree_the_same_tasks_are_held_out():
    spec = experiment(RecallSpec(num_bits=4), {"x10": {"num_filler": 200}}, max_held_out_tasks=5)
    own = own_environment(spec)
    environment = other_environments(spec, own)["x10"]
    assert environment.family.horizon == 208
    assert len(own.held_out) == 5
    assert ids(environment.held_out) == ids(own.held_out)


def test_where_ids_differ_the_split_is_the_environments_own():
    spec = experiment(BanditSpec(num_tasks=40), {"fresh": {"task_seed": 1}}, seed=3, held_out_frac=0.2)
    environment = other_environments(spec, own_environment(spec))["fresh"]
    assert ids(environment.held_out) == ids(BanditSpec(num_tasks=40, task_seed=1).build().split(3, 0.2).held_out)


def test_an_environment_with_only_some_of_the_tasks_never_holds_out_a_trained_one():
    spec = experiment(RecallSpec(num_tasks=100), {"fewer": {"num_tasks": 40}}, seed=5, held_out_frac=0.5)
    own = own_environment(spec)
    held_out = ids(other_environments(spec, own)["fewer"].held_out)
    assert len(held_out) == 18  # of 20: two are trained on
    assert set(held_out) & set(ids(own.train)) == set()


def test_all_that_is_wrong_with_environments_is_said_with_its_path():
    wrong = {"typo": {"horizn": 9}, "other": {"size": 6}, "never": {"horizon": 0}, "good": {"horizon": 9}}
    spec = experiment(DarkroomSpec(size=5), wrong)
    with pytest.raises(SpecError) as caught:
        other_environments(spec, own_environment(spec))
    typo, other, never = str(caught.value).splitlines()
    assert typo == "extra field 'horizn' (did you mean 'horizon'?) @ evaluate.environments.typo"
    assert other.startswith("an agent plays only where spaces are those of its env: {'observation'")
    assert other.endswith("@ evaluate.environments.other")
    assert never == "'horizon' must be >= 1: 0 @ evaluate.environments.never"


def test_a_wrong_environment_is_refused_before_anything_is_done(micro, cccad_run, tmp_path):
    answer = cccad_run(micro, "--out", tmp_path / "out", "--set", "evaluate.environments.big={ size = 5 }")
    assert answer.code == 2
    assert "evaluate.environments.big" in answer.err
    assert not (tmp_path / "out").exists()


DETOURS = "data.sampler.detours.frac=0.5"


@pytest.mark.parametrize(
    ("settings", "need"),
    [
        (["env={ kind = 'darkroom-permuted', size = 4, horizon = 8 }"], "tasks that differ in their rewards alone"),
        (["env={ kind = 'bandit' }"], "rewards that follow from an episode; 'bandit' pays otherwise"),
        (["split.max_train_tasks=1"], "histories of at least two tasks"),
    ],
)
def test_detours_that_cannot_be_had_are_refused_before_anything_is_collected(
    settings, need, micro, cccad_run, tmp_path
):
    overrides = [word for text in (DETOURS, *settings) for word in ("--set", text)]
    done = cccad_run(micro, "--out", tmp_path / "out", *overrides)
    assert done.code == 2
    assert f"detours need {need}" in done.err
    assert done.err.strip().endswith("@ data.sampler.detours")
    assert not (tmp_path / "out").exists()


def test_results_and_report_tell_of_every_environment(copied_run, cccad):
    environments = "evaluate.environments.long={ horizon = 12 }"
    answer = cccad("evaluate", copied_run, "--set", environments, "--set", "evaluate.num_episodes=3", "--device", "cpu")
    assert answer.code == 0, answer.err
    results = json.loads((copied_run / "evaluation" / "results.json").read_text())
    inner = results["worlds"]["long"]
    assert inner["horizon"] == 12
    assert ids_of(inner) == ids_of(results)
    assert sorted(inner["summary"]) == ["ad", "blind", "cad", "optimal", "random"]
    assert np.array(inner["agents"]["cad"]["returns"]).shape == (2, 2, 3)
    assert inner["agents"]["cad"]["compressions"][0] == [12, 24]  # of 36 env steps, in segments of 12
    assert inner["summary"]["optimal"]["normalized_last10_mean"] == 1.0
    page = (copied_run / "report.html").read_text()
    assert page.count("<th>agent</th>") == 2
    assert "In the environment long" in page
    assert "last 3 or 10" in page  # the source's histories are longer
    assert "in long:" in answer.out


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
        noticed, ended = np.zeros((self.num_envs, 1), np.float32), np.full(self.num_envs, self.elapsed % 4 == 0)
        return (
            noticed,
            -np.abs(actions).sum(1),
            np.zeros_like(ended),
            ended,
            {"final_obs": noticed, "_final_obs": ended},
        )


class ReachFamily:
    """One task without a known optimum."""

    name = "reach"

    def make_vec(self, tasks):
        return Reach(len(tasks))


def test_real_actions_are_drawn_at_random_and_an_unknown_optimum_is_left_out():
    evaluation = played(ReachFamily(), ["only"], num_episodes=2, num_replicas=50)
    assert list(evaluation.agents) == ["random"]
    assert np.mean(evaluation.agents["random"]["returns"]) == pytest.approx(-4.0, abs=0.3)


OLD = "[evaluate]\nnum_episodes = 12\nworlds.long = { horizon = 12 }\n"


def test_a_spec_with_the_old_name_of_the_field_is_told_the_new_one(micro, cccad_run, tmp_path):
    (tmp_path / "old.toml").write_text(micro.read_text().replace("[evaluate]\nnum_episodes = 12\n", OLD))
    refused = cccad_run(tmp_path / "old.toml", "--dry-run")
    assert refused.code == 2
    assert "the field 'worlds' is now 'environments' @ evaluate" in refused.err


def test_a_run_of_an_earlier_version_is_read_with_the_old_name_and_keeps_its_digests(
    copied_run, micro, cccad, cccad_run
):
    text = (copied_run / "spec.toml").read_text()
    assert "[evaluate.environments]" in text
    (copied_run / "spec.toml").write_text(text.replace("[evaluate.environments]", "[evaluate.worlds]"))
    assert cccad("evaluate", copied_run, "--device", "cpu").code == 0
    again = cccad_run(micro, "--out", copied_run.parent)
    assert "evaluate: done before, nothing to do" in again.out
