"""The laws of a memory: those of policies that remember with it, and a state that is explicit, bounded and as declared.

    from cccad_core.laws.memory import check_memory
    check_memory(MyMemorySpec())

The spec must be registered, since a released policy must find it again.
"""

from typing import Any

import torch
from torch import Tensor

from cccad_core.agent import Agent, AgentState
from cccad_core.batch import HistoryBatch
from cccad_core.laws.law import require, same
from cccad_core.laws.noise import SPACES, WIDTH, random_batch
from cccad_core.laws.policy import check_policy, live_on, relive
from cccad_core.layouts import FusedSpec, TransitionSpec, TripleSpec
from cccad_core.memory.base import Memory, MemoryState
from cccad_core.policy import Policy, PolicySpec
from cccad_core.spaces import Spaces

LAYOUTS = (FusedSpec(), TransitionSpec(), TripleSpec())


def check_memory(spec: Any, *, width: int = WIDTH, spaces: Spaces = SPACES) -> None:
    """Check every law for a memory *spec*, within policies of every token layout; raises LawBroken."""
    law = "a memory is whole"
    require(law, hasattr(spec, "check"), "its spec has no check()")
    for tokens in LAYOUTS:
        policy_spec = PolicySpec(tokens=tokens, memory=spec, width=width)
        policy = policy_spec.build(spaces, seed=1).eval()
        is_memory = isinstance(policy.memory, Memory)
        require(law, is_memory, f"build() returns {type(policy.memory).__name__}, which is no Memory")
        _check_lengths(policy.memory)
        batch = random_batch(spaces, size=3, length=2 * policy.memory.length_of(2), seed=2)
        _check_whole(policy.memory)
        _check_bounded(policy, batch)
        _check_explicit(policy, batch)
        _check_learning(policy, batch)
        check_policy(policy_spec, spaces=spaces)


def _check_lengths(memory: Memory[Any]) -> None:
    """Stretches have decisions, and more of them the more writes are asked for."""
    lengths = [memory.length_of(num_writes) for num_writes in (0, 0.5, 1, 2, 3)]
    grow = lengths[0] >= 1 and lengths == sorted(lengths) and lengths[0] < lengths[-1]
    require("stretches grow with the writes asked for", grow, f"length_of() of 0, 0.5, 1, 2, 3 is {lengths}")


@torch.no_grad()
def _check_whole(memory: Memory[Any]) -> None:
    """What a life holds at birth is a state of tensors with one row for each life, finite, as large as declared."""
    law, state = "a memory is whole", memory.begin(3)
    require(law, isinstance(state, MemoryState), f"begin() returns {type(state).__name__}, which is no MemoryState")
    for name, value in state.tensors().items():
        require(law, value.shape[:1] == (3,), f"'{name}' of 3 lives has shape {tuple(value.shape)}; rows come first")
    _check_bytes(memory, state, "at birth")


def _check_bytes(memory: Memory[Any], state: MemoryState, when: str) -> None:
    held, declared = state.num_bytes / len(state.num_writes), memory.state_bytes
    require("bytes are as declared", held == declared, f"a life holds {held:g} bytes {when}, {declared} are declared")


def _check_explicit(policy: Policy, batch: HistoryBatch) -> None:
    """Lives that share a memory, but no state, do not influence one another."""
    agent, other = Agent(policy), batch.rows(torch.tensor([2, 0]))
    alone, _ = relive(agent, batch)
    state, beside, parameters = agent.begin(batch.size), agent.begin(2), []
    for t in range(batch.length):
        parameters.append(live_on(agent, state, batch, t))
        live_on(agent, beside, other, t)
    same("explicit state", torch.stack(parameters, 1), alone, "decisions of lives alone and beside others", 0)


def _check_bounded(policy: Policy, batch: HistoryBatch) -> None:
    """A life's values stay finite, and where its memory is bounded, neither they nor its bytes grow with its age."""
    law, agent, largest = "bounded state", Agent(policy), []
    state = agent.begin(batch.size)
    for _ in range(4):
        for t in range(batch.length):
            live_on(agent, state, batch, t)
        largest.append(_largest(state))
        is_finite = largest[-1] < float("inf")
        require("finite values", is_finite, f"after {int(state.num_decisions[0])} decisions some are no numbers")
    if policy.memory.is_bounded:
        _check_bytes(policy.memory, state.memory, f"after {int(state.num_decisions[0])} decisions")
        what = f"values reach {largest[3]:.3g} after {4 * batch.length} decisions, from {largest[0]:.3g}"
        require(law, largest[3] <= max(30.0, 2 * largest[0]), what)


def _largest(state: AgentState) -> float:
    """Return the largest magnitude that a memory holds, infinite if one is no number; counters are exempt."""
    values = [value for value in state.memory.tensors().values() if value.is_floating_point() and value.numel()]
    return max((float(_magnitude(value)) for value in values), default=0.0)


def _magnitude(value: Tensor) -> Tensor:
    return value.abs().nan_to_num(nan=torch.inf, posinf=torch.inf).max()


def _check_learning(policy: Policy, batch: HistoryBatch) -> None:
    """Every weight of the memory learns from the decisions."""
    policy.zero_grad()
    policy(batch).ask(policy.head).square().mean().backward()
    weights = policy.memory.named_parameters()
    dead = [name for name, weight in weights if weight.grad is None or not bool(weight.grad.any())]
    require("every weight learns", not dead, f"no gradient reaches {', '.join(dead)}")
