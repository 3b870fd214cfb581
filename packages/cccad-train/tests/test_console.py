"""Plain lines where there is no terminal: now and then, and the end exactly once."""

from cccad_train import console
from cccad_train.console import Meter


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_short_piece_of_work_is_one_line(capsys):
    with Meter("collect", 3, "env steps") as meter:
        for done in (1, 2, 3, 3):
            meter.show(done)
    [line] = lines(capsys)
    assert line.startswith("collect: 3 of 3 env steps (")


def test_figures_and_thousands_are_shown(capsys):
    with Meter("train-cad", 2_000, "updates") as meter:
        meter.show(2_000, loss="0.41")
    [line] = lines(capsys)
    assert line.startswith("train-cad: 2,000 of 2,000 updates (")
    assert line.endswith("), loss 0.41")


def test_long_work_speaks_every_few_seconds_with_rate_and_time_left(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with Meter("train-cad", 100, "updates", done=20) as meter:
        for done in range(21, 101):
            clock[0] += 1.0
            meter.show(done)
    told = lines(capsys)
    assert told[0] == "train-cad: 25 of 100 updates (1.0/s, 75 s left)"
    assert told[-1] == "train-cad: 100 of 100 updates (1.0/s, 80 s)"
    assert len(told) == 16


def test_a_total_may_become_known_on_the_way(capsys):
    with Meter("collect", 0, "env steps") as meter:
        meter.show(50, total=100)
        meter.show(100, total=100)
    assert lines(capsys)[-1].startswith("collect: 100 of 100 env steps")


def test_other_processes_are_silent(capsys):
    with Meter("train-cad", 1, "updates", is_silent=True) as meter:
        meter.show(1)
    assert lines(capsys) == []
