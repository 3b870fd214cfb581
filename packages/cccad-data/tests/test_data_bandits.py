"""`sources/bandits`: UCB1 and Thompson sampling."""

import numpy as np
import pytest
from cccad_data import RandomSpec, SourceError, ThompsonSpec, UCBSpec, learning_curve
from cccad_data.families.toys import CorridorSpec, LeversSpec, TrackSpec

LIFE = {"num_envs": 40, "env_steps": 240}
LEARNERS = {
    "ucb": UCBSpec(**LIFE),
    "thompson": ThompsonSpec(**LIFE),
    "gaussian": ThompsonSpec(prior="gaussian", **LIFE),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_bandit_learners_find_the_best_lever(name):
    family = LeversSpec().build()
    histories = LEARNERS[name].build().collect(family, family.tasks, seed=0)
    for task in histories:
        is_best = (task.actions == task.params["best"]).reshape(40, 240).mean(0)
        assert is_best[:8].mean() < 0.5
        assert is_best[-40:].mean() > (0.65 if name == "ucb" else 0.85), task.task_id  # UCB1's bonus is a wide one
    for curve in learning_curve(histories).values():
        assert curve[-3:].mean() > curve[0] + 2.0


def test_a_smaller_bonus_explores_less():
    family = LeversSpec().build()

    def share(scale):
        (task,) = UCBSpec(scale=scale, **LIFE).build().collect(family, family.tasks[:1], seed=0)
        return (task.actions == 0).mean()

    assert share(0.4) > share(2.0**0.5) + 0.1 > share(10.0) + 0.2


def test_ucb_pulls_every_lever_once_in_an_order_of_each_history():
    family = LeversSpec().build()
    (task,) = LEARNERS["ucb"].build().collect(family, family.tasks[:1], seed=0)
    first = task.actions.reshape(40, 240)[:, :4]
    assert (np.sort(first, axis=1) == np.arange(4)).all()
    assert len(np.unique(first, axis=0)) > 10


def test_a_history_takes_what_it_learned_into_the_next_episode():
    family = LeversSpec(horizon=20).build()
    (task,) = LEARNERS["thompson"].build().collect(family, family.tasks[:1], seed=0)
    beginnings = (task.actions == 0).reshape(40, 12, 20)[:, :, :5].mean((0, 2))  # by episode
    assert beginnings[0] < 0.5
    assert beginnings[-1] > 0.85


@pytest.mark.parametrize("name", ["ucb", "thompson"])
def test_environments_that_are_no_bandits_are_refused(name):
    corridor, track = CorridorSpec().build(), TrackSpec().build()
    with pytest.raises(SourceError, match=f"{name} is for bandits, with one state; family 'corridor' has more"):
        LEARNERS[name].build().collect(corridor, corridor.tasks, seed=0)
    with pytest.raises(SourceError, match=f"{name} needs discrete actions; family 'track' has box"):
        LEARNERS[name].build().collect(track, track.tasks, seed=0)


def test_the_beta_prior_refuses_rewards_that_are_no_zeros_and_ones(monkeypatch):
    family = LeversSpec().build()
    play = type(family.make_vec(family.tasks))._play
    monkeypatch.setattr(f"{play.__module__}.LeversVec._play", lambda *given: (play(*given)[0] * 0.5, play(*given)[1]))
    with pytest.raises(SourceError, match="prior 'beta' needs rewards of 0 or 1; choose prior = \"gaussian\""):
        LEARNERS["thompson"].build().collect(family, family.tasks, seed=0)
    assert LEARNERS["gaussian"].build().collect(family, family.tasks, seed=0)


def test_random_actions_are_uniform_and_do_not_improve():
    levers, track = LeversSpec().build(), TrackSpec().build()
    source = RandomSpec(num_envs=100, env_steps=160).build()
    for task in source.collect(levers, levers.tasks, seed=0):
        assert np.bincount(task.actions) / len(task.actions) == pytest.approx(np.full(4, 0.25), abs=0.02)
    (task,) = source.collect(track, track.tasks[:1], seed=0)
    assert np.quantile(task.actions, (0.0, 0.25, 0.5, 0.75, 1.0)) == pytest.approx([-1, -0.5, 0, 0.5, 1], abs=0.02)


def test_uniform_actions_need_bounds():
    track = TrackSpec().build()
    track.spaces["action"]["high"] = np.inf
    with pytest.raises(SourceError, match="uniform actions need a box with finite bounds"):
        RandomSpec(env_steps=20).build().collect(track, track.tasks, seed=0)
