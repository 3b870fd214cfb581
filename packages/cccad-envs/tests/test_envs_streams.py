"""`streams.py`: random numbers by row: the known sequence, fairness, and what a seed means."""

import numpy as np
import pytest
from cccad_envs import RecallSpec
from cccad_envs.streams import STRIDE, RowStreams, scrambled

ALL = np.array([True, True, True])


def test_the_words_are_those_of_splitmix64():
    states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * STRIDE
    assert scrambled(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_row_i_of_a_seed_is_row_0_of_the_seed_plus_i():
    many, one = RowStreams(3), RowStreams(1)
    many.seed(2**64 - 1, ALL)
    one.seed(1, np.array([True]))
    assert many.words(ALL, 4)[2].tolist() == one.words(np.array([True]), 4)[0].tolist()


def test_many_draws_at_once_are_the_draws_one_by_one_and_rows_that_do_not_draw_stand_still():
    at_once, one_by_one = RowStreams(3), RowStreams(3)
    at_once.seed(0, ALL)
    one_by_one.seed(0, ALL)
    first = np.array([True, False, False])
    words = at_once.words(ALL, 3)
    singly = np.concatenate([one_by_one.words(first, 1) for _ in range(3)], axis=1)
    assert singly.tolist() == words[:1].tolist()
    assert one_by_one.words(~first, 3).tolist() == words[1:].tolist()


def test_uniform_and_normal_numbers_are_spread_as_their_names_say():
    streams, everyone = RowStreams(200_000), np.ones(200_000, dtype=np.bool_)
    streams.seed(0, everyone)
    uniform, normal = streams.uniform(everyone, 1)[:, 0], streams.normal(everyone)
    assert 0 <= uniform.min() < 1e-4 < 1 - 1e-4 < uniform.max() < 1
    assert np.histogram(uniform, 10, (0, 1))[0] == pytest.approx(20_000, rel=0.04)
    assert normal.mean() == pytest.approx(0, abs=0.012)
    assert normal.std() == pytest.approx(1, rel=0.01)
    assert (abs(normal) > 1.96).mean() == pytest.approx(0.05, abs=0.003)


def test_without_a_seed_lives_differ_and_a_seeded_row_keeps_its_stream():
    family = RecallSpec(num_bits=60, num_filler=0).build()
    tasks = family.tasks[:2]

    def shown(rows, observations):
        later = [rows.step(np.zeros(2, dtype=int))[0][:, 1] for _ in range(59)]
        return np.stack([observations[:, 1], *later], axis=1).tolist()

    rows = family.make_vec(tasks)
    lives = [shown(rows, rows.reset()[0]) for rows in (rows, rows, family.make_vec(tasks))]
    assert lives[0] != lives[1] != lives[2] != lives[0]
    first = {"reset_mask": np.array([True, False])}
    half_seeded = [family.make_vec(tasks) for _ in range(2)]
    for each in half_seeded:
        each.reset(seed=4, options=first)
    (a, b) = (shown(each, each.reset()[0]) for each in half_seeded)
    assert a == b
    assert a[0] != a[1]
