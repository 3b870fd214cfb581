"""From numbers to the coordinates of an inline SVG: the template draws, this module only measures."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cccad_train.files import Json

Floats = NDArray[np.float64]
Chart = Json

WIDE, NARROW, SMALL = (760, 400), (360, 300), (320, 200)  # of a page, of a telephone's page, of one among many

_MAX_POINTS = 250  # of a curve in the page; longer ones show means over equal stretches
_TICK_GAP = 2.5  # pixels between two ticks of a rug, at least
_PER_LETTER = 8.3  # pixels of a digit at 13 px in the widest common font; labels get this much room each
_NOT_METRICS = {"stage", "update", "env_step", "time_s"}


@frozen(kw_only=True, eq=False)
class Line:
    """One curve: `x` and `y` of the same length, and perhaps the lower and upper edge of a band."""

    css: str
    x: Floats
    y: Floats
    band: tuple[Floats, Floats] | None = None
    is_main: bool = False


@frozen(kw_only=True)
class Frame:
    """The inner rectangle of a chart in pixels, and the ranges that it shows."""

    left: float
    top: float
    right: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def across(self, x: Floats | float) -> Floats:
        """Return the pixel columns of *x*."""
        low, high = self.x_range
        return np.asarray(self.left + (np.asarray(x) - low) / (high - low) * (self.right - self.left))

    def up(self, y: Floats | float) -> Floats:
        """Return the pixel rows of *y*."""
        low, high = self.y_range
        return np.asarray(self.bottom - (np.asarray(y) - low) / (high - low) * (self.bottom - self.top))

    def path(self, x: Floats, y: Floats) -> str:
        """Return the points of a polyline."""
        return " ".join(f"{px:.1f},{py:.1f}" for px, py in zip(self.across(x), self.up(y), strict=True))


def line_chart(
    lines: Sequence[Line],
    *,
    labels: tuple[str, str],
    levels: Sequence[tuple[str, float]] = (),
    mark: tuple[str, float] | None = None,
    rug: Sequence[float] = (),
    size: tuple[int, int] = WIDE,
) -> Chart:
    """Return what the template needs to draw *lines*, the first of them on top.

    Args:
        lines: at least one, none of them empty.
        labels: of the two axes.
        levels: (name, y) of horizontal lines, such as the optimum.
        mark: (name, x) of one vertical line; left out where it lies beyond the curves.
        rug: places on the x axis that get a small tick of their own.
        size: width and height in pixels.
    """
    last = max(float(line.x[-1]) for line in lines)
    ys = [part for line in lines for part in (line.y, *(line.band or ()))] + [np.array([y]) for _, y in levels]
    about = 5 if size[0] > 500 else 3
    y_ticks = ticks(min(0.0, *(float(y.min()) for y in ys)), max(float(y.max()) for y in ys), about)
    x_ticks = [tick for tick in ticks(0.0, last, about) if tick <= last]
    frame = Frame(
        left=14 + _PER_LETTER * max(len(short(tick)) for tick in y_ticks),
        top=32 if labels[1] or levels else 12,  # the axis title stands above, and so may the label of a level
        right=size[0] - max(12.0, _PER_LETTER / 2 * len(short(x_ticks[-1])) + 4),
        bottom=size[1] - (66 if len(rug) else 48),
        x_range=(0.0, max(last, 1e-9)),
        y_range=(y_ticks[0], y_ticks[-1]),
    )
    ticked = frame.across(np.array([place for place in rug if place <= last]))
    if len(ticked) > 1 and np.diff(ticked).min() < _TICK_GAP:
        ticked = np.array([])  # a solid bar says nothing
    return {
        "size": size,
        "frame": frame,
        "labels": labels,
        "lines": [_drawn(line, frame) for line in reversed(lines)],
        "x_ticks": [(float(frame.across(tick)), short(tick)) for tick in x_ticks],
        "y_ticks": [(float(frame.up(tick)), short(tick)) for tick in y_ticks],
        "levels": [(float(frame.up(y)), f"{name} {short(y)}") for name, y in levels],
        "mark": (float(frame.across(mark[1])), mark[0]) if mark and mark[1] <= last else None,
        "rug": [f"{px:.1f}" for px in ticked],
    }


def line_charts(lines: Sequence[Line], **how: Any) -> list[Chart]:
    """Return `line_chart` twice, for wide pages and for narrow ones; the style sheet shows the one that fits."""
    return [line_chart(lines, size=size, **how) for size in (WIDE, NARROW)]


def _drawn(line: Line, frame: Frame) -> Json:
    x, y = _thin(line.x), _thin(line.y)
    band = ""
    if line.band:
        low, high = (_thin(edge) for edge in line.band)
        band = frame.path(np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]]))
    return {"css": line.css, "is_main": line.is_main, "points": frame.path(x, y), "band": band}


def _thin(values: Floats) -> Floats:
    """Return at most 250 means over equal stretches."""
    stretch = math.ceil(len(values) / _MAX_POINTS)
    return np.array([values[first : first + stretch].mean() for first in range(0, len(values), stretch)])


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return *about* so many round numbers, the first at or below *low* and the last at or above *high*."""
    rough = max(high - low, 1e-9) / about
    power = 10.0 ** math.floor(math.log10(rough))
    stride = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / stride + 1e-9), math.ceil(high / stride - 1e-9)
    return [round(stride * tick, 12) for tick in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """Return *value* as a label: whole, three digits, or with an exponent when it is tiny."""
    if 0 < abs(value) < 1e-3:
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(exponent)}"
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"


def metric_charts(metrics: Sequence[Json]) -> list[Chart]:
    """Return one small chart for every number that a stage wrote by update, stage by stage and losses first.

    Numbers that are the same at every update, such as a loss of one part and that part, share a chart. Where there is a
    `..._majority`, what always telling the most common value would get, it is in its accuracy's chart.
    """
    series: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for entry in metrics:
        for name, value in entry.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and "update" in entry and name not in _NOT_METRICS:
                series[str(entry.get("stage", "")), name].append((entry["update"], value))
    stages = list(dict.fromkeys(stage for stage, _ in series))
    charts: dict[tuple[str, bytes], Chart] = {}
    for stage, name in sorted(series, key=lambda key: (stages.index(key[0]), "loss" not in key[1])):
        stem, _, kind = name.rpartition("_")
        if kind == "majority" and (stage, f"{stem}_accuracy") in series:
            continue
        points, finite = series[stage, name], _finite(series[stage, name])
        guesses = _finite(series.get((stage, f"{stem}_majority"), []) if kind == "accuracy" else [])
        if len(finite) < 2:
            continue
        same = charts.get((stage, np.array(points).tobytes()))
        if same is not None and not len(guesses):
            same["title"] += f", {name}"
            continue
        lines = [Line(css="c0", x=finite[:, 0], y=finite[:, 1], is_main=True)]
        if len(guesses):
            lines.append(Line(css="c2", x=guesses[:, 0], y=guesses[:, 1]))  # dashed by the style sheet
        ends: Chart = {"end": _end(finite), "majority": _end(guesses) if len(guesses) else None}
        chart = line_chart(lines, labels=("update", ""), size=SMALL)
        ends |= {"title": name, "stage": stage, "num_lost": len(points) - len(finite)}
        charts[stage, np.array(points).tobytes()] = {**chart, **ends}
    return list(charts.values())


def _finite(points: Sequence[tuple[float, float]]) -> Floats:
    whole = np.array(points, dtype=np.float64).reshape(-1, 2)
    return np.asarray(whole[np.isfinite(whole[:, 1])])


def _end(points: Floats) -> str:
    """Return the mean of the last tenth, since one update is noise."""
    return f"{points[-max(1, len(points) // 10) :, 1].mean():.4g}"
