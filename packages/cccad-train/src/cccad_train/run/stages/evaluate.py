"""The stage `evaluate`: every agent plays the held-out tasks, in its own environments and in others."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve
from cccad_core.memory.compressed import Compressed
from cccad_core.policy import Policy
from cccad_data.families.scale import Scale, reached_by, reached_on_average
from cccad_data.family import NeedsReference

from cccad_train.console import Meter, say
from cccad_train.experiment import recorded
from cccad_train.files import Json, write_json
from cccad_train.report.runs import read_run
from cccad_train.run.environments import Environment, refuse_leaks
from cccad_train.run.graph import Stage
from cccad_train.run.progress import UnfinishedRunError
from cccad_train.run.run import Run
from cccad_train.run.stages.cards import data_card, describe_agent, describe_sliding, label, num_parameters
from cccad_train.run.stages.held_out import Evaluation

_REFERENCE_LIVES = 4  # of the source, on each held-out task


def do_evaluate(run: Run, stage: Stage) -> None:
    """Play the held-out tasks with all agents, as they were trained, and all controls."""
    if run.is_done(stage):
        return
    if run.is_main:
        policies = {name: run.trained_policy(name).eval().requires_grad_(False) for name in run.graph.agents}
        on_device = {name: policy.to(run.accelerator.device) for name, policy in policies.items()}
        evaluate(run, on_device, run.histories.task_ids)
    run.accelerator.wait_for_everyone()


def evaluate(run: Run, policies: Mapping[str, Policy], trained_ids: Sequence[str]) -> None:
    """Play the held-out tasks of all environments and write `evaluation/`; *trained_ids* are the tasks of the training.

    Raises LeakError, SpecError and RunFileError before anything is played or written.
    """
    run.folder.stages()
    spec, others = run.spec, run.environments.others
    trained = run.graph.stage("train", spec.agent)
    counted = [row["writes"] for row in run.folder.metrics(trained.name) if "writes" in row]
    earlier = _earlier(run)
    for name, environment in others.items():
        refuse_leaks(environment.held_out, trained_ids, f"the data, in the environment '{name}',")
    with_controls = spec.evaluate.memory_controls and _has_latents(policies[spec.agent])
    evaluation = _live(run, run.environments.own, policies, with_controls=with_controls)
    if earlier is None:
        evaluation.source(run.histories)
    else:
        evaluation.agents["source"] = earlier["agents"]["source"]
    extra = {
        "spec_digest": run.graph.digest,
        "seed": spec.seed,
        "evaluate": recorded(run.graph.plain["evaluate"]),
        "trained_episodes": _trained_episodes(run) if earlier is None else earlier.get("trained_episodes"),
        "training": _training_facts(run, policies[spec.agent], evaluation, counted),
        "worlds": {
            name: _live(run, environment, policies, f" {name}").results({}) for name, environment in others.items()
        },
    }
    write_json(run.folder.results, evaluation.results(extra), indent=None)
    if earlier is None:
        write_json(run.folder.path / "evaluation" / "data_card.json", data_card(run.histories))
    stage = run.graph.stage("evaluate")
    run.folder.finish(stage.name, stage.inputs)


def _has_latents(policy: Policy) -> bool:
    return isinstance(policy.memory, Compressed) and policy.spec.num_latents > 0


def _earlier(run: Run) -> Json | None:
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
    run: Run, environment: Environment, policies: Mapping[str, Policy], where: str = "", *, with_controls: bool = False
) -> Evaluation:
    """Let all policies live in one environment, and its references; return what they did."""
    spec, scale = run.spec, _scale(run, environment)
    with Meter(f"evaluate{where}", 0, "episodes") as meter:
        evaluation = Evaluation(environment.family, environment.held_out, spec.evaluate, meter, scale)
        others = [*spec.evaluate.sliding, *evaluation.rules(evaluation.environments())]
        meter.total = spec.evaluate.num_episodes * (len(policies) + len(others) + 2 * with_controls)
        for name, policy in policies.items():
            agent = run.graph.agents[name]
            role = "agent" if name == spec.agent else "blind" if agent.policy.is_blind else "control"
            evaluation.add(name, label(name, agent), role, describe_agent(agent), evaluation.live(policy))
            evaluation.agents[name]["num_weights"] = num_parameters(policy)
            if name in spec.evaluate.sliding:
                evaluation.live_sliding(name, describe_sliding(agent), policy)
            if name == spec.agent and with_controls:
                evaluation.live_without_memory(name, name, policy)
        evaluation.references()
    return evaluation


def _scale(run: Run, environment: Environment) -> Scale:
    """Return what returns in *environment* are measured by.

    Where nobody knows the optimum it is what the source reaches on the very same tasks, in a few lives that nothing is
    trained on; without a source, what the histories reach on theirs.
    """
    family, tasks, source, references = environment.family, environment.held_out, run.spec.data.source, []
    if isinstance(family, NeedsReference) and source is not None:
        say(f"evaluate: {len(tasks)} held-out tasks are played by the source, for a reference")
        few: Any = evolve(source, num_envs=min(source.num_envs, _REFERENCE_LIVES))
        references = reached_by(few.build(), family, tasks, seed=run.spec.data.seed)
    elif isinstance(family, NeedsReference):
        references = [reached_on_average(run.histories)] * len(tasks)
    return Scale.of(family, tasks, references)


def _trained_episodes(run: Run) -> float:
    """Return how many episodes the longest history has, if all are as long as they may be."""
    longest = max(len(task.rewards) // task.num_histories for task in run.histories)
    return longest / float(run.family.horizon)


def _training_facts(run: Run, policy: Policy, evaluation: Evaluation, counted: Sequence[float]) -> Json:
    """Return how long trained stretches were, and how often was written in them (*counted*) and in lives so long."""
    train = run.spec.train
    length = policy.memory.length_of(train.curriculum.build().num_writes(train.num_updates - 1, train.num_writes))
    facts: Json = {"stretch_env_steps": length}
    if counted and math.isfinite(counted[-1]):
        facts["writes_per_history"] = counted[-1]
    if run.spec.evaluate.num_episodes * run.family.horizon >= length:  # else no life is as long as a stretch
        lives = evaluation.agents[run.spec.agent]["compressions"]
        facts["evaluation_writes_at_same_length"] = max(sum(at < length for at in life) for life in lives)
    return facts
