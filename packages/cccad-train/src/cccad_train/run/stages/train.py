"""The stages `pretrain` and `train`: one agent's weights, fitted here or taken from a run that did the same."""

import shutil

from cccad_core.policy import Policy
from cccad_core.spaces import Spaces

from cccad_train.console import say, warn
from cccad_train.experiment import AgentSpec
from cccad_train.files import Json, RunFileError
from cccad_train.fit import checkpoints
from cccad_train.launch import as_main
from cccad_train.run.folder import RunFolder
from cccad_train.run.graph import Stage
from cccad_train.run.progress import UnfinishedRunError
from cccad_train.run.run import Run
from cccad_train.run.stages.fitting import Fit
from cccad_train.run.stages.metrics import Metrics

SHARED = ("layout", "backbone", "head")
"""What a warm start takes from another agent; the compressor stays an agent's own."""


def do_fit(run: Run, stage: Stage) -> None:
    """Train one agent, or take that from another run which did it on the same inputs.

    Training begins with the weights of an earlier stage, where the stage names one.
    """
    if run.is_done(stage, is_whole=lambda: _outcome(run, run.folder, stage) is not None):
        return
    twin = None if stage.inputs is None else run.folder.sibling_with(stage.name, stage.inputs)
    twin = as_main(twin if twin is not None and _is_worth_taking(run, twin, stage) else None)
    if twin is None:
        agent = _agent(run, stage)
        policy = _fresh(run, agent)
        named = agent.fit(stage.kind).objective.agents
        others = {place: load_weights(run, run.graph.stage("train", name)) for place, name in named.items()}
        if stage.weights_from is not None:
            load_into(policy, run, stage)
        sampler = run.spec.data.sampler.build(run.histories, run.spec.seed, run.family)
        Fit(run.folder, run.accelerator, stage).run(policy, agent, sampler, others)
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


def _outcome(run: Run, folder: RunFolder, stage: Stage) -> Json | None:
    """Return the state at the end of *stage* as it lies in *folder*, or None: it is missing, damaged or another's."""
    agent = _agent(run, stage)
    fit = checkpoints.fitting(_fresh(run, agent).state_dict())
    state = checkpoints.load_latest(folder.checkpoints(stage.name), fit, warn if run.is_main else lambda _: None)
    if state is None or state["inputs"] != stage.inputs:
        return None
    return state if state["progress"]["update"] == agent.fit(stage.kind).num_updates else None


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


def _weights(run: Run, stage: Stage) -> Json:
    """Return the weights at the end of *stage*; raises UnfinishedRunError when it is not finished, or damaged."""
    is_done = run.folder.has_done(stage.name, stage.inputs)
    state = _outcome(run, run.folder, stage) if is_done else None
    if state is None:
        cause = "its checkpoint is damaged; run" if is_done else "run"
        raise UnfinishedRunError(
            f"'{stage.name}' is not done in {run.folder.path}; {cause} it first, or without '--only'"
        )
    weights: Json = state["policy"]
    return weights
