"""Evaluation: references, controls and counts against what is known exactly."""

import numpy as np
import pytest
import torch
from attrs import evolve
from cccad_core.compressors.window import WindowSpec
from cccad_core.errors import UnfitValueError
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.play import Played, play
from cccad_envs.darkroom import DarkroomSpec
from cccad_train.console import Meter
from cccad_train.experiment import EvaluateSpec
from cccad_train.run.environments import LeakError, refuse_leaks
from cccad_train.run.stages.held_out import Evaluation, Reference

FAMILY = DarkroomSpec(size=5, horizon=8).build()
TASKS = FAMILY.split(seed=0, held_out_frac=0.2).held_out
SPEC = EvaluateSpec(num_episodes=10, num_replicas=3)


def evaluation(**changes):
    spec = evolve(SPEC, **changes)
    return Evaluation(FAMILY, TASKS, spec, Meter("evaluate", 100, "episodes", is_silent=True))


def test_a_held_out_task_among_the_trained_ones_is_refused_by_name():
    ids = [task.task_id for task in TASKS]
    refuse_leaks(TASKS, ["darkroom-5x5/goal-9-9"], "the data")
    with pytest.raises(LeakError, match=f"task '{min(ids)}' and {len(ids) - 1} more is to be held out, but the"):
        refuse_leaks(TASKS, ids, "the data")


def test_the_optimal_reference_attains_the_optimum_in_every_episode():
    played = evaluation()
    played.references()
    returns = np.array(played.agents["optimal"]["returns"])
    assert returns.shape == (len(TASKS), 3, 10)
    assert (returns == FAMILY.optimal_returns(TASKS)[:, None, None]).all()
    assert played.results({})["summary"]["optimal"]["worst_task_normalized"] == 1.0


def test_the_random_reference_is_near_its_expectation():
    played = evaluation(num_replicas=40, num_episodes=20)
    played.references()
    returns = np.array(played.agents["random"]["returns"])
    assert returns.mean((1, 2)) == pytest.approx(FAMILY.random_returns(TASKS), abs=0.15)


def test_returns_are_counted_episode_by_episode():
    tasks = [FAMILY.task("darkroom-5x5/goal-2-2"), FAMILY.task("darkroom-5x5/goal-2-3")]
    stay = Reference(lambda: np.full(2, 4))
    played = play(stay, FAMILY.make_vec(tasks), num_episodes=3)
    assert played.returns.tolist() == [[8.0, 8.0, 8.0], [0.0, 0.0, 0.0]]
    assert played.writes == [[], []]
    assert played.num_env_steps == 24


def test_no_return_is_rounded_before_it_is_computed_with():
    kept = evaluation(num_episodes=1, num_replicas=1)
    returns = torch.arange(1, len(TASKS) + 1, dtype=torch.float64)[:, None] / 3e5
    played = Played(returns=returns, writes=[[]] * len(TASKS), num_env_steps=1, duration_s=1)
    kept.add("cad", "cad", "agent", "", played)
    assert np.array(kept.agents["cad"]["returns"]).reshape(-1).tolist() == returns[:, 0].tolist()
    optimal, random = FAMILY.optimal_returns(TASKS), FAMILY.random_returns(TASKS)
    worst = ((returns[:, 0].numpy() - random) / (optimal - random)).min()
    assert kept.results({})["summary"]["cad"]["worst_task_normalized"] == pytest.approx(worst, rel=1e-12)


def test_an_observation_that_the_policy_does_not_know_is_refused_with_family_env_step_and_value(policy):
    larger = DarkroomSpec(size=9, horizon=8).build()
    lived = Evaluation(larger, larger.tasks[:2], SPEC, Meter("evaluate", 100, "episodes", is_silent=True))
    words = r"family 'darkroom', played on held-out tasks: the next observations, row \d, env step \d: 5 in feature \d"
    with pytest.raises(UnfitValueError, match=words):
        lived.live(policy(FAMILY))


def test_what_is_kept_of_a_life_says_when_it_wrote(policy):
    lived = evaluation()
    lived.add("cad", "cad", "agent", "", lived.live(policy(FAMILY)))
    kept = lived.agents["cad"]
    assert np.array(kept["returns"]).shape == (len(TASKS), 3, 10)
    assert kept["compressions"] == [[12, 24, 36, 48, 60, 72]] * len(TASKS)
    assert kept["compressions_per_history"] == 6
    assert kept["actions_per_s"] > 0


def test_zeroed_latents_carry_nothing_and_the_policy_is_given_back(policy):
    returns = []
    for scale in (1.0, 30.0):
        agent, lived = policy(FAMILY), evaluation()
        before = agent.memory.compressor
        with torch.no_grad():
            agent.memory.compressor.show.weight.mul_(scale)
        lived.add("cad", "cad", "agent", "", lived.live(agent))
        lived.live_without_memory("cad", "cad", agent)
        assert agent.memory.compressor is before
        returns.append({name: kept["returns"] for name, kept in lived.agents.items()})
    small, large = returns
    assert small["cad-zeroed"] == large["cad-zeroed"]
    assert small["cad"] != large["cad"]
    assert large["cad-swapped"] != large["cad-zeroed"]


def test_a_plain_window_is_played_sliding_beside_emptied_and_both_are_named(policy):
    plain, lived = policy(FAMILY, memory=CompressedSpec(window=14, compressor=WindowSpec(), num_heads=2)), evaluation()
    lived.add("ad", "ad, emptied window", "agent", "", lived.live(plain))
    lived.live_sliding("ad", "slides", plain)
    emptied, sliding = lived.agents["ad"], lived.agents["ad-sliding"]
    assert sliding["label"] == "ad, sliding window"
    assert emptied["compressions"][0] != []
    assert sliding["compressions"] == [[]] * len(TASKS)
    first = np.array(emptied["returns"])[..., 0]  # an episode of 8 env steps lies within the first window of 14
    assert (np.array(sliding["returns"])[..., 0] == first).all()
    assert sliding["returns"] != emptied["returns"]


def test_the_same_seed_plays_the_same_lives(policy):
    first, second = (evaluation().live(policy(FAMILY)).returns for _ in range(2))
    assert torch.equal(first, second)


def test_progress_counts_all_lives():
    shown = evaluation()
    heard: list[int] = []
    shown.meter.show = heard.append
    shown.references()
    assert heard == list(range(1, 21))


def test_the_writes_that_are_kept_are_those_of_each_tasks_first_life():
    kept, lives = evaluation(), [(task, replica) for task in range(len(TASKS)) for replica in range(3)]
    writes = [[10 * task + replica] * (task + 1) for task, replica in lives]
    played = Played(returns=torch.zeros(len(lives), 10), writes=writes, num_env_steps=80, duration_s=1.0)
    kept.add("cad", "cad", "agent", "", played)
    assert kept.agents["cad"]["compressions"] == [[10 * task] * (task + 1) for task in range(len(TASKS))]


def test_the_specs_seed_decides_which_lives_are_played(policy):
    zero, one, again = (evaluation(seed=seed).live(policy(FAMILY)).returns for seed in (0, 1, 1))
    assert not torch.equal(zero, one)
    assert torch.equal(one, again)
