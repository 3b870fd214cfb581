"""The stages `pretrain` and `train`: one agent's weights, fitted here or taken from a run that did the same."""

import shutil
from collections.abc import Mapping

from cccad_core.policy import Policy
from torch import Tensor

from cccad_train.console import say, warn
from cccad_train.files import RunFileError
from cccad_train.launch import as_main
from cccad_train.run.folder import RunFolder
from cccad_train.run.graph import Stage
from cccad_train.run.run import Run
from cccad_train.run.stages.fitting import Fit, shared
from cccad_train.run.stages.metrics import Metrics


def do_fit(run: Run, stage: Stage) -> None:
    """Train one agent, or take that from another run which did it on the same inputs.

    Training begins with the weights of an earlier stage, where the stage names one.
    """
    if run.is_done(stage, is_whole=lambda: run.outcome(stage, run.folder) is not None):
        return
    twin = None if stage.inputs is None else run.folder.sibling_with(stage.name, stage.inputs)
    twin = as_main(twin if twin is not None and _is_worth_taking(run, twin, stage) else None)
    if twin is None:
        agent, policy = run.graph.agent_of(stage), run.fresh_policy(stage)
        named = agent.fit(stage.kind).objective.agents
        others = {place: run.trained_policy(name) for place, name in named.items()}
        if stage.weights_from is not None:
            _begin_with(policy, run.weights(stage.weights_from), is_own=stage.weights_from.agent == stage.agent)
        sampler = run.spec.data.sampler.build(run.histories, run.spec.seed, run.family)
        Fit(run.folder, run.accelerator, stage).run(policy, agent, sampler, others)
    elif run.is_main:
        _take(run, stage, twin)
    if run.is_main:
        run.folder.finish(stage.name, stage.inputs)
    run.accelerator.wait_for_everyone()


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


def _is_worth_taking(run: Run, twin: RunFolder, stage: Stage) -> bool:
    """Say whether what *twin* has of *stage* can be read; a bad neighbour harms nobody."""
    try:
        twin.metrics(stage.name)
    except RunFileError as error:
        if run.is_main:
            warn(f"{error}; '{stage.name}' is not taken from there")
        return False
    return run.outcome(stage, twin) is not None


def _begin_with(policy: Policy, weights: Mapping[str, Tensor], *, is_own: bool) -> None:
    """Load *weights* into *policy*: all of its own, and of another agent's those that agents share."""
    own, taken = policy.state_dict(), weights
    if not is_own:  # what writes its memory is an agent's own
        taken = {name: value for name, value in weights.items() if name in own and name.startswith(shared(policy))}
    policy.load_state_dict({**own, **taken})
