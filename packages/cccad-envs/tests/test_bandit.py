"""`bandit.py` and `bandit_players.py`: means, chance, and the strategies to compare an agent with."""

from typing import Any, cast

import numpy as np
import pytest
from cccad_envs import BanditSpec, SettingError
from cccad_envs.bandit_players import PLAYERS, BanditPlayer, play

FAMILY = BanditSpec().build()


def test_the_drawn_means_never_change():
    task = FAMILY.task("bandit-5-bernoulli-seed-0/0042")
    assert task == BanditSpec(num_tasks=43, horizon=7).build().tasks[42]
    words = np.random.Philox(key=0).random_raw(1000)[42 * 5 : 43 * 5]
    assert list(task.params.values()) == [int(word) % 1001 for word in words.tolist()]


def test_tasks_of_other_settings_have_other_ids():
    specs: list[dict[str, Any]] = [{}, {"task_seed": 1}, {"num_arms": 6}, {"reward": "gaussian"}]
    assert len({BanditSpec(num_tasks=2, **settings).build().tasks[0].task_id for settings in specs}) == 4


def test_optimum_and_chance_are_right_by_hand():
    family = BanditSpec(num_arms=3, horizon=10).build()
    task = family.tasks[0]
    means = sorted(cast("dict[str, int]", task.params).values())
    assert family.optimal_return(task) == pytest.approx(10 * means[-1] / 1000)
    assert family.random_return(task) == pytest.approx(10 * sum(means) / 3000)


@pytest.mark.parametrize("reward", ["bernoulli", "gaussian"])
def test_every_arm_pays_its_mean_with_the_right_spread(reward):
    family = BanditSpec(num_arms=3, reward=reward).build()
    num_rows, means = 40_000, np.array(list(family.tasks[7].params.values())) / 1000
    rows = family.make_vec([family.tasks[7]] * num_rows)
    rows.reset(seed=0)
    for arm, mean in enumerate(means):
        rewards = rows.step(np.full(num_rows, arm))[1]
        std = (mean * (1 - mean)) ** 0.5 if reward == "bernoulli" else 0.3
        assert rewards.mean() == pytest.approx(mean, abs=5 * std / num_rows**0.5)
        assert rewards.std() == pytest.approx(std, rel=0.03)
        assert reward == "gaussian" or set(rewards.tolist()) <= {0.0, 1.0}


def test_rows_and_pulls_are_independent():
    family = BanditSpec(num_arms=2, reward="gaussian", horizon=400).build()
    rows = family.make_vec([family.tasks[0]] * 400)
    rows.reset(seed=3)
    noise = np.array([rows.step(np.zeros(400, dtype=int))[1] for _ in range(400)])  # t e
    for one, next_one in ((noise[:-1], noise[1:]), (noise[:, :-1], noise[:, 1:])):
        assert abs(np.corrcoef(one.ravel(), next_one.ravel())[0, 1]) < 5 / 400


def test_a_picture_shows_the_means_and_the_last_pull():
    family = BanditSpec(num_arms=2, task_seed=5).build()
    env = family.make(family.tasks[0], render_mode="ansi")
    env.reset(seed=0)
    before = cast("str", env.render()).splitlines()
    heights = [round(mean / 100) for mean in cast("dict[str, int]", family.tasks[0].params).values()]
    assert [before[10 - height].split()[arm] for arm, height in enumerate(heights)] == ["M", "M"]
    assert "@" not in "".join(before)
    reward = env.step(1)[1]
    assert cast("str", env.render()).splitlines()[10 - int(10 * reward)].split()[1] in {"@", "*"}


@pytest.mark.parametrize("reward", ["bernoulli", "gaussian"])
def test_known_strategies_stand_in_their_known_order(reward):
    family = BanditSpec(reward=reward, horizon=200).build()
    tasks = family.tasks[:300]
    returns = {name: play(family.make_vec(tasks), family.arms, name, num_pulls=200).sum(axis=1) for name in PLAYERS}
    regret = {name: (family.optimal_returns(tasks) - earned).mean() for name, earned in returns.items()}
    assert abs(regret["best-arm"]) < 3
    assert regret["best-arm"] + 3 < regret["thompson"] < regret["ucb1"] < regret["uniform"] / 2
    chance = (family.optimal_returns(tasks) - family.random_returns(tasks)).mean()
    assert regret["uniform"] == pytest.approx(chance, rel=0.05)


def test_ucb1_pulls_every_arm_once_and_then_by_its_bound():
    family = BanditSpec(num_arms=3).build()
    player = BanditPlayer("ucb1", family.arms, family.make_vec(family.tasks[:1]))
    chosen = []
    for paid in (0, 1, 0, 0, 0, 0):
        chosen.append(int(player.choose()[0]))
        player.learn(np.array(chosen[-1:]), np.array([paid], dtype=np.float32))
    # After one pull of each, arm 1 leads by its mean: 1 against 0. After (1, 0) it has 1/2 + sqrt(2 ln 4 / 2) = 1.68
    # against sqrt(2 ln 4) = 1.67, and after (1, 0, 0) 1/3 + sqrt(2 ln 5 / 3) = 1.37 against sqrt(2 ln 5) = 1.79.
    assert chosen == [0, 1, 2, 1, 1, 0]


def test_the_same_seed_plays_the_same_pulls():
    rows, arms = FAMILY.make_vec(FAMILY.tasks[:9]), FAMILY.arms
    first, again, other = (play(rows, arms, "thompson", num_pulls=150, seed=seed) for seed in (1, 1, 2))
    assert first.shape == (9, 150)
    assert (first == again).all()
    assert (first != other).any()


def test_the_family_names_its_strategies_and_makes_them_for_given_rows():
    rows = FAMILY.make_vec(FAMILY.tasks[:7])
    rows.reset(seed=0)
    players = {name: make(rows, 1) for name, make in FAMILY.reference_players.items()}
    assert list(players) == list(PLAYERS)
    assert (players["best-arm"].choose() == rows.optimal_actions()).all()
    assert (players["uniform"].choose() == BanditPlayer("uniform", FAMILY.arms, rows, 1).choose()).all()


def test_an_unknown_strategy_or_task_number_is_refused():
    with pytest.raises(
        SettingError, match="a bandit is played by uniform, ucb1, thompson, best-arm; there is no 'exp3'"
    ):
        play(FAMILY.make_vec(FAMILY.tasks[:1]), FAMILY.arms, "exp3", num_pulls=1)
    with pytest.raises(SettingError, match="'number' of a task of bandit must be 0 to 999: 1000"):
        FAMILY.place(number=1000)
    with pytest.raises(ValueError, match="reward"):
        BanditSpec(reward="poisson")
