"""What an experiment needs of the machine's memory, estimated from its spec alone, before any work begins."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from attrs import frozen
from cccad_core.errors import SpecError
from cccad_core.footprint import in_words, memory_bytes, outline
from cccad_core.memory.base import Memory
from cccad_core.policy import Policy
from cccad_core.spaces import Spaces
from cccad_data.family import TaskFamily

from cccad_train.experiment import AgentSpec, ExperimentSpec
from cccad_train.fit.spec import FitSpec

FLOATS_PER_SLOT = 20
"""Kept for the gradient per slot, layer and feature; 25 to 45 were measured, so that nothing which fits is refused."""


@frozen
class Need:
    """Memory that one piece of work takes at least, and the settings that it grows with."""

    num_bytes: float
    what: str
    settings: str


def refuse_too_large(spec: ExperimentSpec, family: TaskFamily, num_held_out: int) -> None:
    """Raise SpecError, with all estimates that are above the memory there is, by the settings that they grow with."""
    there, problems, memories = _memory_there(), [], []
    for name, agent in spec.described().items():
        where = "" if name == spec.agent else f"controls.{name}."
        try:
            policy, weights = outline(agent.policy, Spaces.from_dict(family.spaces))
            needs = list(_training(agent, policy, weights))
            memories.append(policy.memory)
        except ValueError as error:  # too large, or sizes that do not fit one another
            problems.append((f"{where}policy", str(error)))
            continue
        problems += [(f"{where}{need.settings}", _sentence(need, there)) for need in needs if need.num_bytes > there]
    others = [*_collecting(spec, family), *_playing(spec, memories, num_held_out)]
    problems += [(need.settings, _sentence(need, memory_bytes())) for need in others if need.num_bytes > memory_bytes()]
    if problems:
        raise SpecError(problems)


def _sentence(need: Need, there: int) -> str:
    return f"{need.what} needs at least about {in_words(need.num_bytes)} of memory; there are {in_words(there)}"


def _memory_there() -> int:
    """Return the larger of the memories that training may happen in."""
    on_device = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
    return max(memory_bytes(), on_device)


def _training(agent: AgentSpec, policy: Policy, weights: int) -> Iterator[Need]:
    """Yield *weights*, in bytes, with gradients and moments, and the activations of one update of each stage."""
    yield Need(4 * weights, "training a policy of this size", "policy")
    for place, fit in (("pretrain", agent.pretrain), ("train", agent.train)):
        if fit is not None:
            batch = _batch(policy, fit)
            yield Need(batch + 4 * weights, "one update", f"{place}.targets_per_update, {place}.num_writes")


def _batch(policy: Policy, fit: FitSpec) -> float:
    length = policy.memory.length_of(fit.num_writes)
    size = max(1, round(fit.targets_per_update / length))
    decisions, features = size * length, policy.spaces.observation.num_features
    per_slot = FLOATS_PER_SLOT * policy.spec.width * policy.memory.num_layers * policy.layout.slots
    num_logits: int = sum(getattr(policy.spaces.action, "sizes", (1,)))
    return float(4 * decisions * (per_slot + 4 * features + num_logits))


def _collecting(spec: ExperimentSpec, family: TaskFamily) -> Iterator[Need]:
    """Yield the arrays of one unit, which are written together."""
    source = spec.data.source
    if spec.data.path is None and source is not None:
        spaces = Spaces.from_dict(family.spaces)
        rows = source.num_envs * min(source.tasks_per_unit, len(family.tasks))
        per_env_step = spaces.observation.num_features + spaces.action.num_features + 6
        yield Need(
            float(rows * source.env_steps * per_env_step),
            "one unit of collection",
            "data.source: num_envs, env_steps, tasks_per_unit",
        )


def _playing(spec: ExperimentSpec, memories: list[Memory[Any]], num_held_out: int) -> Iterator[Need]:
    """Yield the memories of lives that are played together, and their returns."""
    rows = spec.evaluate.num_replicas * num_held_out
    for memory in memories:
        held = 4 * spec.evaluate.num_episodes
        with suppress(RuntimeError):  # of a memory that looks at its own numbers, which are not there yet
            held += memory.state_bytes
        yield Need(float(rows * held), "playing the held-out tasks", "evaluate: num_replicas, num_episodes")
