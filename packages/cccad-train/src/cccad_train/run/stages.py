"""collect -> pretrain -> train -> evaluate -> report: each stage a function, done once for the same inputs."""

import errno
import math
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from cccad_core.artefact import load_artefact_spec, load_policy, save_policy
from cccad_core.policy import Policy
from cccad_core.spaces import Spaces
from cccad_core.specs import unstructure
from cccad_data import collect
from cccad_data.audit import refuse_faulty
from safetensors import SafetensorError

from cccad_train.console import Meter, say, warn
from cccad_train.experiment import AgentSpec
from cccad_train.files import RunFileError, write_json
from cccad_train.fit import checkpoints
from cccad_train.launch import as_main
from cccad_train.report.page import summary_table, write_report
from cccad_train.report.runs import read_run
from cccad_train.run import progress
from cccad_train.run.cards import data_card, describe_agent, describe_sliding, label, model_card, num_parameters
from cccad_train.run.evaluation import Evaluation, refuse_leaks
from cccad_train.run.folder import RunFolder
from cccad_train.run.given import content_of_policy, open_given
from cccad_train.run.graph import Stage
from cccad_train.run.metrics import Metrics
from cccad_train.run.progress import UnfinishedRunError
from cccad_train.run.run import Run
from cccad_train.run.training import Fit
from cccad_train.run.worlds import World, other_worlds

SHARED = ("layout", "backbone", "head")
"""What a warm start takes from another agent; the compressor stays an agent's own."""


def do_collect(run: Run, stage: Stage) -> None:
    """Collect the learning histories of the training tasks, or find them collected, or given."""
    if run.is_main:
        is_new = not run.folder.has_done(stage.name, stage.inputs)
        if is_new:
            run.folder.keep("histories", None)
        if run.spec.data.path is not None:
            say(f"collect: {open_given(run.spec, lazy=True)[1]}")
        elif progress.is_collected(run.dataset):
            say(f"collect: found in {run.dataset}")
        else:
            _collect(run)
        _ = run.histories  # refused here if they are not those that the run began with
        if run.spec.data.path is not None and is_new:
            refuse_faulty(run.histories, run.family, str(run.spec.data.path))
        run.folder.finish(stage.name, stage.inputs)
    run.accelerator.wait_for_everyone()


def _collect(run: Run) -> None:
    data, split = run.spec.data, run.spec.split
    with Meter("collect", 0, "env steps") as meter:
        collect(
            run.family,
            data.source.build(),
            data.executor.build(),
            out=run.dataset,
            split={"seed": split.seed, "held_out_frac": split.held_out_frac},
            max_tasks=split.max_train_tasks,
            seed=data.seed,
            progress=lambda done, total: meter.show(done, total=total),
        )


def do_fit(run: Run, stage: Stage) -> None:
    """Train one agent, on reconstruction or imitation, or take that from another run which did it on the same inputs.

    Training begins with the weights of an earlier stage, where the stage names one.
    """
    if run.is_done(stage, is_whole=lambda: _outcome(run, run.folder, stage) is not None):
        return
    twin = None if stage.inputs is None else run.folder.sibling_with(stage.name, stage.inputs)
    twin = as_main(twin if twin is not None and _is_worth_taking(run, twin, stage) else None)
    if twin is None:
        agent = _agent(run, stage)
        policy, lessons = _fresh(run, agent), agent.train.teacher
        teacher = None
        if lessons is not None and stage.kind == "train":
            teacher = load_weights(run, run.graph.stage("train", lessons.agent))
        if stage.weights_from is not None:
            load_into(policy, run, stage)
        sampler = run.spec.data.sampler.build(run.histories, run.spec.seed, run.family)
        Fit(run.folder, run.accelerator, stage).run(policy, agent, sampler, teacher)
    elif run.is_main:
        _take(run, stage, twin)
    if run.is_main:
        run.folder.finish(stage.name, stage.inputs)
    run.accelerator.wait_for_everyone()


def _agent(run: Run, stage: Stage) -> AgentSpec:
    """Return the spec of the agent that *stage* trains."""
    assert stage.agent is not None
    return run.spec.agents()[stage.agent]


def _fresh(run: Run, agent: AgentSpec) -> Policy:
    return agent.policy.build(Spaces.from_dict(run.family.spaces), run.spec.seed)


def _take(run: Run, stage: Stage, twin: RunFolder) -> None:
    """Copy what *twin* has of *stage*: checkpoints, which appear whole or not at all, and metrics."""
    place = run.folder.checkpoints(stage.name)
    partial = place.with_name(f".{place.name}.partial")
    for folder in (place, partial):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(twin.checkpoints(stage.name), partial, symlinks=True)
    partial.rename(place)
    metrics = Metrics(run.folder.path, stage.name, 0)
    metrics.adopt(twin.metrics(stage.name))
    metrics.close()
    say(f"{stage.name}: taken from {twin.path}, where it was done on the same inputs")


def _outcome(run: Run, folder: RunFolder, stage: Stage) -> dict[str, Any] | None:
    """Return the state at the end of *stage* as it lies in *folder*, or None: it is missing, damaged or another's."""
    agent = _agent(run, stage)
    fit = checkpoints.fitting(_fresh(run, agent).state_dict())
    state = checkpoints.load_latest(folder.checkpoints(stage.name), fit, warn if run.is_main else lambda _: None)
    if state is None or state["inputs"] != stage.inputs:
        return None
    return state if state["progress"]["update"] == getattr(agent, stage.kind).num_updates else None


def _is_worth_taking(run: Run, twin: RunFolder, stage: Stage) -> bool:
    """Say whether what *twin* has of *stage* can be read; a bad neighbour harms nobody."""
    try:
        twin.metrics(stage.name)
    except RunFileError as error:
        if run.is_main:
            warn(f"{error}; '{stage.name}' is not taken from there")
        return False
    return _outcome(run, twin, stage) is not None


def load_weights(run: Run, stage: Stage) -> Policy:
    """Return the policy that *stage* made; raises as `_weights` does."""
    policy = _fresh(run, _agent(run, stage))
    policy.load_state_dict(_weights(run, stage))
    return policy


def load_into(policy: Policy, run: Run, stage: Stage) -> None:
    """Load into *policy* the weights that *stage* begins with: all, or those that agents share; see `_weights`."""
    assert stage.weights_from is not None
    weights = _weights(run, stage.weights_from)
    if stage.weights_from.agent != stage.agent:  # a compressor is an agent's own
        weights = {name: value for name, value in weights.items() if name.split(".")[0] in SHARED}
    policy.load_state_dict({**policy.state_dict(), **weights})


def _weights(run: Run, stage: Stage) -> dict[str, Any]:
    """Return the weights at the end of *stage*; raises UnfinishedRunError when it is not finished, or damaged."""
    is_done = run.folder.has_done(stage.name, stage.inputs)
    state = _outcome(run, run.folder, stage) if is_done else None
    if state is None:
        cause = "its checkpoint is damaged; run" if is_done else "run"
        raise UnfinishedRunError(
            f"'{stage.name}' is not done in {run.folder.path}; {cause} it first, or without '--only'"
        )
    weights: dict[str, Any] = state["policy"]
    return weights


def do_evaluate(run: Run, stage: Stage) -> None:
    """Release every trained policy, then play the held-out tasks with all agents and controls."""
    if run.is_done(stage):
        return
    if run.is_main:
        for name in run.spec.agents():
            _release(run, name)
        evaluate(run)
    run.accelerator.wait_for_everyone()


def _release(run: Run, name: str) -> None:
    """Write the release artefact of a trained agent, whole or not at all."""
    histories = run.histories  # before anything is written: a leak is refused here
    policy = load_weights(run, run.graph.stage("train", name))
    place = run.folder.artefact(name, run.spec)
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    card = model_card(run.spec, name, policy, histories)
    try:
        save_policy(partial, policy, train_task_ids=histories.task_ids, card=card, plugins=run.plugins)
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
        run.folder.keep(str(place.relative_to(run.folder.path)), content_of_policy(place))
    except SafetensorError as error:  # a full disk, in the words of another language
        raise OSError(errno.EIO, f"the weights cannot be written ({error})", str(place)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def released(run: Run, name: str, agent: AgentSpec) -> Policy:
    """Return a released policy.

    Raises UnfinishedRunError when it is not there or not the one that the spec describes, LeakError when it was trained
    on a task that is held out, and ArtefactError when it is damaged.
    """
    place = run.folder.artefact(name, run.spec)
    if not (place / "spec.toml").is_file():
        raise UnfinishedRunError(f"there is no released policy in {place}; finish the run first")
    told = load_artefact_spec(place)  # the run has brought in its plugins, of which the policy has copies
    refuse_leaks(run.held_out, told.train_task_ids, f"the training of the policy in {place}")
    if told.policy != agent.policy:  # fields added since have their defaults
        raise UnfinishedRunError(f"the policy in {place} is not the one that the run's spec describes")
    policy = load_policy(place)
    if policy.spaces != Spaces.from_dict(run.family.spaces):
        raise UnfinishedRunError(f"the policy in {place} was trained for other spaces than those of {run.family.name}")
    run.folder.compare(str(place.relative_to(run.folder.path)), content_of_policy(place), f"the files in {place}")
    return policy.to(run.accelerator.device)


def evaluate(run: Run) -> None:
    """Play the held-out tasks of all worlds and write `evaluation/`.

    Raises LeakError, SpecError and RunFileError before anything is played or written.
    """
    run.folder.stages()
    counted = [
        row["writes"] for row in run.folder.metrics(run.graph.stage("train", run.spec.agent).name) if "writes" in row
    ]
    spec, agents, others = run.spec, run.spec.agents(), other_worlds(run.spec, run.world)
    earlier = _earlier(run)
    policies = {name: released(run, name, agent) for name, agent in agents.items()}
    trained_ids = load_artefact_spec(run.folder.artefact(spec.agent, spec)).train_task_ids
    for name, world in others.items():
        refuse_leaks(world.held_out, trained_ids, f"the data, in the world '{name}',")
    with_controls = spec.evaluate.memory_controls and bool(policies[spec.agent].compressor.num_latents)
    evaluation = _live(run, run.world, policies, with_controls=with_controls)
    if earlier is None:
        evaluation.source(run.histories)
    else:
        evaluation.agents["source"] = earlier["agents"]["source"]
    extra = {
        "spec_digest": spec.digest(),
        "seed": spec.seed,
        "evaluate": unstructure(spec.evaluate),
        "trained_episodes": _trained_episodes(run) if earlier is None else earlier.get("trained_episodes"),
        "training": _training_facts(run, policies[spec.agent], evaluation, counted),
        "worlds": {name: _live(run, world, policies, f" {name}").results({}) for name, world in others.items()},
    }
    write_json(run.folder.results, evaluation.results(extra), indent=None)
    if earlier is None:
        write_json(run.folder.path / "evaluation" / "data_card.json", data_card(run.histories))
    stage = run.graph.stage("evaluate")
    run.folder.finish(stage.name, stage.inputs)


def _earlier(run: Run) -> dict[str, Any] | None:
    """Return earlier results that tell of the histories where these are not there themselves; None where they are.

    Raises UnfinishedRunError where there is neither.
    """
    if run.has_histories or not run.folder.results.exists():
        _ = run.histories  # refused before anything is played, if they are not those of this run
        return None
    results = read_run(run.folder.path).results
    if "source" not in results["agents"]:
        raise UnfinishedRunError(f"there are no histories in {run.dataset}, and no earlier results tell of them")
    say(f"evaluate: there are no histories in {run.dataset}; what is said of them is taken from the earlier results")
    return results


def _live(
    run: Run, world: World, policies: dict[str, Policy], where: str = "", *, with_controls: bool = False
) -> Evaluation:
    """Let all policies live in one world, and its references; return what they did."""
    spec = run.spec
    with Meter(f"evaluate{where}", 0, "episodes") as meter:
        evaluation = Evaluation(world.family, world.held_out, spec.evaluate, meter)
        others = [*spec.evaluate.sliding, *evaluation.rules(evaluation.worlds())]
        meter.total = spec.evaluate.num_episodes * (len(policies) + len(others) + 2 * with_controls)
        for name, policy in policies.items():
            role = "agent" if name == spec.agent else "control"
            agent = spec.agents()[name]
            evaluation.add(name, label(name, agent), role, describe_agent(agent), evaluation.live(policy))
            evaluation.agents[name]["num_weights"] = num_parameters(policy)
            if name in spec.evaluate.sliding:
                evaluation.live_sliding(name, describe_sliding(agent), policy)
            if name == spec.agent and with_controls:
                evaluation.live_without_memory(name, name, policy)
        evaluation.references()
    return evaluation


def _trained_episodes(run: Run) -> float:
    """Return how many episodes the longest history has, if all are as long as they may be."""
    longest = max(len(task.rewards) // task.num_histories for task in run.histories)
    return longest / float(run.family.horizon)


def _training_facts(run: Run, policy: Policy, evaluation: Evaluation, counted: Sequence[float]) -> dict[str, Any]:
    """Return how long trained stretches were, and how often was written in them (*counted*) and in lives so long."""
    train = run.spec.train
    length = policy.context.length_of(train.curriculum.build().num_writes(train.num_updates - 1, train.num_writes))
    facts: dict[str, Any] = {"stretch_env_steps": length}
    if counted and math.isfinite(counted[-1]):
        facts["writes_per_history"] = counted[-1]
    if run.spec.evaluate.num_episodes * run.family.horizon >= length:  # else no life is as long as a stretch
        lives = evaluation.agents[run.spec.agent]["compressions"]
        facts["evaluation_writes_at_same_length"] = max(sum(at < length for at in life) for life in lives)
    return facts


def do_report(run: Run, _: Stage) -> None:
    """Write `report.html` and print where it lies, and the table of results."""
    if run.is_main:
        page = write_report(run.folder.path)
        say(f"{summary_table(read_run(run.folder.path).results)}\nreport: {page}")


STAGES: dict[str, Callable[[Run, Stage], None]] = {
    "collect": do_collect,
    "pretrain": do_fit,
    "train": do_fit,
    "evaluate": do_evaluate,
    "report": do_report,
}
"""Who does the stages, by kind."""
