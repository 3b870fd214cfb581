"""Whose error it is: what a part that is not ours let through is one sentence with its name, and its own frames."""

import re
import sys
import traceback
from pathlib import Path
from types import FrameType

from cccad_core.errors import reason
from cccad_core.registry import REGISTRY, Registry

_TRACEBACK = "Traceback (most recent call last):\n"
_FRAME = re.compile(r'^  File "(.*)", line (\d+), in (.*)$', re.MULTILINE)
_OUR_FILE = re.compile(r"[\\/]cccad_(core|data|envs|train)[\\/]")
_SYSTEM = ("OSError:", "PermissionError:", "MemoryError")
_CHAINED = ("The above exception was", "During handling of the above")


def sentence_of(error: BaseException, registry: Registry = REGISTRY) -> str:
    """Return who let *error* through, and where, if that was a part which is not ours; else nothing."""
    for frame, _ in reversed(_frames(error)):
        if owners := registry.owners(frame.f_globals.get("__name__", "")):
            names = " or ".join(owner.title for owner in owners)
            return f"{names} failed: {reason(error)}{place_of(error, registry)}"
    return ""


def place_of(error: BaseException, registry: Registry = REGISTRY) -> str:
    """Return the last line of a part that is not ours which *error* came through, in brackets; or nothing."""
    for frame, line in reversed(_frames(error)):
        if registry.owners(frame.f_globals.get("__name__", "")):
            return f" ({Path(frame.f_code.co_filename).name}:{line}, in {frame.f_code.co_qualname})"
    return ""


def own_frames(error: BaseException, registry: Registry = REGISTRY) -> str:
    """Return the traceback of *error* and of what caused it, with nothing but the frames of parts that are not ours.

    A file that failed while it was imported is no part yet; its frames are those that belong to no installed package.
    """
    lines = []
    cause: BaseException | None = error
    while cause is not None:
        frames = [
            (frame, line)
            for frame, line in _frames(cause)
            if registry.owners(frame.f_globals.get("__name__", "")) or _is_loose(frame)
        ]
        if frames:
            lines += [*traceback.format_list(traceback.StackSummary.extract(iter(frames))), reason(cause)]
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(line.rstrip() for line in lines)


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    return list(traceback.walk_tb(error.__traceback__))


def _is_loose(frame: FrameType) -> bool:
    """Say whether a frame is of a module that was never finished: its import failed."""
    return frame.f_globals.get("__name__") not in sys.modules


def shortened(text: str) -> str:
    """Return *text* with the tracebacks in it, such as another process reports, cut down to what they say and where.

    One that ends in our own code, and not because of the disk or the memory, is a fault of ours and stays whole.
    """
    kept, *blocks = text.split(_TRACEBACK)
    for block in blocks:
        lines = block.splitlines()
        last = next((index for index, line in enumerate(lines) if not line.startswith("  ")), len(lines) - 1)
        rest = "\n".join(lines[last + 1 :]).strip("\n")
        if rest.startswith(_CHAINED):
            continue
        places = _FRAME.findall("\n".join(lines[:last]))
        if places and _OUR_FILE.search(places[-1][0]) and not lines[last].startswith(_SYSTEM):
            kept += _TRACEBACK + block
            continue
        place = " ({}:{}, in {})".format(Path(places[-1][0]).name, *places[-1][1:]) if places else ""
        kept += "\n".join(part for part in (f"{lines[last]}{place}", rest) if part) + "\n"
    return kept.rstrip()
