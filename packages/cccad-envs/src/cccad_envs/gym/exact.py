"""Exact returns of environments that publish their transitions, such as FrozenLake, by backward induction."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cccad_envs.errors import SettingError
from cccad_envs.gym.making import Env

Numbers: TypeAlias = NDArray[np.float64]
Outcomes: TypeAlias = Sequence[tuple[float, int, float, bool]]
"Chance, next state, reward and whether it ends the episode, of each outcome of an action."


@frozen(kw_only=True, eq=False)
class Plan:
    """What is best to do, and what it and acting at random earn in one episode.

    `actions`, `t s`, is an optimal action by age of the episode and state.
    """

    optimal_return: float
    random_return: float
    actions: NDArray[np.int64]


def plan(env: Env, horizon: int, name: str) -> Plan:
    """Return the plan of the environment with a table of transitions, `unwrapped.P`, for episodes of *horizon* steps.

    Raises:
        SettingError: it has no such table, or no distribution of first states.
    """
    table: object = getattr(env.unwrapped, "P", None)
    starts: object = getattr(env.unwrapped, "initial_state_distrib", None)
    if not isinstance(table, Mapping) or starts is None:
        raise SettingError(
            f"'reference_return': {name} has no transition table (attributes P and initial_state_distrib of the "
            "environment); give a number, an import path of a planner, or 'best source'"
        )
    probabilities, following, rewards, goes_on = _arrays(table)  # s a k
    expected, onward = (probabilities * rewards).sum(axis=2), probabilities * goes_on
    best, chance = np.zeros(len(table)), np.zeros(len(table))
    actions = np.zeros((horizon, len(table)), np.int64)
    for age in reversed(range(horizon)):
        values = expected + (onward * best[following]).sum(axis=2)
        actions[age], best = values.argmax(axis=1), values.max(axis=1)
        chance = (expected + (onward * chance[following]).sum(axis=2)).mean(axis=1)
    starts = np.asarray(starts, np.float64)
    return Plan(optimal_return=float(starts @ best), random_return=float(starts @ chance), actions=actions)


def _arrays(table: Mapping[int, Mapping[int, Outcomes]]) -> tuple[Numbers, NDArray[np.int64], Numbers, Numbers]:
    """Return the chance, the state and the reward of every outcome, `s a k`, and whether the episode goes on."""
    num_states, num_actions = len(table), len(table[0])
    most = max(len(outcomes) for actions in table.values() for outcomes in actions.values())
    shape = (num_states, num_actions, most)
    probabilities, rewards, goes_on = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    following = np.zeros(shape, np.int64)
    for state, actions in table.items():
        for action, outcomes in actions.items():
            for place, (probability, reached, reward, is_terminated) in enumerate(outcomes):
                here = state, action, place
                probabilities[here], following[here], rewards[here] = probability, reached, reward
                goes_on[here] = not is_terminated
    return probabilities, following, rewards, goes_on
