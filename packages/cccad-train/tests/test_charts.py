"""Charts as numbers: where a value lies, which ticks there are, and that no label leaves its chart."""

import numpy as np
from cccad_train.report.charts import Line, line_chart, line_charts, metric_charts, short, ticks


def test_ticks_are_round_and_cover_the_range():
    assert ticks(0.0, 17.3) == [0, 5, 10, 15, 20]
    assert ticks(-0.2, 1.0) == [-0.25, 0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(0.0, 0.0)[-1] > 0
    labels = [short(value) for value in (0.25, 16.543, 5.0, 12_345.6, 1.5e-4)]
    assert labels == ["0.25", "16.5", "5", "12,346", "1.5e-4"]


def test_a_chart_puts_values_where_the_axes_say():
    line = Line(css="c0", x=np.array([0.0, 50.0, 100.0]), y=np.array([0.0, 5.0, 10.0]))
    chart = line_chart([line], labels=("x", "y"), levels=[("top", 10.0)], mark=("beyond", 101.0), rug=[50.0, 200.0])
    frame = chart["frame"]
    middle = f"{(frame.left + frame.right) / 2:.1f}"
    assert chart["lines"][0]["points"].split()[0] == f"{frame.left:.1f},{frame.bottom:.1f}"
    assert chart["lines"][0]["points"].split()[1] == f"{middle},{(frame.top + frame.bottom) / 2:.1f}"
    assert chart["levels"] == [(frame.top, "top 10")]
    assert chart["mark"] is None
    assert chart["rug"] == [middle]


def test_ticks_under_a_curve_that_would_run_together_are_left_out():
    line = Line(css="c0", x=np.array([0.0, 1_000.0]), y=np.array([0.0, 1.0]))
    wide, narrow = line_charts([line], labels=("x", "y"), rug=np.arange(5.0, 1_000.0, 5.0))
    assert len(wide["rug"]) == 199
    assert narrow["rug"] == []


def test_a_long_curve_is_drawn_as_means_over_equal_stretches():
    line = Line(css="c0", x=np.arange(10_000.0), y=np.tile([0.0, 1.0], 5_000))
    points = line_chart([line], labels=("x", "y"))["lines"][0]["points"].split()
    assert len(points) == 250
    assert len({point.split(",")[1] for point in points}) == 1


def _row(update, loss, imitation_nats):
    return {"stage": "train", "update": update, "loss": loss, "imitation_nats": imitation_nats, "x": 2.0}


def test_numbers_that_are_the_same_at_every_update_share_a_chart():
    losses: list[float] = [2.0 / update for update in range(1, 9)]
    rows = [_row(update, loss, loss) for update, loss in enumerate(losses, start=1)]
    assert [chart["title"] for chart in metric_charts(rows)] == ["loss, imitation_nats", "x"]
    rows[3] = _row(4, losses[3], losses[3] + 1e-6)
    assert [chart["title"] for chart in metric_charts(rows)] == ["loss", "imitation_nats", "x"]


def test_no_label_leaves_its_chart():
    y = np.array([-123_456.0, 987_654.0])
    lines = [Line(css="c0", x=np.array([0.0, 250_000.0]), y=y), Line(css="c1", x=np.array([0.0, 9.0]), y=y / 3e9)]
    levels = [("optimum", 987_654.0), ("random", -123_456.0)]
    charts = line_charts(lines, labels=("episode", "return"), levels=levels)
    for chart in [*charts, *line_charts(lines[1:], labels=("", ""))]:
        width, height = chart["size"]
        frame = chart["frame"]
        for place, label in chart["y_ticks"]:
            assert frame.left - 8 - 8.3 * len(label) >= 0
            assert 8 <= place <= height - 8
        for place, label in chart["x_ticks"]:
            assert place + 8.3 / 2 * len(label) <= width
        for place, label in chart["levels"]:
            assert place - 5 >= 13
            assert frame.right - 4 - 8.3 * len(label) >= 0
        room = [place for place, _ in chart["x_ticks"]]
        assert min(np.diff(room)) > 8.3 * max(len(label) for _, label in chart["x_ticks"])
