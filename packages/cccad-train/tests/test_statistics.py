"""The statistics of a table of results, against numbers worked out by hand."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from cccad_train.report.statistics import (
    StatisticsError,
    bootstrap_interval,
    curve_interval,
    decade_means,
    episodes_to_solve,
    interquartile_mean,
    last_episodes_mean,
    normalise,
    paired_difference,
    summarise,
)


def interval_of(*arguments, **settings):
    interval = bootstrap_interval(*arguments, **settings)
    assert interval is not None
    return interval


def test_normalised_return_is_zero_for_random_and_one_for_the_optimum():
    returns = np.array([[[1.0, 3.0, 5.0]], [[0.0, 5.0, 10.0]]])
    normalised = normalise(returns, optimal=[5.0, 10.0], random=[1.0, 0.0])
    assert normalised.tolist() == [[[0.0, 0.5, 1.0]], [[0.0, 0.5, 1.0]]]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (range(1, 9), 4.5),  # 1 2 | 3 4 5 6 | 7 8
        (range(1, 11), 5.5),  # a quarter of ten, rounded down, is two: 3 to 8 stay
        ([0.0, 0.0, 1.0, 100.0], 0.5),  # one is cut off at each end
        ([7.0, 1.0, 4.0], 4.0),  # too few to cut
        ([0.0, 1.0, 2.0, 6.0, 10.0], 3.0),  # a quarter of five, rounded down, is one: 1 2 6 stay
        ([[9.0, 0.0], [2.0, 4.0]], 3.0),  # order and shape do not matter
    ],
)
def test_interquartile_mean_is_the_mean_of_the_middle_half(scores, expected):
    assert interquartile_mean(list(scores)) == pytest.approx(expected)


def test_last_ten_episodes_are_all_of_them_when_there_are_fewer():
    twelve = np.arange(12.0).reshape(1, 1, 12)
    assert last_episodes_mean(twelve).tolist() == [[6.5]]
    assert last_episodes_mean(twelve[..., :4]).tolist() == [[1.5]]


def test_an_episode_counts_as_solved_when_five_in_a_row_average_nine_tenths():
    curve = [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]  # running means of five: 0.7 (to 5), 0.9 (to 6), 1.0 (to 7)
    assert episodes_to_solve(curve) == 6
    assert episodes_to_solve([0.9] * 5) == 5


def test_a_task_never_solved_or_too_short_has_no_such_episode():
    assert episodes_to_solve([0.89] * 100) is None
    assert episodes_to_solve([1.0] * 4) is None


def test_decades_are_means_of_ten_episodes_and_the_rest():
    assert decade_means(np.arange(1, 26)) == [5.5, 15.5, 23.0]


def test_the_interval_is_a_point_where_every_replica_did_the_same():
    scores = np.repeat([[0.2], [0.4], [0.6], [0.8]], 5, axis=1)
    assert interval_of(scores, np.random.default_rng(0)) == pytest.approx((0.5, 0.5))


def test_tasks_are_strata_so_their_differences_do_not_widen_the_interval():
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.01, size=(8, 64))
    alike = interval_of(0.5 + noise, np.random.default_rng(0))
    apart = interval_of(np.linspace(0, 1, 8)[:, None] + noise, np.random.default_rng(0))
    unstratified = 1.96 * np.linspace(0, 1, 8).std() / np.sqrt(8)
    assert alike[1] - alike[0] < 0.005
    assert apart[1] - apart[0] < 0.01 < unstratified


def test_the_interval_covers_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(11)
    num_hits, num_trials = 0, 200
    for _ in range(num_trials):
        scores = rng.normal(0.7, 0.1, size=(4, 16))  # symmetric: the interquartile mean is 0.7 in truth
        low, high = interval_of(scores, rng, num_resamples=400)
        num_hits += low <= 0.7 <= high
    assert 0.88 <= num_hits / num_trials <= 0.99


def test_the_same_generator_state_gives_the_same_interval():
    scores = np.random.default_rng(1).random((3, 7))
    first = interval_of(scores, np.random.default_rng(5))
    assert first == interval_of(scores, np.random.default_rng(5))
    assert first != interval_of(scores, np.random.default_rng(6))


def test_seeds_that_differ_widen_the_interval_that_replicas_alone_would_give():
    rng = np.random.default_rng(2)
    seeds = np.repeat([0, 1, 2, 3], 25)
    scores = np.array([0.2, 0.4, 0.6, 0.8])[seeds] + rng.normal(0, 0.01, size=(6, 100))
    apart = interval_of(scores, np.random.default_rng(0), seeds=seeds)
    pooled = interval_of(scores, np.random.default_rng(0))
    assert apart[1] - apart[0] > 2 * (pooled[1] - pooled[0])


def test_the_interval_over_seeds_is_that_of_drawing_whole_seeds_for_all_tasks_at_once():
    levels = [0.1, 0.3, 0.4, 0.9]
    scores = np.tile(np.repeat(levels, 2), (6, 1))  # replicas of a seed agree on every task: only seeds are drawn
    interval = interval_of(scores, np.random.default_rng(0), seeds=np.repeat([3, 1, 2, 0], 2))
    exact = [interquartile_mean(drawn) for drawn in itertools.product(levels, repeat=4)]
    assert interval == pytest.approx(np.percentile(exact, [2.5, 97.5]), abs=0.03)


def test_one_life_has_no_interval():
    assert bootstrap_interval(np.array([[0.1], [0.9]]), np.random.default_rng(0)) is None


def test_resampling_in_blocks_gives_an_interval_of_the_same_width():
    scores = np.random.default_rng(4).random((100, 100))
    low, high = interval_of(scores, np.random.default_rng(0), num_resamples=900)  # of 10,000: three blocks
    assert low < interquartile_mean(scores) < high


def test_the_band_of_a_curve_holds_its_mean_and_narrows_with_replicas():
    rng = np.random.default_rng(0)
    few, many = rng.random((5, 4, 30)), rng.random((5, 400, 30))
    low, high = curve_interval(few, rng)
    assert (low <= few.mean(axis=(0, 1))).all()
    assert (few.mean(axis=(0, 1)) <= high).all()
    narrow_low, narrow_high = curve_interval(many, rng)
    assert (narrow_high - narrow_low).mean() < 0.2 * (high - low).mean()


def test_the_band_agrees_with_the_normal_interval_of_a_stratified_mean():
    rng = np.random.default_rng(8)
    returns = rng.normal(5.0, 2.0, size=(6, 50, 3))
    low, high = curve_interval(returns, rng, num_resamples=4_000)
    half = 1.96 * np.sqrt(returns.var(axis=1).sum(axis=0) / 50) / 6
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)


def test_a_summary_has_these_keys_with_these_values():
    returns = np.zeros((2, 3, 20))
    returns[0, :, 10:] = 8.0  # task 0: optimum 10, random 0: 0.8 at the end
    returns[1, :, 5:] = 4.0  # task 1: optimum 4: solved from episode 6 on
    row = summarise(returns, optimal=[10.0, 4.0], random=[0.0, 0.0])
    assert row == {
        "normalized_last10_mean": pytest.approx(0.9),
        "iqm": pytest.approx(0.9),  # 0.8 0.8 0.8 1 1 1: one is cut off at each end
        "ci95": [pytest.approx(0.9), pytest.approx(0.9)],
        "episodes_to_90pct": 15,  # the mean over tasks is 0.9 from episode 11 on
        "worst_task_normalized": pytest.approx(0.8),
        "normalized_by_decade": [pytest.approx(0.25), pytest.approx(0.9)],
    }
    assert json.loads(json.dumps(row)) == row


@pytest.mark.parametrize(
    ("returns", "optimal", "random", "sentence"),
    [
        (np.zeros((2, 3)), [1, 1], [0, 0], "task x replica x episode"),
        (np.zeros((2, 0, 3)), [1, 1], [0, 0], "none of them empty"),
        (np.zeros((2, 1, 3)), [1], [0, 0], "'optimal' must have one value for each of 2 tasks"),
        (np.full((1, 1, 3), np.nan), [1], [0], "NaN or infinite"),
        (np.zeros((2, 1, 3)), [1, 0.5], [0, 0.5], "0.5 and 0.5 at task 1"),
        ([[[1.0, 2.0]], [[1.0]]], [1, 1], [0, 0], "ragged"),
    ],
)
def test_returns_that_cannot_be_summarised_are_refused_in_one_sentence(returns, optimal, random, sentence):
    with pytest.raises(StatisticsError, match=sentence):
        summarise(returns, optimal, random)


def test_seeds_must_name_every_replica_and_be_balanced():
    scores = np.zeros((2, 3))
    with pytest.raises(StatisticsError, match="each of 3 replicas"):
        interval_of(scores, np.random.default_rng(0), seeds=[0, 1])
    with pytest.raises(StatisticsError, match="as many replicas"):
        interval_of(scores, np.random.default_rng(0), seeds=[0, 0, 1])


def test_a_difference_is_paired_so_that_easy_and_hard_tasks_do_not_blur_it():
    hard_and_easy = np.array([[0.0], [100.0], [50.0]])
    mean, interval = paired_difference(hard_and_easy + 0.5, hard_and_easy, np.random.default_rng(0))
    assert mean == pytest.approx(0.5)
    assert interval == pytest.approx((0.5, 0.5))


def test_the_interval_of_a_difference_draws_tasks():
    scores = np.array([[0.0], [0.0], [0.0], [1.0]])  # the mean over four draws is binomial: 0 in 0.32, >= 0.75 in 0.05
    draws = sorted(np.mean(draw) for draw in itertools.product([0.0, 0.0, 0.0, 1.0], repeat=4))
    mean, interval = paired_difference(scores, np.zeros((4, 2)), np.random.default_rng(0))
    assert mean == 0.25
    assert interval == pytest.approx((draws[int(0.025 * len(draws))], draws[int(0.975 * len(draws))]), abs=0.0)


def test_the_interval_of_a_difference_draws_lives_and_whole_seeds():
    lives = np.array([[0.0, 0.0, 1.0, 1.0]])
    alone = paired_difference(lives, np.zeros((1, 1)), np.random.default_rng(0))[1]
    by_seed = paired_difference(lives, np.zeros((1, 1)), np.random.default_rng(0), seeds=([7, 7, 8, 8], None))[1]
    mixed = paired_difference(lives, np.zeros((1, 1)), np.random.default_rng(0), seeds=([7, 8, 7, 8], None))[1]
    assert alone == (0.0, 1.0)
    assert by_seed == (0.0, 1.0)
    assert mixed == (0.0, 1.0)
    many = np.repeat([[0.0, 1.0]], 50, axis=1).reshape(1, 100)
    wide = paired_difference(many, np.zeros((1, 1)), np.random.default_rng(0), seeds=([0] * 50 + [1] * 50, None))[1]
    narrow = paired_difference(many, np.zeros((1, 1)), np.random.default_rng(0))[1]
    assert wide == (0.0, 1.0)
    assert narrow is not None
    assert 0.35 < narrow[0] < narrow[1] < 0.65


def test_one_life_on_one_task_has_no_interval_and_other_tasks_no_difference():
    assert paired_difference([[1.0]], [[0.25]], np.random.default_rng(0)) == (0.75, None)
    with pytest.raises(StatisticsError, match="needs the same tasks: 1 and 2"):
        paired_difference([[1.0]], [[0.0], [0.0]], np.random.default_rng(0))
