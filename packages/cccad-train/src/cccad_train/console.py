"""What a person sees while waiting: a bar with rate and time left, or a plain line every few seconds."""

import sys
import time

from tqdm import tqdm

LINE_EVERY_S = 5.0


class Meter:
    """Shows how far one piece of long work has come; `with meter: meter.show(done, loss="0.41")`."""

    def __init__(self, label: str, total: int, unit: str, *, done: int = 0, is_silent: bool = False) -> None:
        self.label, self.total, self.unit, self.first = label, total, unit, done
        self.began = self.last_line = time.monotonic()
        self.bar: tqdm[None] | None = None
        self.is_silent = is_silent
        if not is_silent and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, desc=label, unit=f" {unit}", unit_scale=True, dynamic_ncols=True)

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, done: int, **figures: str) -> None:
        """Tell that *done* of the total is done, with the newest figures."""
        if self.bar is not None:
            self.bar.set_postfix(figures, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if self.is_silent or (now - self.last_line < LINE_EVERY_S and done < self.total):
            return
        self.last_line = now
        rate = (done - self.first) / max(now - self.began, 1e-9)
        left = (self.total - done) / rate if rate else float("inf")
        told = "".join(f", {name} {value}" for name, value in figures.items())
        print(
            f"{self.label}: {done:,} of {self.total:,} {self.unit} ({rate:,.0f}/s, {left:,.0f} s left){told}",
            file=sys.stderr,
            flush=True,
        )


def say(text: str) -> None:
    """Print one line for the reader."""
    print(text, flush=True)
