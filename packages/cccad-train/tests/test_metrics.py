"""Numbers over time: one JSON object a line, the same in TensorBoard, and nothing beyond a checkpoint after a kill."""

import json

from cccad_train.run.stages.metrics import Metrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def write(folder, stage, updates, *, after=0):
    metrics = Metrics(folder, stage, after)
    for update in updates:
        metrics.write(update, {"loss": 1.0 / update, "writes": 2.0})
    metrics.close()


def test_a_line_has_stage_update_time_and_values_to_the_last_digit(tmp_path):
    write(tmp_path, "train-cad", [3])
    [row] = rows(tmp_path)
    assert list(row) == ["stage", "update", "time_s", "loss", "writes"]
    assert (row["stage"], row["update"], row["loss"], row["writes"]) == ("train-cad", 3, 1.0 / 3, 2.0)


def test_going_on_drops_what_lies_beyond_the_checkpoint_and_a_line_cut_short(tmp_path):
    write(tmp_path, "pretrain-cad", [10, 20])
    write(tmp_path, "train-cad", [10, 20, 30])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "train-cad", "upd')
    write(tmp_path, "train-cad", [25], after=20)
    kept = [(row["stage"], row["update"]) for row in rows(tmp_path)]
    assert kept == [("pretrain-cad", 10), ("pretrain-cad", 20)] + [("train-cad", at) for at in (10, 20, 25)]


def test_the_clock_of_a_stage_goes_on_where_it_stopped(tmp_path):
    write(tmp_path, "train-cad", [10])
    line = rows(tmp_path)[0] | {"time_s": 100.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    write(tmp_path, "train-cad", [20], after=10)
    assert 100.0 <= rows(tmp_path)[1]["time_s"] < 110.0


def test_tensorboard_shows_the_same_numbers_and_forgets_what_was_dropped(tmp_path):
    write(tmp_path, "train-cad", [1, 2, 4])
    write(tmp_path, "train-cad", [3], after=2)
    noticed = EventAccumulator(str(tmp_path / "tensorboard" / "train-cad"))
    noticed.Reload()
    assert [(event.step, event.value) for event in noticed.Scalars("writes")] == [(1, 2.0), (2, 2.0), (3, 2.0)]


def test_lines_of_another_run_are_adopted_as_they_are(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    write(tmp_path / "one", "train-cad", [1, 2])
    metrics = Metrics(tmp_path / "two", "train-cad", 0)
    metrics.adopt(rows(tmp_path / "one"))
    metrics.close()
    assert rows(tmp_path / "two") == rows(tmp_path / "one")
