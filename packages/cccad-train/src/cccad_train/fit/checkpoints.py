"""Resumable state: written under a temporary name, then renamed, so that a kill leaves the last whole one."""

import io
import math
import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import Factory, define
from torch import Tensor

from cccad_train.console import warn
from cccad_train.files import NUMBER, TEXT, Form, Json, Misfit, RunFileError, each, leaf, maybe, table

STATE = "state.pt"
_DAMAGE = (
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(ArithmeticError, MemoryError, ImportError, pickle.UnpicklingError, zipfile.BadZipFile, struct.error),
)
"What zipfile and torch raise over bytes that make no sense."


@define(kw_only=True)
class Progress:
    """How far a stage has come. `update` counts updates that are done; `best` is the lowest smoothed training loss.

    `pending` are the losses of updates that no line of `metrics.jsonl` has yet, where a stage was stopped between two.
    Held-out tasks never enter here: no checkpoint is chosen by them.
    """

    update: int = 0
    smoothed_loss: float | None = None
    best: float = float("inf")
    pending: list[list[float]] = Factory(list)

    def advance(self, losses: list[float]) -> None:
        """Count *losses*, one per update, into the exponential average over about 100 updates."""
        for loss in losses:
            before = self.smoothed_loss
            self.smoothed_loss = loss if before is None else 0.99 * before + 0.01 * loss


def updates(folder: Path) -> list[Path]:
    """Return the checkpoints under *folder*, whole or not, the oldest first."""
    return sorted((path for path in folder.glob("update_*") if _number(path) >= 0), key=_number)


def _number(path: Path) -> int:
    """Return the update that a checkpoint is named after, -1 for another name."""
    return int(path.name.removeprefix("update_")) if re.fullmatch(r"update_[0-9]{1,18}", path.name) else -1


def save(folder: Path, update: int, state: Json, *, is_best: bool, keep: int = 2) -> Path:
    """Write *state* as `update_<n>` under *folder*; old ones are removed.

    The small text files `latest` and `best` name the newest and the one with the lowest loss, for people.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left_by_a_kill in folder.glob(".update_*.partial"):
        shutil.rmtree(left_by_a_kill)
    place, partial = folder / f"update_{update}", folder / f".update_{update}.partial"
    partial.mkdir()
    try:
        with open(partial / STATE, "wb") as file:
            file.write(_as_bytes(state))
            file.flush()
            # Before the rename, or a power cut could leave the final name on a file whose bytes never reached the disk.
            os.fsync(file.fileno())
    except OSError:  # a full disk
        shutil.rmtree(partial)
        raise
    # The name is taken only where a resumed run passed a damaged checkpoint over and came to its update again; a rename
    # cannot replace a folder that is not empty.
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
    _point(folder / "latest", place.name)
    if is_best:
        _point(folder / "best", place.name)
    # This one by name, since damaged ones may be of later updates; and more than one, since `load_latest` falls back on
    # the one before where the newest is damaged.
    kept = {place.name, _target(folder / "best")}
    for path in updates(folder)[:-keep]:
        if path.name not in kept:
            shutil.rmtree(path)
    return place


def _as_bytes(state: Json) -> bytes:
    """Return *state* as torch saves it, from memory: a full disk is then an OSError, not torch's own error."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _point(pointer: Path, target: str) -> None:
    """Make *pointer* name *target*, at once; it may be a link of an earlier version, or a folder that one became."""
    temporary = pointer.with_name(f".{pointer.name}.partial")
    temporary.unlink(missing_ok=True)
    temporary.write_text(f"{target}\n", encoding="utf-8")
    if pointer.is_dir() and not pointer.is_symlink():
        shutil.rmtree(pointer)
    os.replace(temporary, pointer)


def _target(pointer: Path) -> str:
    """Return what *pointer* names, as a link or as text; nothing if it names nothing."""
    try:
        return pointer.readlink().name if pointer.is_symlink() else pointer.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def load_latest(
    folder: Path, fit: Callable[[object, int], None] = lambda *_: None, tell: Callable[[str], None] = warn
) -> Json | None:
    """Return the newest whole state under *folder*, or None when there is none.

    A checkpoint that is damaged, or for which *fit* (of the state and its update) raises `Misfit`, is passed over, and
    *tell* is told so.
    """
    for place in reversed(updates(folder)):
        try:
            return _load(place / STATE, fit)
        except RunFileError as error:
            tell(f"{error}; this checkpoint is passed over")
    return None


def _load(file: Path, fit: Callable[[object, int], None]) -> Json:
    """Return the state in *file*; raises RunFileError when it is damaged or does not fit."""
    if not file.is_file():
        raise RunFileError(f"{file}: there is no such file")
    try:
        _check_archive(file)
        # `weights_only`: a pickle may run code. On the CPU: a checkpoint of a GPU can then be resumed without one.
        state: Json = torch.load(file, map_location="cpu", weights_only=True)
        fit(state, _number(file.parent))
    except Misfit as misfit:
        raise RunFileError(f"{file}: {misfit}") from None
    except _DAMAGE as error:
        cause = (str(error).splitlines() or [""])[0].strip() or type(error).__name__
        raise RunFileError(f"{file}: it is damaged: {cause[:120]}") from None
    return state


def _check_archive(file: Path) -> None:
    """Raise ValueError where sizes or checksums are wrong: torch itself looks at neither all of these nor those."""
    with zipfile.ZipFile(file) as archive:
        if sum(part.file_size for part in archive.infolist()) > file.stat().st_size:
            raise ValueError("it declares more bytes than it holds")
        if archive.testzip() is not None:
            raise ValueError("a checksum is wrong")


def fitting(
    policy: Mapping[str, Tensor], optimizer: torch.optim.Optimizer | None = None, most: float = math.inf
) -> Callable[[object, int], None]:
    """Return the check of a training state for `load_latest`: the weights are those of *policy*, by name and shape.

    With an *optimizer*, its state must be of the same parameters. No update is later than *most*.
    """
    weights = table({name: _like(tensor) for name, tensor in policy.items()}, others=_NOTHING)
    moments = table() if optimizer is None else _moments(optimizer)

    def check(state: object, update: int) -> None:
        is_right = leaf(f"{update:,}, as its folder says", lambda value: type(value) is int and value == update <= most)
        since = {"pending": each(each(NUMBER))}  # losses since the last line of metrics
        progress = table({"update": is_right, "smoothed_loss": maybe(NUMBER), "best": _LOSS}, since, others=_NOTHING)
        table({"inputs": TEXT, "progress": progress, "policy": weights, "optimizer": moments}, others=_NOTHING)(state)

    return check


_LOSS = leaf("a loss", lambda value: type(value) is float and value > -math.inf)
_NOTHING = leaf("left out", lambda _: False)


def _like(tensor: Tensor) -> Form:
    """Return the form of finite numbers in the shape of *tensor*."""
    shape = " x ".join(map(str, tensor.shape)) or "one number"

    def is_right(value: Any) -> bool:
        is_alike = isinstance(value, Tensor) and value.shape == tensor.shape and value.dtype == tensor.dtype
        return is_alike and bool(torch.isfinite(value).all())

    return leaf(f"finite {str(tensor.dtype).removeprefix('torch.')} ({shape})", is_right)


def _moments(optimizer: torch.optim.Optimizer) -> Form:
    """Return the form of what `state_dict` of *optimizer* returns, whatever the learning rate."""
    ours = [
        # `lr` is whatever the schedule set last, and flags such as `fused` follow the version of torch; numbers of the
        # spec must agree, since loading a state overwrites those of the optimizer.
        {name: value for name, value in group.items() if name == "params" or (name != "lr" and _is_setting(value))}
        for group in optimizer.state_dict()["param_groups"]
    ]
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]

    def are_right(groups: Any) -> bool:
        are_tables = type(groups) is list and len(groups) == len(ours) and all(type(group) is dict for group in groups)
        return are_tables and all(
            "lr" in theirs and all(name in theirs and theirs[name] == value for name, value in mine.items())
            for mine, theirs in zip(ours, groups, strict=True)
        )

    def fits(index: Any, entry: Any) -> bool:
        is_known = type(index) is int and 0 <= index < len(shapes) and type(entry) is dict and "step" in entry
        return is_known and all(
            # Of shape `()` is the count of steps; both moments are shaped like their parameter.
            isinstance(value, Tensor) and value.shape in ((), shapes[index])
            for value in entry.values()
        )

    groups = leaf("the groups of parameters of this spec", are_right)
    state = leaf(
        "moments in the shapes of the parameters",
        lambda value: type(value) is dict and value != {} and all(fits(*pair) for pair in value.items()),
    )
    return table({"param_groups": groups, "state": state}, others=_NOTHING)


def _is_setting(value: object) -> bool:
    return isinstance(value, float | tuple)
