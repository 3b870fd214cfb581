"""Curricula: what they say, and that training does as they say."""

import json

import pytest
from cccad_train.curricula import LinearSpec, NoneSpec, Stage, StagedSpec


def test_no_curriculum_always_asks_for_all_writes():
    assert [NoneSpec().build().num_writes(update, 6) for update in (0, 7, 10**6)] == [6, 6, 6]


def test_stages_hold_until_the_next_one_and_zero_lifts_the_limit():
    staged = StagedSpec().build()
    updates = (0, 9_999, 10_000, 24_999, 25_000, 39_999, 40_000)
    assert [staged.num_writes(update, 9) for update in updates] == [1, 1, 2, 2, 3, 3, 9]
    assert staged.num_writes(30_000, 2) == 2  # never more than training asks for


def test_the_linear_curriculum_grows_evenly_to_the_full_number():
    linear = LinearSpec(num_updates=100).build()
    assert [linear.num_writes(update, 5) for update in (0, 19, 20, 40, 60, 80, 1_000)] == [1, 1, 2, 3, 4, 5, 5]


@pytest.mark.parametrize("starts", [(), (5,), (0, 20, 10), (0, 10, 10)])
def test_stages_that_do_not_go_up_from_zero_are_refused(starts):
    with pytest.raises(ValueError, match="must begin at update 0 and go up"):
        StagedSpec(stages=tuple(Stage(at_update=at, num_writes=1) for at in starts))


def test_the_writes_that_training_does_follow_the_stages(micro_run):
    rows = [json.loads(line) for line in (micro_run / "metrics.jsonl").open()]
    done = {row["update"]: row["writes"] for row in rows if row["stage"] == "train-cad"}
    assert done == {update: 1 if update <= 6 else 3 if update <= 12 else 6 for update in range(1, 19)}
