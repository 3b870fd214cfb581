"""How far a run is: which stages of its graph are done in a folder, and what stands in the way of the others."""

from pathlib import Path

from cccad_data import HistoryFileError
from cccad_data.histories.dataset import finished_shards, read_manifest

from cccad_train.fit.checkpoints import updates
from cccad_train.run.environments import Environments
from cccad_train.run.folder import RunFolder
from cccad_train.run.graph import Graph, Stage
from cccad_train.run.histories import open_existing


class UnfinishedRunError(ValueError):
    """A stage needs what an earlier one has not made yet, or a run was begun and not finished."""


class OtherInputsError(ValueError):
    """A run folder holds outcomes of the same spec with other plugin files, histories or versions."""


def dataset(graph: Graph, folder: RunFolder) -> Path:
    """Return where the histories lie: as the spec says, or in a folder which all runs beside *folder* share."""
    if graph.spec.data.path is not None:
        return Path(graph.spec.data.path)
    return folder.data / f"{graph.spec.env.build().name}-{graph.stage('collect').inputs}"


def is_collected(place: Path) -> bool:
    """Say whether *place* is a shard, or a folder that holds a whole collection."""
    try:
        return place.is_file() or all(shard.is_file() for shard in finished_shards(place, read_manifest(place)))
    except HistoryFileError:
        return False


def states(graph: Graph, folder: RunFolder) -> dict[Stage, str]:
    """Return for every stage whether it is `done`, `begun` or still `to do`, in order; a report is always to do."""
    done = folder.stages()
    return {stage: _state(graph, stage, folder, done) for stage in graph.stages}


def _state(graph: Graph, stage: Stage, folder: RunFolder, done: dict[str, str]) -> str:
    if stage.kind == "collect":
        return "done" if is_collected(dataset(graph, folder)) else "to do"
    if stage.inputs is not None and done.get(stage.name) == stage.inputs:
        return "done"
    return "begun" if updates(folder.checkpoints(stage.name)) else "to do"


def has_work(graph: Graph, folder: RunFolder) -> bool:
    """Say whether something other than the report is still to be made."""
    return any(state != "done" for stage, state in states(graph, folder).items() if stage.kind != "report")


def refuse_other_inputs(graph: Graph, folder: RunFolder) -> None:
    """Raise OtherInputsError where something was made in *folder* from other inputs: it would be lost."""
    done = folder.stages()
    for stage in graph.fits():
        if stage.name in done and done[stage.name] != stage.inputs:
            then, now = folder.meta().get("parts"), graph.suppliers
            differing = [name for name in now if isinstance(then, dict) and then.get(name) != now[name]]
            cause = f"another {differing[0]}" if differing else "other histories"
            raise OtherInputsError(
                f"{folder.path} holds what '{stage.name}' made with {cause}; to keep it, give another --out, "
                "and to do it again here, remove that folder"
            )


def require(graph: Graph, folder: RunFolder, only: str) -> None:
    """Raise UnfinishedRunError unless all that the stages of kind *only* need has been made."""
    state_of = states(graph, folder)
    for needed in graph.required(only):
        if state_of[needed] != "done":
            where = dataset(graph, folder) if needed.kind == "collect" else folder.path
            raise UnfinishedRunError(
                f"'{only}' needs '{needed.name}', which is not done in {where}; "
                f"run with '--only {needed.kind}' first, or without '--only'"
            )


def dry_run(graph: Graph, environments: Environments, folder: RunFolder, only: str | None) -> str:
    """Return what a run would do, as comment lines below a spec in TOML: every stage, its state and what it needs."""
    spec, own = graph.spec, environments.own
    num_train, num_held_out = len(own.train[: spec.split.max_train_tasks]), len(own.held_out)
    lines = [f"into {folder.path}: {num_train:,} training tasks, {num_held_out:,} held-out tasks"]
    if spec.data.path is not None:
        lines.append(f"  {open_existing(spec.data.path, own, spec.split.max_train_tasks, lazy=True)[1]}")
    for name, environment in environments.others.items():
        lines.append(f"  also played in {name}: {len(environment.held_out):,} held-out tasks")
    wanted = graph.wanted(only)
    for stage, state in states(graph, folder).items():
        shown = state if stage in wanted else "left out by --only"
        lines.append(f"  {stage.name:24s} {shown:18s} {_needs(stage)}".rstrip())
    return "\n".join(f"# {line}" for line in lines)


def _needs(stage: Stage) -> str:
    needs = f"needs {', '.join(need.name for need in stage.needs)}" if stage.needs else ""
    return needs if stage.weights_from is None else f"{needs}; begins with the weights of {stage.weights_from.name}"
