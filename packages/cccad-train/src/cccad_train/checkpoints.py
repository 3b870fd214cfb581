"""Resumable state: written under a temporary name, then renamed, so that a kill leaves the last whole one."""

import io
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from attrs import define

STATE = "state.pt"


@define(kw_only=True)
class Progress:
    """How far a stage has come. `update` counts updates that are done; `best` is the lowest smoothed training loss.

    Held-out tasks never enter here: no checkpoint is chosen by them.
    """

    update: int = 0
    smoothed_loss: float | None = None
    best: float = float("inf")

    def advance(self, losses: list[float]) -> None:
        """Count *losses*, one per update, into the exponential average over about 100 updates."""
        for loss in losses:
            before = self.smoothed_loss
            self.smoothed_loss = loss if before is None else 0.99 * before + 0.01 * loss


def save(folder: Path, update: int, state: dict[str, Any], *, is_best: bool, keep: int = 2) -> Path:
    """Write *state* as `update_<n>` under *folder* and point `latest` (and `best`) at it; old ones are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for left_by_a_kill in folder.glob(".update_*.partial"):
        shutil.rmtree(left_by_a_kill)
    place, partial = folder / f"update_{update}", folder / f".update_{update}.partial"
    partial.mkdir()
    try:
        with open(partial / STATE, "wb") as file:
            file.write(_as_bytes(state))
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # a full disk
        shutil.rmtree(partial)
        raise
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
    _point(folder / "latest", place.name)
    if is_best:
        _point(folder / "best", place.name)
    kept = {(folder / link).resolve() for link in ("latest", "best")}
    old = sorted(folder.glob("update_*"), key=lambda p: int(p.name.removeprefix("update_")))[:-keep]
    for path in old:
        if path.resolve() not in kept:
            shutil.rmtree(path)
    return place


def _as_bytes(state: dict[str, Any]) -> bytes:
    """Return *state* as torch saves it, from memory: a full disk is then an OSError, not torch's own error."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def load_latest(folder: Path) -> dict[str, Any] | None:
    """Return the newest whole state under *folder*, or None when there is none."""
    file = folder / "latest" / STATE
    if not file.is_file():
        return None
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _point(link: Path, target: str) -> None:
    """Make *link* a symbolic link to *target*, at once."""
    temporary = link.with_name(f".{link.name}.partial")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)
