"""Crosses all modules of a run: how often the spec changes hands, and through how many files an update goes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from cccad_train.experiment import ExperimentSpec
from cccad_train.run.execute import Order, execute

LISTED = {
    ("specs.structure", "experiment"),  # read, and its parts checked against one another
    ("run.execute", "preflight"),  # parts that are not ours keep their laws
    ("preflight", "experiment"),  # which agents there are
    ("run.execute", "run.graph"),  # the stages, resolved once
    ("run.graph", "specs.plain"),  # as plain data, for digests and files
    ("run.graph", "experiment"),  # which agents there are
    ("run.execute", "run.environments"),  # the families and their tasks, resolved once
    ("run.execute", "estimate"),  # whether memory suffices
    ("estimate", "experiment"),  # which agents there are
}
"""Every hand-over of the whole spec, as in docs/testing.md: from which module to which, and what for."""
MOST = 10
SHORT = ("pretrain.num_updates=1", "train.num_updates=1", "controls.ad.train.num_updates=1", "evaluate.num_episodes=2")


MOST_FILES, MOST_LINES = 5, 900


@contextmanager
def watching(look: Callable[[FrameType], None]) -> Iterator[None]:
    """Let *look* see every call of a function of ours, as its frame."""

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and module_of(frame).startswith("cccad_"):
            look(frame)

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def module_of(frame: FrameType | None) -> str:
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def takes_the_spec(frame: FrameType) -> bool:
    code = frame.f_code
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return any(isinstance(frame.f_locals.get(argument), ExperimentSpec) for argument in arguments)


@pytest.mark.parametrize("histories", ["collected", "existing"])
def test_the_spec_is_handed_over_ten_times_at_most(
    micro: Path, micro_run: Path, tmp_path: Path, histories: str
) -> None:
    [data] = (micro_run.parent / "data").iterdir()
    existing = () if histories == "collected" else (f"data.path='{data}'",)
    handovers: set[tuple[str, str]] = set()

    def look(frame: FrameType) -> None:
        caller, callee = module_of(frame.f_back), module_of(frame)
        if caller != callee and caller.startswith("cccad_") and takes_the_spec(frame):
            handovers.add((caller.partition(".")[2], callee.partition(".")[2]))

    with watching(look):
        execute(Order(spec=micro, out=tmp_path, overrides=(*SHORT, *existing)))
    assert handovers == LISTED
    assert len(handovers) <= MOST


def test_an_update_goes_through_five_files_and_nine_hundred_lines_at_most(micro: Path, tmp_path: Path) -> None:
    """Counted are the modules that are being executed when a compressor writes, from the training loop on."""
    ways: set[tuple[str, ...]] = set()

    def look(frame: FrameType) -> None:
        if frame.f_code.co_name != "write" or not module_of(frame).startswith("cccad_core.compressors."):
            return
        way: list[str] = []
        above: FrameType | None = frame
        while above is not None and "cccad_train.fit.loop" not in way:
            if module_of(above).startswith("cccad_") and module_of(above) not in way:
                way.append(module_of(above))
            above = above.f_back
        if way[-1] == "cccad_train.fit.loop":
            ways.add(tuple(way))

    with watching(look):
        execute(Order(spec=micro, out=tmp_path, overrides=SHORT, only="collect"))
        execute(Order(spec=micro, out=tmp_path, overrides=SHORT, only="pretrain", resume=True))
        execute(Order(spec=micro, out=tmp_path, overrides=SHORT, only="train", resume=True))
    assert len(ways) == 3  # of pre-training, of training, and of the control with its plain window
    for way in ways:
        files = [Path(str(sys.modules[name].__file__)) for name in way]
        assert len(files) <= MOST_FILES, way
        assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= MOST_LINES, way
