"""Known strategies for bandits, to be compared with a trained agent; each plays all rows at once.

Shapes: `e` rows, `a` arms, `t` pulls.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias, final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cccad_envs.errors import SettingError
from cccad_envs.rows import RowsEnv


@frozen(kw_only=True)
class Arms:
    """What every strategy knows of the arms; it does not know their means."""

    num_arms: int
    is_bernoulli: bool  # an arm pays 0 or 1; otherwise its mean plus Gaussian noise
    reward_std: float  # the most that an arm can have


@final
class BanditPlayer:
    """One strategy in every row of *rows*: `uniform`, `ucb1`, `thompson` or `best-arm`, which knows the means.

    What it has learned lasts from episode to episode, as the task does.
    """

    def __init__(self, name: str, arms: Arms, rows: RowsEnv, seed: int = 0) -> None:
        """Begin with no pull.

        Raises:
            SettingError: there is no such strategy.
        """
        if name not in PLAYERS:
            raise SettingError(f"a bandit is played by {', '.join(PLAYERS)}; there is no {name!r}")
        self.arms, self.rows = arms, rows
        self.draw = np.random.default_rng(seed)
        self.counts = np.zeros((rows.num_envs, arms.num_arms))  # e a
        self.sums = np.zeros_like(self.counts)  # of rewards, e a
        self._choose = PLAYERS[name]

    def choose(self) -> NDArray[np.int64]:
        """Return the arm to pull in every row, `e`."""
        return self._choose(self)

    def learn(self, actions: NDArray[np.int64], rewards: NDArray[np.float32]) -> None:
        """Take in what *actions*, `e`, paid."""
        everyone = np.arange(len(actions))
        self.counts[everyone, actions] += 1
        self.sums[everyone, actions] += rewards


def uniform(player: BanditPlayer) -> NDArray[np.int64]:
    """Pull any arm."""
    num_rows, num_arms = player.counts.shape
    return np.asarray(player.draw.integers(num_arms, size=num_rows))


def ucb1(player: BanditPlayer) -> NDArray[np.int64]:
    """Pull the arm of the highest upper confidence bound, untried ones first (Auer, Cesa-Bianchi and Fischer 2002).

    The bonus is in proportion to the standard deviation; for rewards in [0, 1] it is sqrt(2 ln t / n).
    """
    tried = np.maximum(player.counts, 1)
    pulls = np.maximum(player.counts.sum(axis=1, keepdims=True), 1)
    bonus = 2 * player.arms.reward_std * np.sqrt(2 * np.log(pulls) / tried)
    bounds = np.where(player.counts == 0, np.inf, player.sums / tried + bonus)
    return np.asarray(bounds.argmax(axis=1))


def thompson(player: BanditPlayer) -> NDArray[np.int64]:
    """Pull the best arm of means drawn from their posterior (Thompson 1933).

    Bernoulli arms: Beta, from the uniform prior, which is the true one. Gaussian arms: normal, from the prior with the
    true one's mean and variance, 1/2 and 1/12.
    """
    arms = player.arms
    if arms.is_bernoulli:
        drawn = player.draw.beta(1 + player.sums, 1 + player.counts - player.sums)
    else:
        precision = 12 + player.counts / arms.reward_std**2
        means = (6 + player.sums / arms.reward_std**2) / precision
        drawn = player.draw.normal(means, precision**-0.5)
    return np.asarray(drawn.argmax(axis=1))


def best_arm(player: BanditPlayer) -> NDArray[np.int64]:
    """Pull the arm of the highest mean."""
    return player.rows.optimal_actions()


MakePlayer: TypeAlias = Callable[[RowsEnv, int], BanditPlayer]
PLAYERS: dict[str, Callable[[BanditPlayer], NDArray[np.int64]]] = {
    "uniform": uniform,
    "ucb1": ucb1,
    "thompson": thompson,
    "best-arm": best_arm,
}


def players_of(arms: Arms) -> dict[str, MakePlayer]:
    """Return what makes a player of *arms*, for given rows and a seed, by the name of its strategy."""
    return {name: partial(BanditPlayer, name, arms) for name in PLAYERS}


def play(rows: RowsEnv, arms: Arms, name: str, *, num_pulls: int, seed: int = 0) -> NDArray[np.float32]:
    """Return the reward of every pull, `e t`, of the strategy *name* in each of *rows*, which are reset.

    Raises:
        SettingError: there is no such strategy.
    """
    rows.reset(seed=seed)
    player = BanditPlayer(name, arms, rows, seed)
    rewards = np.empty((num_pulls, rows.num_envs), dtype=np.float32)
    for pull in range(num_pulls):
        actions = player.choose()
        rewards[pull] = rows.step(actions)[1]
        player.learn(actions, rewards[pull])
    return rewards.T
