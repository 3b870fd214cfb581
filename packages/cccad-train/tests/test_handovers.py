"""Across a whole run: the spec passes between modules ten times at most, since the graph is resolved from it once."""

import sys
from collections.abc import Iterator
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


@contextmanager
def watching(handovers: set[tuple[str, str]]) -> Iterator[None]:
    """Add to *handovers* who passes an experiment's spec to whom: caller and callee, where these are two modules."""

    def look(frame: FrameType, event: str, _: object) -> None:
        if event != "call" or frame.f_back is None:
            return
        names = [each.f_globals.get("__name__", "") for each in (frame.f_back, frame)]
        if names[0] == names[1] or not all(name.startswith("cccad_") for name in names):
            return
        code = frame.f_code
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(isinstance(frame.f_locals.get(argument), ExperimentSpec) for argument in arguments):
            caller, callee = (name.partition(".")[2] for name in names)
            handovers.add((caller, callee))

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("histories", ["collected", "existing"])
def test_the_spec_is_handed_over_ten_times_at_most(
    micro: Path, micro_run: Path, tmp_path: Path, histories: str
) -> None:
    [data] = (micro_run.parent / "data").iterdir()
    existing = () if histories == "collected" else (f"data.path='{data}'",)
    handovers: set[tuple[str, str]] = set()
    with watching(handovers):
        execute(Order(spec=micro, out=tmp_path, overrides=(*SHORT, *existing)))
    assert handovers == LISTED
    assert len(handovers) <= MOST
