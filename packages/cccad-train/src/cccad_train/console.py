"""What a person sees while waiting: a bar with rate and time left, or a plain line every few seconds."""

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any, Self

from cccad_data.process import shown
from tqdm import tqdm

LINE_EVERY_S = 5.0
SURE_FRAC, SURE_S = 0.01, 60.0  # done of what was to do, or waited: before that, a rate is that of starting up
UNSURE_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # without the time left


class Meter:
    """Shows how far one piece of long work has come; `with meter: meter.show(done, loss="0.41")`."""

    def __init__(self, label: str, total: int, unit: str, *, done: int = 0, is_silent: bool = False) -> None:
        self.label, self.total, self.unit, self.first = label, total, unit, done
        self.began = self.last_line = time.monotonic()
        self.is_silent, self.is_over = is_silent, False
        self.bar: tqdm[Any] | None = None
        if not is_silent and sys.stderr.isatty():
            self.bar = tqdm(
                total=total,
                initial=done,
                desc=shown(label),
                unit=f" {unit}",
                unit_scale=True,
                dynamic_ncols=True,
                file=getattr(sys.stderr, "below", sys.stderr),  # the bar moves the cursor, which others may not
            )

    def __enter__(self) -> Self:
        """Return itself; the bar is closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the bar's line, if there is a bar."""
        if self.bar is not None:
            self.bar.close()

    def show(self, done: int, *, total: int | None = None, **figures: str) -> None:
        """Tell that *done* of the total (or of a new *total*) is done, with the newest figures; the end once."""
        self.total = self.total if total is None else total
        now, is_over = time.monotonic(), done >= self.total
        is_sure = done - self.first >= SURE_FRAC * (self.total - self.first) or now - self.began >= SURE_S
        if self.bar is not None:
            self.bar.bar_format = None if is_sure else UNSURE_BAR
            self.bar.total = self.total
            self.bar.set_postfix(figures, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        if self.is_silent or self.is_over or (now - self.last_line < LINE_EVERY_S and not is_over):
            return
        self.last_line, self.is_over = now, is_over
        rate = (done - self.first) / max(now - self.began, 1e-9)
        speed = [f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"]
        if is_over:
            speed.append(f"{now - self.began:,.0f} s")
        elif rate and is_sure:
            speed.append(f"{(self.total - done) / rate:,.0f} s left")
        newest = "".join(f", {name} {value}" for name, value in figures.items())
        line = f"{self.label}: {done:,} of {self.total:,} {self.unit} ({', '.join(speed)}){newest}"
        print(line, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print one line for the reader."""
    print(text, flush=True)


def terminal_width() -> int | None:
    """Return how many columns the reader has; None where the output is no terminal, and lines may be of any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else None


def wrapped(text: str) -> str:
    """Return *text* with lines that fit the terminal; what an indented line goes on with is indented below it."""
    width = terminal_width()
    if width is None:
        return text
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 4) if line.startswith(" ") else ""
        lines.append(textwrap.fill(line, max(width, 24), subsequent_indent=indent, break_on_hyphens=False))
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return *rows*, the first of them titles, in aligned columns; in blocks of lines where those do not fit."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    width = terminal_width()
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        return "\n".join(_block(rows[0], row, max(width, 24)) for row in rows[1:])
    lines = []
    for label, *cells in rows:
        numbers = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append(f"{label.ljust(widths[0])}  {numbers}".rstrip())
    return "\n".join(lines)


def _block(titles: Sequence[str], row: Sequence[str], width: int) -> str:
    """Return one row as its label and, indented below, every title with its cell; none of these pairs is torn apart."""
    shown = zip(titles[1:], row[1:], strict=True)
    pairs = [f"{title} {cell}".replace(" ", "\xa0") for title, cell in shown if cell != "–"]
    body = textwrap.fill(", ".join(pairs), width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    label = f"{titles[0]} {row[0]}".strip()
    return "\n".join([*textwrap.wrap(label, width), *body.replace("\xa0", " ").splitlines()])


def warn(text: str) -> None:
    """Print one line of warning, apart from what is said."""
    print(f"warning: {text}", file=sys.stderr, flush=True)
