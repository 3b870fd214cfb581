"""Bandits: there is nothing to see and nowhere to go; each arm that is pulled pays by chance."""

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Unpack, final

import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray

from cccad_envs.bandit_players import Arms, MakePlayer, players_of
from cccad_envs.drawing import NOWHERE, frame_of
from cccad_envs.family import MOST_SEED, drawn_words, whole
from cccad_envs.grid import Grid
from cccad_envs.numbered import NumberedFamily, number_of
from cccad_envs.plain import Array
from cccad_envs.recorded import Recording
from cccad_envs.rows import Frame, Modes, RowsEnv
from cccad_envs.spaces import multi_discrete
from cccad_envs.tasks import AnyTask, Task, Tasks, in_order

MOST_STDS = 8.0  # a gaussian reward further from its mean than this is no accident
_BLOCK_WORDS = 1 << 14  # drawn at once
TENTHS = 10  # the picture shows means in tenths


@frozen(kw_only=True)
class BanditSpec:
    """Several arms with hidden means; every env step pulls one of them and gains what it happens to pay.

    A Bernoulli arm pays 1 with the probability of its mean, else 0; a Gaussian arm pays its mean plus noise. An episode
    is *horizon* pulls in a row, and never terminates. One task per drawn set of means, which are uniform on 0, 0.001,
    ..., 1 (the Gaussian form is that of arXiv 2306.14892).
    """

    num_arms: int = whole(5, at_least=2, at_most=10**6, tells="arms to choose from")
    horizon: int = whole(100, at_least=1, tells="pulls in an episode")
    reward: str = field(
        default="bernoulli",
        validator=validators.in_(("bernoulli", "gaussian")),
        metadata={"help": "how an arm pays: bernoulli (0 or 1) or gaussian"},
    )
    reward_std: float = field(
        default=0.3, validator=validators.gt(0.0), metadata={"help": "noise of gaussian arms; bernoulli arms ignore it"}
    )
    num_tasks: int = whole(1000, at_least=2, tells="sets of means")
    task_seed: int = whole(0, at_least=0, at_most=MOST_SEED, tells="which sets of means are drawn")

    def build(self) -> "BanditFamily":
        """Return the family of all drawn sets of means."""
        is_bernoulli = self.reward == "bernoulli"
        reward_std = 0.5 if is_bernoulli else self.reward_std  # the most that an arm can have
        arms = Arms(num_arms=self.num_arms, is_bernoulli=is_bernoulli, reward_std=reward_std)
        return BanditFamily(self, arms, players_of(arms))


@lru_cache(maxsize=8)
def _drawn_means(seed: int, num_arms: int, block: int) -> NDArray[np.uint64]:
    """Return the means of a block of tasks in 1/1000, `tasks a`."""
    count = max(1, _BLOCK_WORDS // num_arms) * num_arms
    return (drawn_words(seed, count, first=block * count) % 1001).reshape(-1, num_arms)


@final
class BanditRows(RowsEnv):
    """Bandits side by side: nothing changes but what the last pull was, and that is only for the picture."""

    def __init__(self, family: "BanditFamily", tasks: Sequence[AnyTask], **modes: Unpack[Modes]) -> None:
        """Give every row the arms of its task."""
        super().__init__(family, tasks, **modes)
        self.family = family
        self._means = family.means(tasks)
        self._everyone = np.ones(len(tasks), dtype=np.bool_)
        self._pulled = np.full(len(tasks), NOWHERE)
        self._paid = np.zeros(len(tasks))

    def _observe(self) -> Array:
        return np.zeros((self.num_envs, 1), dtype=np.uint8)

    def _restart(self, rows: NDArray[np.bool_]) -> None:
        self._pulled[rows] = NOWHERE

    def _advance(self, actions: Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        means = self._means[np.arange(self.num_envs), actions]
        if self.family.arms.is_bernoulli:
            rewards = (self._streams.uniform(self._everyone, 1)[:, 0] < means).astype(np.float32)
        else:
            rewards = (means + self.family.arms.reward_std * self._streams.normal(self._everyone)).astype(np.float32)
        self._pulled, self._paid = actions.copy(), rewards.astype(np.float64)
        return rewards, np.zeros(self.num_envs, dtype=np.bool_)

    def _best_actions(self) -> NDArray[np.int64]:
        return np.asarray(self._means.argmax(axis=1))

    def _draw(self, row: int, mode: str) -> Frame:
        """Show the arms from left to right, each mean as high as it is, and the last pull as high as it paid."""
        grid = Grid(self.family.spec.num_arms, TENTHS + 1)
        heights = np.rint(self._means[row] * TENTHS).astype(int).tolist()
        marks = {grid.cell(arm, height): "mean" for arm, height in enumerate(heights)}
        paid = int(np.rint(np.clip(self._paid[row], 0, 1) * TENTHS))
        pulled = int(self._pulled[row])
        return frame_of(mode, grid, NOWHERE if pulled == NOWHERE else grid.cell(pulled, paid), marks)


@final
class BanditFamily(NumberedFamily):
    """Sets of means, in drawn order; task i is the same however many are drawn. Its params are means in 1/1000.

    A recorded Bernoulli reward must be 0 or 1 (only one of them where the mean is), a Gaussian one within 8 standard
    deviations of its mean.
    """

    spec: BanditSpec
    name = "bandit"
    rows_class = BanditRows
    has_random_rewards = True

    def __init__(self, spec: BanditSpec, arms: Arms, reference_players: Mapping[str, MakePlayer]) -> None:
        """Offer the *arms* that *spec* describes, and known strategies by name, to compare with."""
        self.spec, self.arms, self.reference_players = spec, arms, reference_players
        self.horizon = spec.horizon
        self.spaces = multi_discrete([1], spec.num_arms)

    @cached_property
    def tasks(self) -> tuple[Task, ...] | Tasks:
        """Every task, in canonical order."""
        return in_order(self.spec.num_tasks, self._task_at, number_of)

    def _task_at(self, number: int) -> Task:
        spec = self.spec
        block, place = divmod(number, max(1, _BLOCK_WORDS // spec.num_arms))
        means = _drawn_means(spec.task_seed, spec.num_arms, block)[place].tolist()
        group = f"bandit-{spec.num_arms}-{spec.reward}-seed-{spec.task_seed}"
        return Task(task_id=f"{group}/{number:04d}", params={f"arm_{arm}": mean for arm, mean in enumerate(means)})

    def means(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the expected reward of every arm, `e a`."""
        return self.parameters(tasks) / 1000

    def optimal_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the expected return of pulling the best arm throughout, `e`."""
        return np.asarray(self.horizon * self.means(tasks).max(axis=1))

    def random_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return the expected return of pulling arms uniformly at random, `e`."""
        return np.asarray(self.horizon * self.means(tasks).mean(axis=1))

    def _led_to(self, task: AnyTask, observations: Array, actions: Array) -> Array:
        return np.zeros_like(observations)

    def _replayed(self, task: AnyTask, recording: Recording) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        means = self.means([task])[0][recording.actions]
        rewards = np.asarray(recording.rewards, dtype=np.float64)
        rewards = np.where(np.isfinite(rewards), rewards, means)
        if self.arms.is_bernoulli:
            possible = ((rewards >= 0.5) & (means > 0)) | (means == 1)
        else:
            furthest = MOST_STDS * self.arms.reward_std
            possible = np.clip(rewards, means - furthest, means + furthest)
        return possible.astype(np.float32), recording.never
