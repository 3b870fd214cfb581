"""From an order on the command line to stages done one after the other."""

import sys
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from cccad_core.specs import load, to_toml, unstructure

from cccad_train.console import say
from cccad_train.experiment import ExperimentSpec
from cccad_train.folder import RunFolder
from cccad_train.launch import build_accelerator, relaunch
from cccad_train.stages import STAGES, Run, UnfinishedRunError


@frozen(kw_only=True)
class Order:
    """What `cccad-run` was asked to do."""

    spec: Path
    overrides: tuple[str, ...] = ()
    out: Path = Path("runs")
    resume: bool = False
    dry_run: bool = False
    only: str | None = None
    processes: int = 1
    device: str = "auto"


def execute(order: Order) -> None:
    """Run an experiment, or one stage of it; raises what the user did wrong."""
    spec = load(order.spec, ExperimentSpec, order.overrides)
    folder = RunFolder.of(spec, order.out)
    stages = [order.only] if order.only else list(STAGES)
    if order.dry_run:
        say(to_toml(unstructure(spec)))
        say(f"# would do: {', '.join(stages)}\n# into: {folder.path}")
        return
    if folder.is_unfinished and not order.resume:
        raise UnfinishedRunError(
            f"{folder.path} holds an unfinished run of this spec; add --resume to continue it, or --out for another place"
        )
    if order.processes > 1:
        sys.exit(relaunch([*_as_arguments(order), "--resume"], order.processes))
    accelerator = build_accelerator(order.device, spec.train.precision)
    plugins = tuple((order.spec.parent / name).resolve() for name in spec.imports)
    run = Run(spec=spec, folder=folder, accelerator=accelerator, plugins=plugins)
    if run.is_main:
        folder.prepare(spec, plugins)
        say(f"run: {folder.path}")
    for stage in stages:
        STAGES[stage](run)


def evaluate_again(path: Path, overrides: Sequence[str], device: str) -> None:
    """Evaluate the policies of a run folder, with other settings if *overrides* say so, and report."""
    spec = load(path / "spec.toml", ExperimentSpec, overrides)
    plugins = tuple((path / name).resolve() for name in spec.imports)
    run = Run(
        spec=spec,
        folder=RunFolder(path=path),
        accelerator=build_accelerator(device, spec.train.precision),
        plugins=plugins,
    )
    STAGES["evaluate"](run)
    STAGES["report"](run)


def _as_arguments(order: Order) -> list[str]:
    told = [str(order.spec), "--out", str(order.out), "--device", order.device]
    for override in order.overrides:
        told += ["--set", override]
    return told + (["--only", order.only] if order.only else [])
