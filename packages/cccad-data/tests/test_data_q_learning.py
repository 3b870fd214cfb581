"""`sources/q_learning`."""

import attrs
import numpy as np
import pytest
from cccad_data import QLearningSpec, SourceError, learning_curve
from cccad_data.families.toys import CorridorSpec, TrackSpec
from cccad_data.sources.q_learning import Tables


def tables_of(num_rows=1, sizes=(3,), num_actions=2, **fields):
    return Tables(QLearningSpec(**fields), num_rows, sizes, num_actions)


def act(tables, observations, now=0, uniform=0.5):
    rows = len(observations)
    return tables.act(np.array(observations), np.full((rows, tables.num_actions + 1), uniform, np.float32), now)


def test_an_update_agrees_with_a_calculation_by_hand():
    tables = tables_of(learning_rate=0.5, gamma=0.8, initial_value=1.0)
    assert act(tables, [[1]]).tolist() == [0]
    tables.learn(np.array([2.0]), np.array([[2]]), np.array([False]))
    # 1 + 0.5 * (2 + 0.8 * 1 - 1) = 1.9
    assert tables.values.tolist() == [[1, 1], [pytest.approx(1.9), 1], [1, 1]]


def test_nothing_follows_a_termination():
    tables = tables_of(learning_rate=0.5, gamma=0.8, initial_value=1.0)
    act(tables, [[1]])
    tables.learn(np.array([2.0]), np.array([[2]]), np.array([True]))
    assert tables.values[1, 0] == pytest.approx(1.5)  # 1 + 0.5 * (2 - 1)


def test_states_are_numbers_in_mixed_radix_and_rows_have_their_own():
    tables = tables_of(num_rows=3, sizes=(2, 3, 4))
    assert tables._states(np.array([[0, 0, 3], [0, 1, 0], [1, 2, 3]])).tolist() == [3, 24 + 4, 48 + 23]


def test_ucb_tries_every_action_before_one_twice_and_then_the_better_ones():
    tables = tables_of(sizes=(1,), num_actions=4, gamma=0.0, ucb_scale=0.5)
    pays = np.array([0.0, 1.0, 0.0, 0.0])
    taken = []
    for _ in range(400):
        (action,) = act(tables, [[0]])
        taken.append(action)
        tables.learn(pays[[action]], np.array([[0]]), np.array([False]))
    assert sorted(taken[:4]) == [0, 1, 2, 3]
    assert 0.9 < np.mean(np.array(taken) == 1) < 1.0 - 3 / 400  # it goes on to try the others


def test_epsilon_falls_linearly_and_strays_uniformly():
    tables = tables_of(
        num_rows=60_000, sizes=(1,), num_actions=3, exploration="epsilon", epsilon_start=0.6, epsilon_frac=0.5,
        env_steps=100,
    )  # fmt: skip
    tables.values[:, 2] = 5.0
    uniform = np.random.Generator(np.random.PCG64(0)).random((60_000, 4), np.float32)
    for now, epsilon in ((0, 0.6), (25, 0.3), (50, 0.0), (99, 0.0)):
        shares = np.bincount(tables.act(np.zeros((60_000, 1), int), uniform, now), minlength=3) / 60_000
        assert shares == pytest.approx([epsilon / 3, epsilon / 3, 1 - 2 * epsilon / 3], abs=0.01)


@pytest.mark.parametrize("exploration", ["ucb", "epsilon"])
@pytest.mark.parametrize("ends_on_goal", [False, True])
def test_every_table_learns_its_own_task(exploration, ends_on_goal):
    family = CorridorSpec(ends_on_goal=ends_on_goal, size=9, horizon=12).build()
    source = QLearningSpec(num_envs=20, env_steps=600, exploration=exploration).build()
    for task_id, curve in learning_curve(source.collect(family, family.tasks, seed=0)).items():
        task = family.task(task_id)
        optimal, random = family.optimal_return(task), family.random_return(task)
        assert curve[-5:].mean() > random + 0.9 * (optimal - random), task_id
        if abs(task.params["goal"] - 4) > 2:  # not near the start
            assert curve[0] < random + 0.8 * (optimal - random), task_id


def test_boxes_are_refused_on_either_side():
    track, corridor = TrackSpec().build(), CorridorSpec().build()
    source = QLearningSpec(env_steps=20).build()
    with pytest.raises(SourceError, match="q-learning needs discrete actions; family 'track' has box"):
        source.collect(track, track.tasks, seed=0)
    track.spaces = {**corridor.spaces, "observation": track.spaces["observation"]}
    with pytest.raises(SourceError, match="q-learning needs discrete observations; family 'track' has box"):
        source.collect(track, track.tasks, seed=0)


def test_tables_that_would_not_fit_are_refused_before_they_are_made():
    with pytest.raises(SourceError, match=r"500 tables of 10,000,000,000 states.*lower 'num_envs'"):
        tables_of(num_rows=500, sizes=(10,) * 10)


def test_settings_out_of_range_are_refused():
    for fields in ({"learning_rate": 0.0}, {"gamma": 1.5}, {"exploration": "greedy"}, {"epsilon_frac": 0.0}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            attrs.evolve(QLearningSpec(), **fields)
