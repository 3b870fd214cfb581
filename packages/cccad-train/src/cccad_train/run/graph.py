"""What there is to do: every stage's inputs as a digest, so that the same work is never done twice."""

from pathlib import Path
from typing import Any

from cccad_core.registry import distributions
from cccad_core.specs import digest, parts, unstructure
from cccad_data import HistoryFileError
from cccad_data.dataset import finished_shards, read_manifest

from cccad_train.estimate import refuse_too_large
from cccad_train.experiment import ExperimentSpec
from cccad_train.fit.checkpoints import updates
from cccad_train.run.folder import RunFolder
from cccad_train.run.given import content, open_given
from cccad_train.run.worlds import other_worlds, own_world


class UnfinishedRunError(ValueError):
    """A stage needs what an earlier one has not made yet, or a run was begun and not finished."""


class OtherInputsError(ValueError):
    """A run folder holds outcomes of the same spec with other plugin files, histories or versions."""


def fits(spec: ExperimentSpec, kind: str) -> list[str]:
    """Return the training stages of *kind*, `pretrain` or `train`, such as `train-cad`, in order."""
    stages = [f"{kind}-{name}" for name, agent in spec.agents().items() if getattr(agent, kind) is not None]
    order: list[str] = []

    def add(stage: str) -> None:
        for needed in before(spec, stage):
            add(needed)
        if stage not in order:
            order.append(stage)

    for stage in stages:
        add(stage)
    return [stage for stage in order if stage in stages]


def before(spec: ExperimentSpec, stage: str) -> list[str]:
    """Return the training stages that *stage* builds on; the first, if it is no teacher's, gives it weights."""
    kind, name = stage.split("-", 1)
    agent = spec.agents()[name]
    first, teacher = agent.train.warm_start, agent.train.teacher
    needed = [] if first is None else [f"train-{first}"]
    if kind == "pretrain":
        return needed
    if agent.pretrain is not None:
        needed = [f"pretrain-{name}"]
    return needed if teacher is None else [*needed, f"train-{teacher.agent}"]


def inputs(spec: ExperimentSpec, stage: str) -> str:
    """Return a digest of all that the outcome of *stage* depends on; it includes the stages before it."""
    plain = unstructure(spec)
    if stage == "collect":
        split = {name: value for name, value in plain["split"].items() if name != "max_held_out_tasks"}
        if spec.data.path is not None:
            return digest({"data": [plain["env"], split, *content(Path(spec.data.path))], **_by_files([spec.env])})
        histories = [plain["env"], split, plain["data"]["source"], plain["data"]["seed"]]
        return digest({"data": histories, **_by_files([spec.env, spec.data.source])})
    if stage == "evaluate":
        agents, most = list(spec.agents()), plain["split"].get("max_held_out_tasks")
        limited = {} if most is None else {"max_held_out_tasks": most}
        trained = [inputs(spec, f"train-{name}") for name in agents]
        return digest({"agents": trained, "names": agents, "evaluate": plain["evaluate"], **limited})
    kind, name = stage.split("-", 1)
    agent = spec.agents()[name]
    return digest(
        {
            "before": [inputs(spec, needed) for needed in before(spec, stage) or ["collect"]],
            "policy": unstructure(agent.policy),
            "by": distributions(sorted(parts(agent.policy))),
            "own": unstructure(getattr(agent, kind)),
            "s": [plain["data"].get("sampler", {}), spec.seed],
            **_by_files([getattr(agent, kind)]),
        }
    )


def _by_files(specs: list[Any]) -> dict[str, Any]:
    """Return the contents, as hashes, of the plugin files that supplied parts of *specs*, if there are any."""
    suppliers = distributions(sorted(parts(specs)))
    files = {name: version for name, version in suppliers.items() if name.endswith(".py")}
    return {"files": files} if files else {}


def dataset(spec: ExperimentSpec, folder: RunFolder) -> Path:
    """Return where the histories of *spec* lie: as it says, or in a folder which all runs beside *folder* share."""
    if spec.data.path is not None:
        return Path(spec.data.path)
    return folder.data / f"{spec.env.build().name}-{inputs(spec, 'collect')}"


def is_collected(place: Path) -> bool:
    """Say whether *place* is a shard, or a folder that holds a whole collection."""
    try:
        return place.is_file() or all(shard.is_file() for shard in finished_shards(place, read_manifest(place)))
    except HistoryFileError:
        return False


def states(spec: ExperimentSpec, folder: RunFolder) -> dict[str, str]:
    """Return for every stage whether it is `done`, `begun` or still `to do`, in order."""
    done, found = folder.stages(), {}
    found["collect"] = "done" if is_collected(dataset(spec, folder)) else "to do"
    for stage in [*fits(spec, "pretrain"), *fits(spec, "train"), "evaluate"]:
        is_begun = bool(updates(folder.checkpoints(stage)))
        is_done = done.get(stage) == inputs(spec, stage)
        found[stage] = "done" if is_done else "begun" if is_begun else "to do"
    return found


def refuse_other_inputs(spec: ExperimentSpec, folder: RunFolder) -> None:
    """Raise OtherInputsError where something was made in *folder* from other inputs: it would be lost."""
    done = folder.stages()
    for stage in [*fits(spec, "pretrain"), *fits(spec, "train")]:
        if stage in done and done[stage] != inputs(spec, stage):
            then, now = folder.meta().get("parts"), distributions(sorted(parts(spec)))
            differing = [name for name in now if isinstance(then, dict) and then.get(name) != now[name]]
            cause = f"another {differing[0]}" if differing else "other histories"
            raise OtherInputsError(
                f"{folder.path} holds what '{stage}' made with {cause}; to keep it, give another --out, "
                "and to do it again here, remove that folder"
            )


def require(spec: ExperimentSpec, folder: RunFolder, stage: str) -> None:
    """Raise UnfinishedRunError unless all that *stage* (as in `--only`) needs has been made."""
    needs = {
        "pretrain": ["collect"],
        "train": ["collect", *fits(spec, "pretrain")],
        "evaluate": ["collect", *fits(spec, "train")],
        "report": ["evaluate"],
    }
    known = states(spec, folder)
    for needed in needs.get(stage, []):
        if known[needed] != "done":
            where = dataset(spec, folder) if needed == "collect" else folder.path
            word = needed.split("-", 1)[0]
            raise UnfinishedRunError(
                f"'{stage}' needs '{needed}', which is not done in {where}; "
                f"run with '--only {word}' first, or without '--only'"
            )


def dry_run(spec: ExperimentSpec, folder: RunFolder, stages: list[str]) -> str:
    """Return what a run would do, as comment lines below a spec in TOML."""
    own = own_world(spec)
    num_train, num_held_out = len(own.train[: spec.split.max_train_tasks]), len(own.held_out)
    refuse_too_large(spec, own.family, num_held_out)
    lines = [f"into {folder.path}: {num_train:,} training tasks, {num_held_out:,} held-out tasks"]
    if spec.data.path is not None:
        lines.append(f"  {open_given(spec, lazy=True)[1]}")
    for name, world in other_worlds(spec, own).items():
        lines.append(f"  also played in {name}: {len(world.held_out):,} held-out tasks")
    for stage, state in {**states(spec, folder), "report": "to do"}.items():
        is_wanted = stage.split("-", 1)[0] in stages
        lines.append(f"  {stage:24s} {state if is_wanted else 'left out by --only'}")
    return "\n".join(f"# {line}" for line in lines)
