"""What a person sees while waiting: a bar with rate and time left, or a plain line every few seconds."""

import sys
import time
from typing import Any, Self

from tqdm import tqdm

LINE_EVERY_S = 5.0


class Meter:
    """Shows how far one piece of long work has come; `with meter: meter.show(done, loss="0.41")`."""

    def __init__(self, label: str, total: int, unit: str, *, done: int = 0, is_silent: bool = False) -> None:
        self.label, self.total, self.unit, self.first = label, total, unit, done
        self.began = self.last_line = time.monotonic()
        self.is_silent, self.is_over = is_silent, False
        self.bar: tqdm[Any] | None = None
        if not is_silent and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, desc=label, unit=f" {unit}", unit_scale=True, dynamic_ncols=True)

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
        if self.bar is not None:
            self.bar.total = self.total
            self.bar.set_postfix(figures, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now, is_over = time.monotonic(), done >= self.total
        if self.is_silent or self.is_over or (now - self.last_line < LINE_EVERY_S and not is_over):
            return
        self.last_line, self.is_over = now, is_over
        rate = (done - self.first) / max(now - self.began, 1e-9)
        ahead = f"{now - self.began:,.0f} s" if is_over else f"{(self.total - done) / max(rate, 1e-9):,.0f} s left"
        speed = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
        told = "".join(f", {name} {value}" for name, value in figures.items())
        line = f"{self.label}: {done:,} of {self.total:,} {self.unit} ({speed}, {ahead}){told}"
        print(line, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print one line for the reader."""
    print(text, flush=True)
