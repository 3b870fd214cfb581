"""Where an experiment is judged: in its own environment, and in others that differ from it in a few settings."""

from collections.abc import Mapping, Sequence

from attrs import frozen
from cccad_core.errors import SpecError
from cccad_core.specs import structure, unstructure
from cccad_data.errors import SamplingError
from cccad_data.family import Task, TaskFamily, can_be_scored

from cccad_train.experiment import ExperimentSpec
from cccad_train.files import Json


class LeakError(ValueError):
    """A task that is to be called held out was trained on."""


def refuse_leaks(held_out: Sequence[Task], trained_ids: Sequence[str], where: str) -> None:
    """Raise LeakError when a held-out task is among the ids that *where* (data or policy) was made from."""
    leaked = sorted({task.task_id for task in held_out} & set(trained_ids))
    if leaked:
        more = f" and {len(leaked) - 1} more" if len(leaked) > 1 else ""
        raise LeakError(
            f"task '{leaked[0]}'{more} is to be held out, but {where} holds it; collect again with this spec's split"
        )


@frozen(kw_only=True)
class Environment:
    """A task family, its tasks to train on, and those that are kept for evaluation."""

    family: TaskFamily
    train: Sequence[Task]
    held_out: Sequence[Task]


@frozen(kw_only=True)
class Environments:
    """Those of an experiment, resolved once: its own, and by name the others that it is judged in as well."""

    own: Environment
    others: Mapping[str, Environment]


def resolve_environments(spec: ExperimentSpec) -> Environments:
    """Return the environments of *spec*; raises as `own_environment` and `other_environments` do."""
    own = own_environment(spec)
    return Environments(own=own, others=other_environments(spec, own))


def own_environment(spec: ExperimentSpec) -> Environment:
    """Return the environment of `env` and `split`; raises SpecError for a family without optimum, or detours."""
    environment = _split(spec, spec.env.build())
    if not can_be_scored(environment.family):
        needed = "normalised returns need a family with 'optimal_returns' and 'random_returns'"
        raise SpecError([("env", f"{needed}, which {environment.family.name!r} has not both")])
    try:
        spec.data.sampler.detours.check(environment.family, environment.train[: spec.split.max_train_tasks])
    except SamplingError as error:
        raise SpecError([("data.sampler.detours", str(error))]) from None
    return environment


def other_environments(spec: ExperimentSpec, own: Environment) -> dict[str, Environment]:
    """Return the environments of `evaluate.environments` by name.

    Their held-out tasks are those of *own*, by id, where all of these exist there too; else those of the same split of
    their own tasks, without any that may be trained on. Raises SpecError with everything that is wrong with any.
    """
    environments, problems = {}, []
    for name, changes in spec.evaluate.environments.items():
        try:
            environments[name] = _other(spec, own, changes)
        except SpecError as error:
            problems += [
                (f"evaluate.environments.{name}{path and '.'}{path}", problem) for path, problem in error.problems
            ]
        except ValueError as error:  # of the family: such settings, or such a split of them, cannot be
            problems.append((f"evaluate.environments.{name}", str(error)))
    if problems:
        raise SpecError(problems)
    return environments


def _other(spec: ExperimentSpec, own: Environment, changes: Json) -> Environment:
    environment = _split(spec, structure({**unstructure(spec.env), **changes}, type(spec.env)).build())
    if environment.family.spaces != own.family.spaces:
        differ = f"{environment.family.spaces}, not {own.family.spaces}"
        raise SpecError([("", f"an agent plays only where spaces are those of its env: {differ}")])
    try:
        held_out: Sequence[Task] = [environment.family.task(task.task_id) for task in own.held_out]
    except LookupError:
        trained = {task.task_id for task in own.train}
        held_out = [task for task in environment.held_out if task.task_id not in trained]
    if not held_out:
        raise SpecError([("", "all tasks that would be held out here are trained on; change what tells tasks apart")])
    return Environment(family=environment.family, train=environment.train, held_out=held_out)


def _split(spec: ExperimentSpec, family: TaskFamily) -> Environment:
    split = family.split(seed=spec.split.seed, held_out_frac=spec.split.held_out_frac)
    return Environment(family=family, train=split.train, held_out=split.held_out[: spec.split.max_held_out_tasks])
