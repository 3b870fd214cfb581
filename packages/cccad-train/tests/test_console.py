"""Plain lines where there is no terminal: now and then, and the end exactly once."""

import time

import pytest
from cccad_train.console import Meter, table, wrapped


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
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Meter("train-cad", 100, "updates", done=20) as meter:
        for done in range(21, 101):
            clock[0] += 1.0
            meter.show(done)
    ended = lines(capsys)
    assert ended[0] == "train-cad: 25 of 100 updates (1.0/s, 75 s left)"
    assert ended[-1] == "train-cad: 100 of 100 updates (1.0/s, 80 s)"
    assert len(ended) == 16


def test_a_total_may_become_known_on_the_way(capsys):
    with Meter("collect", 0, "env steps") as meter:
        meter.show(50, total=100)
        meter.show(100, total=100)
    assert lines(capsys)[-1].startswith("collect: 100 of 100 env steps")


def test_other_processes_are_silent(capsys):
    with Meter("train-cad", 1, "updates", is_silent=True) as meter:
        meter.show(1)
    assert lines(capsys) == []


def test_no_time_left_is_told_while_work_has_hardly_begun(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Meter("collect", 1_460_000, "env steps") as meter:
        for clock[0], done in ((5.5, 0), (11.0, 130), (16.5, 14_600), (22.0, 146_000)):
            meter.show(done)
    first, slow, third, fourth = lines(capsys)
    assert first == "collect: 0 of 1,460,000 env steps (0.0/s)"
    assert slow == "collect: 130 of 1,460,000 env steps (12/s)"
    assert "(885/s, 1,634 s left)" in third
    assert "(6,636/s, 198 s left)" in fourth


def test_slow_work_is_told_its_time_left_after_a_minute(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Meter("train-cad", 100_000, "updates") as meter:
        clock[0] = 61.0
        meter.show(61)
    assert lines(capsys) == ["train-cad: 61 of 100,000 updates (1.0/s, 99,939 s left)"]


ROWS = [
    ("", "last 10", "95 %", "worst task", "episodes to 0.9"),
    ("compressed AD, 60 slots of which 8 latents", "0.93", "0.91 – 0.95", "-0.25", "–"),
    ("random", "0.00", "-0.01 – 0.01", "0.00", "–"),
]


@pytest.mark.parametrize("width", [24, 50, 79, 200])
def test_a_table_fits_the_terminal_and_loses_no_number(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    text = table(ROWS)
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    assert [cell for row in ROWS[1:] for cell in row if cell != "–" and cell not in words] == []


def test_where_it_does_not_fit_every_number_stands_beside_its_title(monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    assert table(ROWS).splitlines()[:2] == [ROWS[1][0], "  last 10 0.93, 95 % 0.91 – 0.95, worst task -0.25"]


def test_text_is_wrapped_for_a_terminal_alone(monkeypatch):
    line = "  darkroom  cccad-envs 0.1.0  " + "A square room with a hidden goal. " * 9
    monkeypatch.delenv("COLUMNS", raising=False)
    assert wrapped(line) == line
    monkeypatch.setenv("COLUMNS", "40")
    first, *others = wrapped(line).splitlines()
    assert first.startswith("  darkroom  cccad-envs")
    assert all(other.startswith("      ") and len(other) <= 40 for other in others)
