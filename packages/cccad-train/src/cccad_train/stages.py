"""collect -> pretrain -> train -> evaluate -> report: each stage a function, done once for the same inputs."""

import json
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from attrs import frozen
from cccad_core.artefact import save_policy
from cccad_core.policy import Policy
from cccad_core.spaces import Spaces
from cccad_core.registry import distributions
from cccad_core.specs import digest, parts, unstructure
from cccad_data import Histories, collect

from cccad_train import checkpoints
from cccad_train.cards import data_card, describe_agent, model_card
from cccad_train.console import Meter, say
from cccad_train.evaluation import Evaluation, refuse_leaks
from cccad_train.experiment import AgentSpec, ExperimentSpec
from cccad_train.fitting import Fit
from cccad_train.folder import RunFolder, read_json, write_text
from cccad_train.report import summary_table, write_report


@frozen(kw_only=True, slots=False)
class Run:
    """An experiment on its way: what is wanted, where it goes, and the devices that do it."""

    spec: ExperimentSpec
    folder: RunFolder
    accelerator: Accelerator
    plugins: tuple[Path, ...] = ()

    @cached_property
    def family(self) -> Any:
        """The task family of the spec."""
        return self.spec.env.build()

    @cached_property
    def histories(self) -> Histories:
        """The collected histories, in memory; raises HistoryFileError when the collection is not whole."""
        return Histories.open(self.dataset)

    @property
    def dataset(self) -> Path:
        """The folder of the histories."""
        return self.folder.data / f"{self.family.name}-{self.inputs('collect')}"

    @property
    def is_main(self) -> bool:
        """Say whether this process is the one that writes and speaks."""
        return bool(self.accelerator.is_main_process)

    def inputs(self, stage: str) -> str:
        """Return a digest of all that the outcome of *stage* depends on; it includes the stages before it."""
        spec, plain = self.spec, unstructure(self.spec)
        if stage == "collect":
            return digest({"data": [plain["env"], plain["split"], plain["data"]["source"], plain["data"]["seed"]]})
        if stage == "evaluate":
            agents = [self.inputs(f"train-{name}") for name in spec.agents()]
            return digest({"agents": agents, "names": list(spec.agents()), "evaluate": plain["evaluate"]})
        kind, name = stage.split("-", 1)
        agent = spec.agents()[name]
        before = self.inputs("collect")
        if kind == "train" and agent.pretrain is not None:
            before = self.inputs(f"pretrain-{name}")
        own = unstructure(getattr(agent, kind))
        sampler = plain["data"].get("sampler", {})
        suppliers = distributions(sorted(parts(agent.policy)))
        policy = unstructure(agent.policy)
        return digest({"before": before, "policy": policy, "by": suppliers, "own": own, "s": [sampler, spec.seed]})


def do_collect(run: Run) -> None:
    """Collect the learning histories of the training tasks, or find them collected."""
    data, split = run.spec.data, run.spec.split
    if run.is_main:
        with Meter("collect", 1, "env steps") as meter:

            def show(done: int, total: int) -> None:
                meter.total = total
                if meter.bar is not None:
                    meter.bar.total = total
                meter.show(done)

            collect(
                run.family,
                data.source.build(),
                data.executor.build(),
                out=run.dataset,
                split={"seed": split.seed, "held_out_frac": split.held_out_frac},
                max_tasks=split.max_train_tasks,
                seed=data.seed,
                progress=show,
            )
        run.folder.finish("collect", run.inputs("collect"))
    run.accelerator.wait_for_everyone()


def do_pretrain(run: Run) -> None:
    """Train every agent's compressor that asks for it, on reconstruction alone."""
    for name, agent in run.spec.agents().items():
        if agent.pretrain is not None:
            _fit(run, f"pretrain-{name}", agent, initial=None)


def do_train(run: Run) -> None:
    """Train every agent on imitation, from its pre-trained weights where it has them."""
    for name, agent in run.spec.agents().items():
        before = f"pretrain-{name}" if agent.pretrain is not None else None
        _fit(run, f"train-{name}", agent, initial=before)


def _fit(run: Run, stage: str, agent: AgentSpec, initial: str | None) -> None:
    inputs, place = run.inputs(stage), run.folder.checkpoints(stage)
    if run.folder.stages().get(stage) == inputs:
        return
    twin = run.folder.sibling_with(stage, inputs)
    if twin is not None:
        if run.is_main:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(twin.checkpoints(stage), place, symlinks=True)
            run.folder.finish(stage, inputs)
            say(f"{stage}: taken from {twin.path}, where it was done on the same inputs")
        run.accelerator.wait_for_everyone()
        return
    policy = agent.policy.build(Spaces.from_dict(run.family.spaces), run.spec.seed)
    if initial is not None:
        load_weights(policy, run.folder.checkpoints(initial))
    sampler = run.spec.data.sampler.build(run.histories, run.spec.seed)
    Fit(run.folder, run.accelerator, stage, inputs).run(policy, agent, sampler)
    if run.is_main:
        run.folder.finish(stage, inputs)
    run.accelerator.wait_for_everyone()


def do_evaluate(run: Run) -> None:
    """Release every trained policy, then play the held-out tasks with all agents and controls."""
    inputs = run.inputs("evaluate")
    if run.is_main and run.folder.stages().get("evaluate") != inputs:
        policies = {name: _release(run, name, agent) for name, agent in run.spec.agents().items()}
        evaluate(run, policies)
        run.folder.finish("evaluate", inputs)
    run.accelerator.wait_for_everyone()


def do_report(run: Run) -> None:
    """Write `report.html` and print where it lies, and the table of results."""
    if run.is_main:
        page = write_report(run.folder.path)
        say(summary_table(read_json(run.folder.results)))
        say(f"report: {page}")


def _release(run: Run, name: str, agent: AgentSpec) -> Policy:
    """Write the release artefact of a trained agent, and return its policy."""
    policy = agent.policy.build(Spaces.from_dict(run.family.spaces), run.spec.seed)
    load_weights(policy, run.folder.checkpoints(f"train-{name}"))
    place = run.folder.policy if name == run.spec.agent else run.folder.path / "controls" / name / "policy"
    card = model_card(run.spec, name, policy, run.histories.task_ids)
    save_policy(place, policy, train_task_ids=run.histories.task_ids, card=card, plugins=run.plugins)
    return policy


def evaluate(run: Run, policies: dict[str, Policy]) -> None:
    """Play the held-out tasks and write `evaluation/`; raises LeakError before anything is played or written."""
    spec, family = run.spec, run.family
    split = family.split(seed=spec.split.seed, held_out_frac=spec.split.held_out_frac)
    held_out = split.held_out[: spec.split.max_held_out_tasks]
    refuse_leaks(held_out, run.histories.task_ids, f"the data in {run.dataset}")
    evaluation = Evaluation(family, held_out, spec.evaluate)
    with Meter("evaluate", spec.evaluate.num_episodes * (len(policies) + 1), "episodes") as meter:
        for index, (name, policy) in enumerate(policies.items()):
            done = index * spec.evaluate.num_episodes
            agent = spec.agents()[name]
            role = "agent" if name == spec.agent else "control"
            played = evaluation.live(policy.to(run.accelerator.device), lambda n, done=done: meter.show(done + n))
            evaluation.add(name, name, role, describe_agent(agent), played)
            if name == spec.agent and spec.evaluate.memory_controls and policy.compressor.num_latents:
                evaluation.live_without_memory(name, name, policy)
        evaluation.references()
        evaluation.source(run.histories)
        meter.show(meter.total)
    extra = {"spec_digest": spec.digest(), "seed": spec.seed, **_training_facts(run, policies[spec.agent], evaluation)}
    write_text(run.folder.results, json.dumps(evaluation.results(extra)))
    write_text(run.folder.path / "evaluation" / "data_card.json", json.dumps(data_card(run.histories), indent=2))


def _training_facts(run: Run, policy: Policy, evaluation: Evaluation) -> dict[str, Any]:
    """Return how long trained stretches were, and how often was written in them and in lives of that length."""
    train, stage = run.spec.train, f"train-{run.spec.agent}"
    length = policy.context.length_of(train.curriculum.build().num_writes(train.num_updates - 1, train.num_writes))
    counted = [row["writes"] for row in run.folder.metrics(stage)]
    lives = evaluation.agents[run.spec.agent]["compressions"]
    history_env_steps = max(len(task.rewards) // task.num_histories for task in run.histories)
    return {
        "trained_episodes": history_env_steps / run.family.horizon,
        "training": {
            "stretch_env_steps": length,
            "writes_per_history": counted[-1] if counted else 0.0,
            "evaluation_writes_at_same_length": max(sum(at < length for at in life) for life in lives),
        },
    }


def load_weights(policy: Policy, place: Path) -> None:
    """Load the newest checkpoint under *place* into *policy*."""
    state = checkpoints.load_latest(place)
    if state is None:
        raise UnfinishedRunError(f"there is no checkpoint under {place}; run this stage first, or the whole spec with --resume")
    policy.load_state_dict(state["policy"])


class UnfinishedRunError(ValueError):
    """A stage needs what an earlier one has not made yet."""


STAGES: dict[str, Callable[[Run], None]] = {
    "collect": do_collect,
    "pretrain": do_pretrain,
    "train": do_train,
    "evaluate": do_evaluate,
    "report": do_report,
}
