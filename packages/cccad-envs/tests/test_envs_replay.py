"""`recorded.py`: replay says from the transitions alone what a history should have recorded."""

from typing import Any

import numpy as np
import pytest
from cccad_envs import (
    BanditSpec,
    DarkKeyToDoorSpec,
    DarkroomSpec,
    RecallSpec,
    TransitionError,
    UnknownTaskError,
)

FAMILIES = [DarkroomSpec(size=4, horizon=6).build(), DarkKeyToDoorSpec(size=3, horizon=12).build()]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def history(family, task, num_env_steps, noise=0.5):
    """Return what a half-random life in *task* leaves behind, as flat arrays by name."""
    rows = family.make_vec([task])
    observations, _ = rows.reset()
    draw = np.random.default_rng(0)
    names = ("observations", "actions", "rewards", "truncations", "next_observations")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for _ in range(num_env_steps):
        stray = draw.integers(0, family.spaces["action"]["n"], 1)
        actions = rows.optimal_actions() if draw.random() > noise else stray
        following, rewards, _, truncations, infos = rows.step(actions)
        new = (observations, actions, rewards, truncations, infos["final_obs"])
        for column, value in zip(columns.values(), new, strict=True):
            column.append(value[0])
        observations = following
    arrays = {name: np.array(column) for name, column in columns.items()}
    return arrays | {"episode_ends": np.flatnonzero(arrays["truncations"]) + 1}


def replayed(family, task, life):
    names = ("observations", "actions", "next_observations", "episode_ends")
    rewards = life["rewards"] if family.has_random_rewards else None
    return family.replay(task, *(life[name] for name in names), rewards=rewards)


@every_family
@pytest.mark.parametrize("num_env_steps", [1, 12, 60, 61, 77])
def test_a_true_history_replays_to_itself(family, num_env_steps):
    for task in family.tasks[::5]:
        life = history(family, task, num_env_steps)
        rewards, terminations, truncations = replayed(family, task, life)
        assert rewards.dtype == np.float32
        assert (rewards == life["rewards"]).all()
        assert not terminations.any()
        assert (truncations == life["truncations"]).all()
        assert (
            family.next_observations(task, life["observations"], life["actions"]) == life["next_observations"]
        ).all()


def test_a_bernoulli_reward_that_cannot_be_is_told_by_its_place():
    family = BanditSpec(num_arms=3, horizon=7).build()
    life = history(family, family.tasks[0], 21)
    life["rewards"][[2, 11, 17]] = 0.5, np.nan, 2
    assert np.flatnonzero(replayed(family, family.tasks[0], life)[0] != life["rewards"]).tolist() == [2, 11, 17]


def test_a_gaussian_reward_eight_deviations_from_its_mean_is_told():
    family = BanditSpec(reward="gaussian", reward_std=0.1).build()
    life = history(family, family.tasks[0], 200)
    means = np.array(list(family.tasks[0].params.values()))[life["actions"]] / 1000
    life["rewards"][:] = means + 0.79
    life["rewards"][[5, 6]] = means[[5, 6]] + (0.81, -0.81)
    assert np.flatnonzero(replayed(family, family.tasks[0], life)[0] != life["rewards"]).tolist() == [5, 6]


def test_rewards_of_chance_are_not_replayed_without_those_recorded():
    family = BanditSpec().build()
    life = history(family, family.tasks[0], 100)
    names = ("observations", "actions", "next_observations", "episode_ends")
    with pytest.raises(TransitionError, match="rewards of bandit are drawn by chance"):
        family.replay(family.tasks[0], *(life[name] for name in names))


@pytest.mark.parametrize("resample", [True, False])
def test_a_recalled_answer_a_cue_and_evidence_that_were_tampered_with_are_told(resample):
    family = RecallSpec(num_bits=3, num_filler=2, resample=resample).build()
    life = history(family, family.tasks[5], 24, noise=0.0)
    life["actions"][6] = 1 - life["actions"][6]  # the answer to the second question
    wrong = replayed(family, family.tasks[5], life)[0] != life["rewards"]
    assert np.flatnonzero(wrong).tolist() == [6]
    life["observations"][12, 0] = 1  # filler turned into evidence
    life["next_observations"][11, 0] = 1
    led_to = family.next_observations(family.tasks[5], life["observations"], life["actions"])
    assert np.flatnonzero((led_to != life["next_observations"]).any(axis=1)).tolist() == [11]


@every_family
def test_a_history_of_nothing_replays_to_nothing(family):
    empty = np.zeros((0, 2), dtype=np.uint8)
    replay = family.replay(family.tasks[0], empty, np.zeros(0, dtype=int), empty, np.zeros(0, dtype=int))
    assert [array.shape for array in replay] == [(0,), (0,), (0,)]


@every_family
def test_a_reward_that_was_tampered_with_is_told_by_its_place(family):
    task = family.tasks[3]
    life = history(family, task, 60)
    life["rewards"][17] = 1 - life["rewards"][17]
    assert np.flatnonzero(replayed(family, task, life)[0] != life["rewards"]).tolist() == [17]


@every_family
def test_the_history_of_another_task_does_not_replay(family):
    life = history(family, family.tasks[3], 60, noise=0.0)
    assert (replayed(family, family.tasks[7], life)[0] != life["rewards"]).any()


@every_family
def test_an_action_that_was_tampered_with_is_told_by_where_it_leads(family):
    task = family.tasks[0]
    life = history(family, task, 60)
    life["actions"][24] = (life["actions"][24] + 1) % 5  # the first of an episode, so away from walls
    led = family.next_observations(task, life["observations"], life["actions"])
    assert np.flatnonzero((led != life["next_observations"]).any(axis=1)).tolist() == [24]


def test_next_observations_are_what_the_moves_say():
    family = DarkroomSpec(size=9).build()
    here, moves = np.full((5, 2), 4, dtype=np.uint8), np.arange(5)
    there = family.next_observations(family.tasks[0], here, moves)
    assert there.tolist() == [[5, 4], [3, 4], [4, 5], [4, 3], [4, 4]]
    assert there.dtype == np.uint8


@every_family
def test_an_episode_of_the_wrong_length_is_told(family):
    task = family.tasks[0]
    life = history(family, task, 60)
    life["episode_ends"][1] -= 1
    truncations = replayed(family, task, life)[2]
    assert (truncations != life["truncations"]).any()


def test_key_and_door_are_paid_once_in_every_episode_of_a_handmade_history():
    family = DarkKeyToDoorSpec(size=3, horizon=4).build()
    task = family.place(key=(0, 0), door=(2, 2))
    reached = np.array([[2, 2], [0, 0], [0, 0], [2, 2], [0, 0], [2, 2], [2, 2], [0, 0], [2, 2], [0, 0]])
    rewards, _, truncations = family.replay(task, reached, np.zeros(10, dtype=int), reached, [4, 8])
    assert rewards.tolist() == [0, 1, 0, 1, 1, 1, 0, 0, 0, 1]
    assert truncations.tolist() == [False, False, False, True] * 2 + [False, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"next_observations": [[0, 0], [9, 0]]},
            r"must be at least 0 and at most \(8, 8\), got \(9, 0\) at env step 1",
        ),
        ({"next_observations": [[0.0, 0.0], [1.0, 1.0]]}, r"must be whole numbers of shape \(t, 2\), got float64"),
        ({"next_observations": [0, 1]}, r"must be whole numbers of shape \(t, 2\)"),
        ({"actions": [0]}, "actions must have 2 entries"),
        ({"observations": [[0, 0]]}, "observations must have 2 entries"),
        ({"episode_ends": [3]}, "episode_ends must rise from above 0 to at most 2"),
        ({"episode_ends": [2, 1]}, "episode_ends must rise"),
        ({"episode_ends": [0, 1]}, "episode_ends must rise"),
    ],
)
def test_transitions_that_do_not_fit_together_are_refused(change, message):
    family = DarkroomSpec().build()
    whole = {
        "observations": [[4, 4], [5, 4]],
        "actions": [0, 0],
        "next_observations": [[5, 4], [6, 4]],
        "episode_ends": [],
    }
    with pytest.raises(TransitionError, match=message):
        family.replay(family.tasks[0], **(whole | change))


@pytest.mark.parametrize(
    ("actions", "message"), [([0, 5], "got 5 at env step 1"), ([0], "must be 2 whole"), ([0.0, 1.0], "float64")]
)
def test_actions_that_do_not_exist_lead_nowhere(actions, message):
    family = DarkroomSpec().build()
    with pytest.raises(TransitionError, match=message):
        family.next_observations(family.tasks[0], [[4, 4], [5, 4]], actions)


def test_a_task_of_another_family_is_not_replayed():
    darkroom, key_to_door = FAMILIES
    with pytest.raises(UnknownTaskError):
        darkroom.next_observations(key_to_door.tasks[0], [[0, 0]], [0])


def test_where_chance_decides_what_follows_the_family_is_shown_it_last_observations_too():
    class Windy(type(FAMILIES[0])):  # type: ignore[misc]  # a final class; what is tested is its base
        """A room where the wind may keep you where you are."""

        has_random_transitions = True

        def _possible(self, task, observations, actions, reached):
            sure = self._led_to(task, observations, actions)
            return np.where((reached == observations).all(axis=1, keepdims=True), observations, sure)

    room = FAMILIES[0]
    windy, task = Windy(room.spec, room.rules, room.grid), room.tasks[5]
    life = history(room, task, 12)
    what = (task, life["observations"], life["actions"])
    kept = life["next_observations"].copy()
    kept[[3, 11]] = life["observations"][[3, 11]]  # kept by the wind, at the end of an episode too
    assert (windy.next_observations(*what, recorded=kept) == kept).all()
    far = (kept + 2) % 4
    assert (windy.next_observations(*what, recorded=far) != far).any(axis=1).all()
    with pytest.raises(TransitionError, match="chance decides what follows: give what was 'recorded'"):
        windy.next_observations(*what)
