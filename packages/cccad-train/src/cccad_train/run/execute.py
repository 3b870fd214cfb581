"""From an order on the command line to stages done one after the other."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from attrs import field, frozen
from cccad_core.errors import SpecError
from cccad_core.specs import load, to_toml
from cccad_data.errors import FolderInUseError
from cccad_data.histories.owner import owner_of
from cccad_data.process import Stopped

from cccad_train.console import say
from cccad_train.estimate import refuse_too_large
from cccad_train.experiment import ExperimentSpec
from cccad_train.files import owning
from cccad_train.launch import build_accelerator, connected, relaunch
from cccad_train.preflight import preflight
from cccad_train.run import progress
from cccad_train.run.environments import Environments, resolve_environments
from cccad_train.run.folder import STAGES as STAGES_DONE
from cccad_train.run.folder import RunFolder
from cccad_train.run.graph import Graph, Stage, resolve
from cccad_train.run.progress import UnfinishedRunError
from cccad_train.run.run import Run
from cccad_train.run.stages.collect import do_collect
from cccad_train.run.stages.evaluate import do_evaluate, evaluate
from cccad_train.run.stages.release import do_release, refresh_cards, released
from cccad_train.run.stages.report import do_report
from cccad_train.run.stages.train import do_fit
from cccad_train.variables import LaunchError, Place

STAGES: dict[str, Callable[[Run, Stage], None]] = {
    "collect": do_collect,
    "pretrain": do_fit,
    "train": do_fit,
    "evaluate": do_evaluate,
    "release": do_release,
    "report": do_report,
}
"""Who does the stages, by kind."""
DEFAULT_OUT = Path("runs")
MAY_CHANGE = ("evaluate.", "split.max_held_out_tasks=")
"""What `cccad evaluate` may override: all else would describe another policy."""
BESIDE = ("meta.json", "stages.json", "metrics.jsonl", "checkpoints", "evaluation", "policy", "model.safetensors")
"""What lies beside a spec.toml that a run or a released policy wrote, and no person."""
KEPT = {
    "collect": "the units that were finished are kept, and --resume goes on with the others",
    "pretrain": "what was finished is kept, and --resume goes on from there",
    "train": "what was finished is kept, and --resume goes on from there",
    "evaluate": "the trained agents are kept, and --resume plays them from the beginning",
    "release": "the results are kept, and --resume releases the policies",
    "report": "the results are kept, and --resume writes the report",
}
"""What is left of a run that is stopped in a stage."""


@frozen(kw_only=True)
class Order:
    """What `cccad-run` was asked to do."""

    spec: Path
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    resume: bool = False
    dry_run: bool = False
    only: str | None = None
    processes: int = 1
    threads: int = 1
    device: str = "auto"
    trust_plugins: bool = False
    place: Place = field(factory=Place)


def execute(order: Order) -> None:
    """Run an experiment, or one stage of it; raises what the user did wrong."""
    spec = opened(order.spec, order.overrides, trust_plugins=order.trust_plugins)
    if not order.place.is_owned:  # whose owner has done so
        preflight(spec)
    graph, environments = resolve(spec), resolve_environments(spec)
    refuse_too_large(spec, environments.own.family, len(environments.own.held_out))
    folder = _folder(order, graph)
    listing = progress.dry_run(graph, environments, folder, order.only)
    if order.processes > 1 and order.place.num_processes > 1:
        raise LaunchError("a launcher has started several processes, and --processes would start more; leave it out")
    if order.dry_run:
        say(f"# {order.spec}, every field with its value\n\n{to_toml(graph.plain)}\n{listing}")
        return
    if folder.is_unfinished and not order.resume:
        raise UnfinishedRunError(
            f"{folder.path} holds an unfinished run; add --resume to continue it, or --out to start another elsewhere"
        )
    progress.refuse_other_inputs(graph, folder)
    if order.only:
        progress.require(graph, folder, order.only)
    if order.processes > 1:
        if owner := owner_of(folder.path):
            raise FolderInUseError(f"{folder.path} is being written by {owner}; wait for it or give another --out")
        sys.exit(relaunch([*_as_arguments(order), "--resume"], order.processes))
    with connected(order.place):
        _run(order, graph, environments, folder)


def _run(order: Order, graph: Graph, environments: Environments, folder: RunFolder) -> None:
    """Do what is wanted of *graph* in this process, and with the others that a launcher started beside it."""
    place = order.place
    device = "cpu" if place.wants_cpu and order.device == "auto" else order.device
    accelerator = build_accelerator(device, order.threads, place.num_processes)
    plugins = tuple((order.spec.parent / name).resolve() for name in graph.spec.imports)
    run = Run(graph=graph, environments=environments, folder=folder, accelerator=accelerator, plugins=plugins)
    if run.is_main:
        folder.path.mkdir(parents=True, exist_ok=True)
    with owning(folder.path) if run.is_main else nullcontext():
        if run.is_main:
            say("\n".join([*place.notes, f"run: {folder.path}"]))
            if progress.has_work(graph, folder):
                folder.prepare(graph.plain, graph.suppliers, plugins)
        for stage in graph.wanted(order.only):
            _do(run, stage)


def _do(run: Run, stage: Stage) -> None:
    began, before = time.monotonic(), run.folder.stages()
    try:
        STAGES[stage.kind](run, stage)
    except Stopped as stop:
        raise Stopped(stop.number, stop.where or f" in '{stage.name}'; {KEPT[stage.kind]}") from None
    if run.is_main and run.folder.stages() != before:
        run.folder.spend(stage.name, time.monotonic() - began)


def _folder(order: Order, graph: Graph) -> RunFolder:
    """Return the folder that the run has under `--out`; without it, a run's own spec.toml names where it lies."""
    if order.out is None and not order.overrides and _is_of_a_run(order.spec):
        return RunFolder(path=order.spec.parent.absolute())
    return RunFolder(path=(order.out or DEFAULT_OUT) / graph.folder_name)


def _is_of_a_run(path: Path) -> bool:
    marks = ("meta.json", STAGES_DONE, "checkpoints")
    return path.name == "spec.toml" and any(os.path.lexists(path.parent / mark) for mark in marks)


def opened(path: Path, overrides: Sequence[str], *, trust_plugins: bool) -> ExperimentSpec:
    """Return the spec in the file *path*; that of a run or a policy brings plugins with it, which must be trusted."""
    is_bundle = path.name == "spec.toml" and any((path.parent / name).exists() for name in BESIDE)
    return load(path, ExperimentSpec, overrides, is_bundle=is_bundle, trust_plugins=trust_plugins)


def evaluate_again(
    path: Path, overrides: Sequence[str], device: str, threads: int = 1, *, trust_plugins: bool = False
) -> None:
    """Evaluate the released policies of a run folder, with other settings if *overrides* say so.

    Their cards and the report are written anew.

    Plugin files in the folder run only if *trust_plugins* says so.
    """
    refused = [text for text in overrides if not text.startswith(MAY_CHANGE)]
    if refused:
        fields = "evaluate.* and split.max_held_out_tasks"
        raise SpecError([("", f"only {fields} may change after training: {text}") for text in refused])
    run = reopened(path, overrides, device, threads, trust_plugins=trust_plugins)
    refuse_too_large(run.spec, run.family, len(run.held_out))
    with owning(run.folder.path):
        artefacts = {name: released(run, name) for name in run.graph.agents}
        policies = {name: artefact.policy for name, artefact in artefacts.items()}
        evaluate(run, policies, artefacts[run.spec.agent].spec.train_task_ids)
        refresh_cards(run, artefacts)
        do_report(run, run.graph.stage("report"))


def reopened(
    path: Path, overrides: Sequence[str], device: str, threads: int = 1, *, trust_plugins: bool = False
) -> Run:
    """Return the run in the folder *path*, with other settings if *overrides* say so; see `evaluate_again`."""
    folder = RunFolder(path=path.resolve())
    spec = load(folder.path / "spec.toml", ExperimentSpec, overrides, is_bundle=True, trust_plugins=trust_plugins)
    plugins = tuple((folder.path / name).resolve() for name in spec.imports)
    return Run(
        graph=resolve(spec),
        environments=resolve_environments(spec),
        folder=folder,
        accelerator=build_accelerator(device, threads),
        plugins=plugins,
    )


def _as_arguments(order: Order) -> list[str]:
    words = [str(order.spec), "--device", order.device, "--threads", str(order.threads)]
    words += ["--out", str(order.out)] if order.out is not None else []
    for override in order.overrides:
        words += ["--set", override]
    words += ["--trust-plugins"] if order.trust_plugins else []
    return words + (["--only", order.only] if order.only else [])
