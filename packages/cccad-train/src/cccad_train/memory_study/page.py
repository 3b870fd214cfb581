"""A memory on one page: what `study` measured as JSON, as a self-contained HTML page, and as lines for the terminal."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cccad_train.console import table
from cccad_train.files import Json, write_text
from cccad_train.memory_study.study import study
from cccad_train.report.charts import SMALL, Line, line_chart, line_charts
from cccad_train.report.page import MAX_RUG, MEMORY_PAGE, NUM_COLOURS, fill, two_digits, write_report
from cccad_train.run.run import Run

FLOOR = -0.5  # of an R^2 in a chart


def write_memory_report(run: Run, num_lives: int, out: Path | None = None) -> tuple[Path, str]:
    """Study the memory of *run*'s agent; return where the page lies, and a table for the terminal.

    Writes `evaluation/memory.json` into the run folder, and the page to *out* or `memory.html`; where that is beside
    `report.html`, each links to the other. Raises as `study` does.
    """
    measured = study(run, num_lives)
    write_text(run.folder.path / "evaluation" / "memory.json", json.dumps(measured))
    page, rows = out or run.folder.path / MEMORY_PAGE, _rows(measured)
    has_report = page == run.folder.path / MEMORY_PAGE and (run.folder.path / "report.html").is_file()
    words = {"found": measured, "rows": rows, "floor": FLOOR, "number": two_digits, "has_report": has_report}
    write_text(page, fill("memory.html", **words, **_figures(measured)))
    if has_report:
        write_report(run.folder.path)
    return page, table([list(rows[0]), *(list(row.values()) for row in rows)])


def _parts(measured: Json) -> tuple[list[Json], list[Json], list[Json]]:
    """Return what was measured by write; to every probe the mean over coordinates of its R^2 is added."""
    for probe in measured["probe"]["by_write"]:
        for fit in (probe, probe["transferred"]):
            values = [value for value in fit["r2"].values() if value is not None]
            fit["mean_r2"] = sum(values) / len(values) if values else None
    return measured["probe"]["by_write"], measured["swap"]["by_write"], measured["latents"]


def _rows(measured: Json) -> list[dict[str, str]]:
    """Return by write, as text, what was measured after it."""
    probes, swaps, shapes = ({row["write"]: row for row in part} for part in _parts(measured))
    rows = []
    for write in sorted({0, *probes, *swaps}):
        probe, lent, shape = probes.get(write, {}), swaps.get(write, {}), shapes.get(write, {})
        cells = {"R²": probe.get("mean_r2"), "R² of write 1": probe.get("transferred", {}).get("mean_r2")}
        cells |= {f"{name} right": probe.get("accuracy", {}).get(name) for name in measured["probe"]["chance"]}
        cells |= {f"goes for {whose}": lent.get(f"follows_{whose}") for whose in ("donor", "own")}
        cells |= {name: shape.get(name) for name in _shown(measured["latents"])}
        texts = {name.replace("_", " "): two_digits(value) for name, value in cells.items()}
        rows.append({"write": str(write), **texts})
    return rows


def _shown(shapes: list[Json]) -> list[str]:
    return [name for name in (shapes[0] if shapes else ()) if name not in {"write", "lives"}]


def _figures(measured: Json) -> dict[str, Json | None]:
    """Return what the template draws."""
    probes, swaps, shapes = _parts(measured)
    attention, kept = measured["attention"], measured["retention"]
    readings = {"R², refitted": [row["mean_r2"] for row in probes]}
    readings["R², probe of write 1"] = [row["transferred"]["mean_r2"] for row in probes]
    readings |= {f"{name} right": [row["accuracy"][name] for row in probes] for name in measured["probe"]["chance"]}
    names = {"follows": "goes for", "actions": "action best for", "first_actions": "first action best for"}
    lent = {
        f"{label} {whose}": [row.get(f"{name}_{whose}") for row in swaps]
        for name, label in names.items()
        for whose in ("donor", "own")
    }
    layers = {f"layer {number}": mass for number, mass in enumerate(attention["mass"], 1)}
    layers["even"] = attention["even_by_raw_tokens"]
    rug = [env_step / measured["horizon"] for env_step in kept["writes"]] if len(kept["writes"]) <= MAX_RUG else []
    episodes = range(1, len(kept["curves"]["intact"]) + 1)
    return {
        "probe": _figure([row["write"] for row in probes], readings, ("write", "")),
        "swap": _figure([row["write"] for row in swaps], lent, ("write", "share")),
        "shapes": {
            name.replace("_", " "): _figure(
                [row["write"] for row in shapes], {name: [row.get(name) for row in shapes]}, ("write", ""), size=SMALL
            )
            for name in _shown(shapes)
        },
        "attention": _figure(attention["raw_tokens"], layers, ("raw tokens in view", "share on latents")),
        "retention": _figure(episodes, kept["curves"], ("episode", "normalised return"), rug=rug),
    }


def _figure(x: ArrayLike, series: Mapping[str, Any], labels: tuple[str, str], **how: Any) -> Json | None:
    """Return a chart of *series* over *x* with its legend, the first in front; None where there is nothing to draw."""
    places = np.asarray(x, dtype=np.float64)
    whole = {label: np.maximum(values, FLOOR) for label, values in series.items() if None not in values}
    if len(places) < 2 or not whole:
        return None
    lines = [
        Line(css=f"c{index % NUM_COLOURS}", x=places, y=values, is_main=not index)
        for index, values in enumerate(whole.values())
    ]
    legend = [(label, line.css, line.is_main) for label, line in zip(whole, lines, strict=True)]
    charts = [line_chart(lines, labels=labels, **how)] if "size" in how else line_charts(lines, labels=labels, **how)
    return {"charts": charts, "legend": legend}
