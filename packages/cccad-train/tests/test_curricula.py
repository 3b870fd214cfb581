"""Curricula: what they say, and that training does as they say."""

import json

import pytest
from cccad_core.memory.context import RollingContext
from cccad_core.memory.triggers import EveryTrigger, RandomTrigger
from cccad_train.fit.curricula import LinearSpec, NoneSpec, StagedSpec, WriteLimit


def test_no_curriculum_always_asks_for_all_writes():
    assert [NoneSpec().build().num_writes(update, 6) for update in (0, 7, 10**6)] == [6, 6, 6]


def test_stages_hold_until_the_next_one_and_zero_lifts_the_limit():
    staged = StagedSpec().build()
    updates = (0, 9_999, 10_000, 24_999, 25_000, 39_999, 40_000)
    assert [staged.num_writes(update, 9) for update in updates] == [1, 1, 2, 2, 3, 3, 9]
    assert staged.num_writes(30_000, 2) == 2  # never more than training asks for


def test_the_linear_curriculum_grows_evenly_to_the_full_number():
    linear = LinearSpec(num_updates=100).build()
    assert [linear.num_writes(update, 6) for update in (0, 24, 49, 99, 1_000)] == [0.06, 1.5, 3, 6, 6]


TRIGGERED = ({"trigger": EveryTrigger(decisions=5)}, {"trigger": RandomTrigger()})


@pytest.mark.parametrize("context", [{}, {"carry": 4}, *TRIGGERED])
def test_lengths_of_the_linear_curriculum_grow_by_single_decisions_from_one_window_to_the_full_length(context):
    rolling, linear = RollingContext(window=14, **context, num_latents=2), LinearSpec(num_updates=200).build()
    lengths = [rolling.length_of(linear.num_writes(update, 6)) for update in range(250)]
    full = rolling.length_of(6)
    assert sorted(set(lengths)) == list(range(rolling.length_of(0) + 1, full + 1))
    assert lengths == sorted(lengths)
    assert lengths[199:] == [full] * 51


def test_without_writes_the_linear_curriculum_has_nothing_to_grow():
    assert [LinearSpec(num_updates=10).num_writes(update, 0) for update in (0, 5, 20)] == [0, 0, 0]


@pytest.mark.parametrize("starts", [(), (5,), (0, 20, 10), (0, 10, 10)])
def test_stages_that_do_not_go_up_from_zero_are_refused(starts):
    with pytest.raises(ValueError, match="must begin at update 0 and go up"):
        StagedSpec(stages=tuple(WriteLimit(at_update=at, num_writes=1) for at in starts))


def test_the_writes_that_training_does_follow_the_stages_and_the_lengths(micro_run):
    rows = [json.loads(line) for line in (micro_run / "metrics.jsonl").open()]
    staged, linear = ([r["writes"] for r in rows if r["stage"] == f"train-{name}"] for name in ("cad", "ad"))
    assert staged == [1] * 6 + [3] * 6 + [6] * 6
    assert linear == [1, 1, 2, 2, 2, 2]  # of 17, 20, 23, 26, 28 and 28 decisions: 14 in the first window, then 7
