"""`sampling/detours`."""

import numpy as np
import pytest
from cccad_data import Histories, NoisyOracleSpec, SamplerSpec, SamplingError
from cccad_data.families.toys import Corridor, CorridorSpec, Track, TrackSpec
from cccad_data.sampling.detours import DetourSpec
from hypothesis import given, settings
from hypothesis import strategies as st

FAMILY = CorridorSpec().build()  # 7 cells, episodes of 8 env steps
FIELDS = ("observations", "actions", "terminations", "truncations", "next_observations")


def make(family=FAMILY):
    tasks = NoisyOracleSpec(num_envs=3, env_steps=96).build().collect(family, family.tasks, seed=0)
    return Histories(header={}, tasks=tuple(tasks))


HISTORIES = make()


def build(seed=0, family=FAMILY, histories=HISTORIES, **detours):
    return SamplerSpec(detours=DetourSpec(**detours)).build(histories, seed, family)


def episodes(but, last=8):
    """The *last* env steps of all episodes of every task but one, as bytes."""
    keys = set()
    for index, task in enumerate(HISTORIES):
        for life in task if index != but else ():
            columns = {name: getattr(life, name) for name in FIELDS[:-1]}
            columns["next_observations"] = life.next_observations()
            keys |= {key(columns, slice(end - last, end)) for end in range(8, 97, 8)}
    return keys


def key(columns, part):
    return b"".join(np.asarray(columns[name][part]).astype(np.int64).tobytes() for name in FIELDS)


@given(seed=st.integers(0, 2**63), index=st.integers(0, 2**40), length=st.integers(1, 90), most=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_a_detour_is_episodes_of_other_tasks_paid_by_this_one_and_never_imitated(seed, index, length, most):
    batch = build(seed, frac=1.0, max_episodes=most).batch(index, length, 4)
    for row in range(4):
        columns = {name: batch[name][row] for name in FIELDS}
        behind = int((batch["mask"][row] & ~batch["targets"][row]).sum())
        part = behind % 8  # of the first episode, whose beginning may be left out
        assert behind <= min(8 * most, 0.75 * length)
        assert not batch["targets"][row, :behind].any()
        others = episodes(but=batch["task_index"][row])
        assert all(key(columns, slice(begin, begin + 8)) in others for begin in range(part, behind, 8))
        assert key(columns, slice(0, part)) in episodes(but=batch["task_index"][row], last=part)
        goal = FAMILY.tasks[batch["task_index"][row]].params["goal"]
        assert (batch["rewards"][row] == (batch["next_observations"][row, :, 0] == goal)).all()


def test_detours_that_repeat_go_through_one_history_episode_by_episode():
    lives = []
    for task in HISTORIES:
        for life in task:
            columns = {name: getattr(life, name) for name in FIELDS[:-1]}
            columns["next_observations"] = life.next_observations()
            keys = [key(columns, slice(begin, begin + 8)) for begin in range(0, 96, 8)]
            lives.append([*keys, *[keys[-1]] * 5])  # after the last of a history comes the last again
    batch = build(frac=1.0, max_episodes=6, repeat_frac=1.0).batch(0, 80, 50)
    for row in range(50):
        columns = {name: batch[name][row] for name in FIELDS}
        behind = int((~batch["targets"][row]).sum())
        shown = [key(columns, slice(begin, begin + 8)) for begin in range(behind % 8, behind, 8)]
        assert any(life[i : i + len(shown)] == shown for life in lives for i in range(12))
    assert max((~batch["targets"]).sum(1)) > 24


def test_behind_a_detour_the_history_goes_on_from_an_episode_of_its_later_half():
    batch = build(frac=1.0, max_episodes=3).batch(0, 60, 200)
    behind = (~batch["targets"]).sum(1)
    assert set(behind.tolist()) == set(range(1, 25))
    for row, first in enumerate(behind):
        start, task = batch["start"][row], HISTORIES.tasks[batch["task_index"][row]]
        assert start % 8 == 0
        assert start > 96 // 2 - 8 or start + 60 - first > 96 - 8
        part = slice(start, start + 60 - first)
        assert any((batch["actions"][row, first:] == life.actions[part]).all() for life in task)


def test_behind_a_detour_any_episode_of_the_later_half_may_follow():
    starts = build(frac=1.0, max_episodes=3).batch(0, 30, 400)["start"]
    assert set(starts.tolist()) >= {48, 56, 64}
    assert starts.min() == 96 // 2


def test_as_many_stretches_begin_with_detours_as_was_asked():
    targets = build(frac=0.3).batch(0, 60, 4000)["targets"]
    assert 0.27 < 1 - targets.all(1).mean() < 0.33


def test_without_detours_every_decision_is_a_target_and_no_family_is_needed():
    plain = SamplerSpec().build(HISTORIES, 5).batch(3, 40, 6)
    off = build(5, frac=0.0).batch(3, 40, 6)
    assert plain["targets"].all()
    assert all((plain[name] == off[name]).all() for name in plain)


def test_a_batch_with_detours_is_a_pure_function_and_its_rows_can_be_taken_alone():
    whole, again = (build(7, frac=0.7).batch(9, 50, 12) for _ in range(2))
    part = build(7, frac=0.7).batch(9, 50, 12, slice(4, 9))
    for name, value in whole.items():
        assert (value == again[name]).all()
        assert (value[4:9] == part[name]).all()


class Mirrored(Corridor):
    """Actions lead the other way where the goal is odd."""

    def next_observations(self, task, observations, actions):
        moved = np.where(task.params["goal"] % 2 and actions < 2, 1 - actions, actions)
        return super().next_observations(task, observations, moved)


class Lottery(Corridor):
    """Pays by chance."""

    has_random_rewards = True


class RepeatableTrack(Track):
    """Says where actions lead and what they earn."""

    def next_observations(self, task, observations, actions):
        return (observations + 0.25 * actions).clip(-1.0, 1.0).astype(np.float32)

    def replay(self, *_):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("family", "num_tasks", "message"),
    [
        (Mirrored(CorridorSpec()), 7, "'corridor-7/goal-0' goes another way in 'corridor-7/goal-1'"),
        (Lottery(CorridorSpec()), 7, "rewards that follow from an episode; 'corridor'"),
        (FAMILY, 1, "at least two tasks"),
        (Track(TrackSpec()), 7, "a family whose 'next_observations' says where actions lead; 'track' has none"),
    ],
)
def test_what_the_family_tells_is_refused_before_there_are_histories(family, num_tasks, message):
    tasks = [FAMILY.task(f"corridor-7/goal-{goal}") for goal in range(num_tasks)]
    DetourSpec().check(family, tasks)
    with pytest.raises(SamplingError, match=message):
        DetourSpec(frac=0.5).check(family, tasks)


def test_tasks_that_differ_in_their_rewards_alone_can_have_detours():
    tasks = [FAMILY.task(f"corridor-7/goal-{goal}") for goal in range(7)]
    DetourSpec(frac=0.5).check(FAMILY, tasks)
    DetourSpec(frac=0.5).check(RepeatableTrack(TrackSpec()), RepeatableTrack(TrackSpec()).tasks)  # real actions
    assert not build(frac=0.5).batch(0, 60, 20)["targets"].all()  # and they do


@pytest.mark.parametrize(
    ("family", "histories", "message"),
    [
        (Lottery(CorridorSpec()), HISTORIES, "rewards that follow from an episode; 'corridor'"),
        (None, HISTORIES, "detours need the task family"),
        (FAMILY, Histories(header={}, tasks=HISTORIES.tasks[:1]), "at least two tasks"),
        (Mirrored(CorridorSpec()), HISTORIES, "differ in their rewards alone: an episode of 'corridor-7/goal-0'"),
        (CorridorSpec(ends_on_goal=True).build(), make(CorridorSpec(ends_on_goal=True).build()), "end alike"),
    ],
)
def test_detours_that_make_no_sense_are_one_clear_error(family, histories, message):
    with pytest.raises(SamplingError, match=message):
        build(family=family, histories=histories, frac=0.5).batch(0, 60, 50)
