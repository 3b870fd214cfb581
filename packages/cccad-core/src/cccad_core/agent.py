"""An agent that lives: one decision per environment at a time, at the memory and cost of its policy's memory.

A life of the agent is the training pass taken one decision at a time, by the laws of a memory. Rows are independent
lives: each remembers, writes and is reset on its own.
"""

import math
from pathlib import Path
from typing import Any

import torch
from attrs import define
from torch import Tensor

from cccad_core.batch import HistoryBatch
from cccad_core.border import Border, as_parts, finite, refuse
from cccad_core.memory.attention import AttentionRecord
from cccad_core.memory.base import Memory, MemoryState
from cccad_core.policy import Policy
from cccad_core.spaces import Dict, Tuple, dtype_of


@define(kw_only=True)
class AgentState:
    """Where *b* lives stand. It is changed in place by `Agent.act` and `Agent.observe`.

    `memory` is the memory's own state; `last` the last transition, `b 1`, meaningful where `has_last`;
    `num_decisions`, `b`, counts over the life.
    """

    memory: MemoryState
    last: HistoryBatch
    has_last: Tensor
    num_decisions: Tensor

    @property
    def num_writes(self) -> Tensor:
        """Writes of each life, `b`."""
        return self.memory.num_writes

    @property
    def num_bytes(self) -> int:
        """Bytes that the memories of these lives hold together; they do not grow with age where memory is bounded."""
        return self.memory.num_bytes


class Agent:
    """A policy that acts. It neither freezes nor alters the policy, and what it does leaves no gradients.

    A policy acts in the mode it is in: one with a part that behaves differently in training, such as dropout, should be
    handed in as `policy.eval()`. `load` returns one that is frozen and in evaluation mode.

    Args:
        policy: what acts.
        memory: what it remembers with: its own, unless another one of the same weights is handed in, such as
            `policy.memory.sliding()` for a plain window, or, to take its latents away,
            `policy.memory.with_compressor(ZeroedLatents(policy.memory.compressor))`.
    """

    def __init__(self, policy: Policy, memory: Memory[Any] | None = None) -> None:
        self.policy = policy
        self.memory: Memory[Any] = policy.memory if memory is None else memory
        self.device = next(policy.parameters()).device
        self._border = Border(policy.spaces.observation, self.device)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu", *, trust_plugins: bool = False) -> "Agent":
        """Return the agent of a release artefact (the `policy/` folder of a run); see `artefact.load_policy`."""
        from cccad_core.artefact import load_policy  # the artefact knows the policy, not the reverse

        return cls(load_policy(path, trust_plugins=trust_plugins).to(device))

    @torch.no_grad()
    def begin(self, num_envs: int) -> AgentState:
        """Return *num_envs* lives that have seen nothing."""
        zeros = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        return AgentState(
            memory=self.memory.begin(num_envs),
            last=self._blank(num_envs),
            has_last=zeros.bool(),
            num_decisions=zeros,
        )

    @torch.no_grad()
    def reset(self, state: AgentState, rows: Tensor) -> AgentState:
        """Start the lives *rows* (indices) anew; the others stay bit-identical."""
        rows = rows.to(self.device)
        self.memory.reset(state.memory, rows)
        state.num_decisions[rows] = 0
        state.has_last[rows] = False
        return state

    @torch.no_grad()
    def act(
        self,
        state: AgentState,
        observations: Tensor | Any,
        *,
        generator: torch.Generator | None = None,
        greedy: bool = False,
        record: AttentionRecord | None = None,
    ) -> tuple[Any, AgentState]:
        """Decide in every row on *observations*, `b o`; returns actions, `b`, drawn with *generator*, and the state.

        Actions of several features are `b a`, those of parts mappings or tuples of them.

        *record*, if there is one, is overwritten with how these decisions attend, if the memory attends and is cached.

        Raises UnfitValueError where an observation is not in its space, or the policy gives no finite numbers.
        """
        parameters = self.decide(state, observations, record)
        if not math.isfinite(float(parameters.sum())):
            self._refuse_parameters(parameters, state)
        actions = self.policy.head.draw(parameters, generator, greedy=greedy)
        state.last.actions[:, 0] = actions
        space = self.policy.spaces.action
        return as_parts(space, actions) if isinstance(space, Dict | Tuple) else actions, state

    @torch.no_grad()
    def observe(
        self, state: AgentState, rewards: Any, terminations: Any, truncations: Any, next_observations: Any
    ) -> AgentState:
        """Tell what the last actions led to; *next_observations*, `b o`, are the true ones at an episode's end.

        Raises UnfitValueError where a reward is not finite or an observation not in its space.
        """
        last, before = state.last, state.num_decisions - 1
        last.rewards[:, 0] = finite(rewards, "the rewards", before, self.device)
        last.terminations[:, 0] = self._tensor(terminations)
        last.truncations[:, 0] = self._tensor(truncations)
        last.next_observations[:, 0] = self._border(next_observations, "the next observations", before)
        state.has_last.fill_(True)
        self.memory.settle(state.memory, [token[:, 0] for token in self.policy.layout.settled(last)])
        return state

    @torch.no_grad()
    def decide(self, state: AgentState, observations: Tensor | Any, record: AttentionRecord | None = None) -> Tensor:
        """Return the action distribution's parameters in every row, `b a`, having written where a write is due."""
        last = state.last
        observed = self._border(observations, "the observations", state.num_decisions)
        self.memory.prepare(state.memory, (last.terminations | last.truncations)[:, 0] & state.has_last)
        return self._answer(state, observed, record)

    def _answer(self, state: AgentState, observations: Tensor, record: AttentionRecord | None = None) -> Tensor:
        """Return the parameters that the policy gives *observations*: tensors in, tensors out, no wait for a device."""
        layout, last = self.policy.layout, state.last
        before = layout.aftermath(last, state.has_last)
        last.observations[:, 0] = observations
        token = (layout.asking(last.observations) + before)[:, 0]
        hidden = self.memory.decide(state.memory, token, is_query=layout.asks, record=record)
        state.num_decisions += 1
        parameters: Tensor = self.policy.head(hidden)[:, 0]
        return parameters

    def _blank(self, size: int) -> HistoryBatch:
        observation, action = self.policy.spaces.observation, self.policy.spaces.action
        blank = torch.zeros(size, 1, observation.num_features, dtype=getattr(torch, dtype_of(observation)))
        blank = blank.to(self.device)
        done = torch.zeros(size, 1, dtype=torch.bool, device=self.device)
        shape = (size, 1) if action.kind == "discrete" else (size, 1, action.num_features)
        return HistoryBatch(
            observations=blank,
            actions=torch.zeros(shape, dtype=getattr(torch, dtype_of(action)), device=self.device),
            rewards=torch.zeros(size, 1, device=self.device),
            terminations=done,
            truncations=done.clone(),
            next_observations=blank.clone(),
            mask=~done,
            targets=~done,
        )

    def _tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(values, device=self.device)

    def _refuse_parameters(self, parameters: Tensor, state: AgentState) -> None:
        """Raise UnfitValueError where what the policy says is not finite; a sum may only have overflowed."""
        wrong = ~parameters.isfinite()
        if bool(wrong.any()):
            refuse(parameters, wrong, "the policy's output", num_decisions=state.num_decisions - 1)
