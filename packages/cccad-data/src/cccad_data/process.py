"""What every command does with its own process: print anything anywhere, stop when asked to, end with its parent.

And say which versions it runs with.
"""

import ctypes
import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version

VERSIONED = ("cccad-data", "cccad-envs", "numpy", "h5py", "torch")
"Distributions that histories depend on, as far as they are installed."
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ECHO_S = 0.25
"A signal soon after the first is the same one: `timeout` sends two, and schedulers reach a process by several ways."
_PR_SET_PDEATHSIG = 1
_CONTROLS = re.compile(  # and those that turn the direction of writing, by which a name can look like another
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]|\r(?!\n)"
)


class Stopped(BaseException):
    """Somebody asked this process to stop; *where* says what it was doing and what is kept."""

    def __init__(self, number: int, where: str = "") -> None:
        self.number, self.where = number, where

    @property
    def code(self) -> int:
        """The exit code by which shells know a signal: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}{self.where}"


class _Asked:
    """The signal that came, when, and whether somebody looks for it instead of being interrupted."""

    number = 0
    at = 0.0
    is_looked_for = False
    is_owned = False


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGINT, SIGTERM and SIGHUP raise Stopped; a second signal ends the process at once, without a word.

    After Stopped it stays so, for whatever the interpreter still has to wait for at its end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Asked.number = 0
    before = {each: signal.getsignal(each) for each in SIGNALS}
    if before[signal.SIGHUP] is signal.SIG_IGN:  # nohup
        del before[signal.SIGHUP]
    for each in before:
        signal.signal(each, _on_signal)
    is_over = False
    try:
        yield
    except Stopped:
        is_over = True
        raise
    finally:
        for each, handler in () if is_over else before.items():
            signal.signal(each, handler)


@contextmanager
def unstopped() -> Iterator[Callable[[], int]]:
    """Inside, a signal interrupts nothing: ask for its number, which is 0 while there is none."""
    _Asked.is_looked_for = True
    try:
        yield lambda: _Asked.number
    finally:
        _Asked.is_looked_for = False


def _on_signal(number: int, _frame: object) -> None:
    now = time.monotonic()
    if not _Asked.number:
        _Asked.number, _Asked.at = number, now
        if not _Asked.is_looked_for:
            raise Stopped(number)
    elif now - _Asked.at > ECHO_S and not _Asked.is_owned:
        os._exit(128 + number)


def print_anything() -> None:
    """Let standard output and error print whatever a file or a stranger put into a text.

    What their encoding lacks is printed as `?`, instead of ending the command; control characters, which a terminal
    would obey, as their escapes.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
            setattr(sys, name, Shown(stream))


class Shown:
    """A text stream on top of another, *below*, that writes control characters as their escapes."""

    encoding = "utf-8"  # of what may be written here; see `print_anything` for what *below* does with it

    def __init__(self, below: io.TextIOWrapper) -> None:
        self.below = below

    def write(self, text: str) -> int:
        """Write *text*; returns its length."""
        self.below.write(shown(text))
        return len(text)

    def __getattr__(self, name: str) -> object:
        """Return what *below* has of this name."""
        return getattr(self.below, name)


def shown(text: str) -> str:
    """Return *text* with its control characters, but for tabs and ends of lines, as Python's escapes."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def versions(*names: str) -> dict[str, str]:
    """Return which version of these distributions is installed, where one is; nothing of them is imported."""
    installed = {}
    for name in names:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


def end_with(parent: int, number: int = signal.SIGKILL, *, at_once: bool = True) -> None:
    """Send this process *number* when the process *parent*, which started it, ends in whatever way.

    With *at_once* (Linux) the kernel does it, when the thread that started this process ends; else within a second. A
    second signal does not end this process then, which *parent* would do.
    """
    _Asked.is_owned = True
    if at_once and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
    threading.Thread(target=_watch, args=(parent, number), name="parent", daemon=True).start()


def _watch(parent: int, number: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), number)
