"""An agent that lives: one decision per environment at a time, cached, at constant memory and cost.

It follows the same rolling context as training, so a life of the agent is the training pass taken one decision at a
time. Rows are independent lives: each fills its window, writes and is reset on its own.
"""

import math
from pathlib import Path
from typing import Any

import torch
from attrs import define
from torch import Tensor

from cccad_core.batch import HistoryBatch
from cccad_core.border import Border, as_parts, finite, refuse
from cccad_core.compressors.base import Compressor, Segment, State, put_rows, take_rows
from cccad_core.memory.attention import AttentionRecord, Cache
from cccad_core.memory.context import RollingContext
from cccad_core.policy import Policy
from cccad_core.spaces import Dict, Tuple, dtype_of


@define(kw_only=True)
class AgentState:
    """Where *b* lives stand. It is changed in place by `Agent.act` and `Agent.observe`.

    `memory` is the compressor's state; `tokens` `b w d` the raw tokens in the window and `num_raw` `b` how many whole
    transitions they tell, of which the last `num_new` are not folded yet; `caches` keys and values by layer; `last` the
    last transition, `b 1`, meaningful where `has_last`; `num_decisions` and `num_writes`, `b`, count over the life.
    """

    memory: State
    tokens: Tensor
    num_raw: Tensor
    num_new: Tensor
    caches: list[Cache]
    last: HistoryBatch
    has_last: Tensor
    num_decisions: Tensor
    num_writes: Tensor

    @property
    def num_bytes(self) -> int:
        """Bytes that these lives hold together; it does not grow with their age unless nothing is evicted."""
        held = [self.tokens, *self.memory.values(), *(t for c in self.caches for t in (c.keys, c.values))]
        return sum(t.numel() * t.element_size() for t in held)


class Agent:
    """A policy that acts. It neither freezes nor alters the policy, and what it does leaves no gradients.

    A policy acts in the mode it is in: one with a part that behaves differently in training, such as dropout, should be
    handed in as `policy.eval()`. `load` returns one that is frozen and in evaluation mode.

    Args:
        policy: what acts.
        compressor: the memory to act with, the policy's own unless another with as many latents is handed in, such as
            `ZeroedLatents(policy.compressor)`.
        context: the rule by which the window is emptied, the policy's own unless another is handed in:
            `policy.context.sliding()` lets a plain window slide.
        cached: False recomputes the window at every decision: the reference, and slow.
    """

    def __init__(
        self,
        policy: Policy,
        compressor: Compressor | None = None,
        context: RollingContext | None = None,
        *,
        cached: bool = True,
    ) -> None:
        self.policy = policy
        self.compressor: Compressor = policy.compressor if compressor is None else compressor
        self.context = policy.context if context is None else context
        if self.compressor.num_latents != self.context.num_latents:
            raise ValueError(
                f"the window has room for {self.context.num_latents} latents, "
                f"not for the {self.compressor.num_latents} of this compressor"
            )
        self.cached = cached
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
        slots = self.context.first_segment * self.policy.layout.slots
        example = self.compressor.read(self.compressor.begin(1))
        width, zeros = example.shape[-1], torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        state = AgentState(
            memory={},
            tokens=example.new_zeros(num_envs, slots, width),
            num_raw=zeros.clone(),
            num_new=zeros.clone(),
            caches=self.policy.backbone.empty_cache(num_envs, self.context.window, example),
            last=self._blank(num_envs),
            has_last=zeros.bool(),
            num_decisions=zeros.clone(),
            num_writes=zeros.clone(),
        )
        state.memory = {name: value.clone() for name, value in self.compressor.begin(num_envs).items()}
        self._show_memory(state, torch.arange(num_envs, device=self.device))
        return state

    @torch.no_grad()
    def reset(self, state: AgentState, rows: Tensor) -> AgentState:
        """Start the lives *rows* (indices) anew; the others stay bit-identical."""
        rows = rows.to(self.device)
        state.memory = put_rows(state.memory, rows, self.compressor.begin(len(rows)))
        for counter in (state.num_raw, state.num_new, state.num_decisions, state.num_writes):
            counter[rows] = 0
        state.has_last[rows] = False
        self._show_memory(state, rows)
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

        *record*, if there is one, is overwritten with how these decisions attend, unless the agent is uncached.

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
        settled = self.policy.layout.settled(last)
        for offset, token in enumerate(settled, start=self.policy.layout.slots - len(settled)):
            self._place(state, token[:, 0], offset)
        state.num_raw += 1
        state.num_new += 1
        return state

    @torch.no_grad()
    def decide(self, state: AgentState, observations: Tensor | Any, record: AttentionRecord | None = None) -> Tensor:
        """Return the action distribution's parameters in every row, `b a`, having written where the window is full."""
        context, last = self.context, state.last
        seen = self._border(observations, "the observations", state.num_decisions)
        ended = (last.terminations | last.truncations)[:, 0] & state.has_last
        full = torch.nonzero(context.due(state.num_raw, state.num_new, ended))[:, 0]
        if len(full):
            self._write(state, full)
        if not context.evicts:
            self._make_room(state)
        return self._answer(state, seen, record)

    def _answer(self, state: AgentState, observations: Tensor, record: AttentionRecord | None = None) -> Tensor:
        """Return the parameters that the policy gives *observations*: tensors in, tensors out, no wait for a device."""
        layout, last = self.policy.layout, state.last
        told = layout.aftermath(last, state.has_last)
        last.observations[:, 0] = observations
        hidden = self._place(state, (layout.asking(last.observations) + told)[:, 0], 0, record)
        state.num_decisions += 1
        parameters: Tensor = self.policy.head(hidden)[:, 0]
        return parameters

    def _place(self, state: AgentState, token: Tensor, offset: int, record: AttentionRecord | None = None) -> Tensor:
        """Put one token, `b d`, *offset* slots behind every row's raw ones, and return its hidden state, `b 1 d`."""
        rows = torch.arange(len(token), device=self.device)
        place = state.num_raw * self.policy.layout.slots + offset
        state.tokens[rows, place] = token
        slots = place + self.context.num_latents
        if record is not None:
            record.slots, record.shares = slots, []
        if self.cached:
            return self.policy.backbone.decide(token[:, None], slots, state.caches, record)
        seen = torch.cat([self.compressor.read(state.memory), state.tokens[:, : int(place.max()) + 1]], 1)
        hidden = self.policy.backbone.think(seen, torch.arange(seen.shape[1], device=self.device), None)
        return hidden[rows, slots][:, None]

    def _make_room(self, state: AgentState) -> None:
        """Double the window where a whole life stays in it and has filled it."""
        if (int(state.num_raw.max()) + 1) * self.policy.layout.slots <= state.tokens.shape[1]:
            return
        state.tokens = torch.cat([state.tokens, torch.zeros_like(state.tokens)], 1)
        state.caches = [cache.doubled() for cache in state.caches]
        self.policy.backbone.rotary.reserve(state.caches[0].keys.shape[2])

    def _write(self, state: AgentState, rows: Tensor) -> None:
        """Fold the new tokens of the lives *rows*, where a write is due, and keep the last few raw."""
        context, slots = self.context, self.policy.layout.slots
        for num_raw, num_new in torch.stack([state.num_raw, state.num_new], 1)[rows].unique(dim=0).tolist():
            some = rows[(state.num_raw[rows] == num_raw) & (state.num_new[rows] == num_new)]
            tokens = state.tokens[some, (num_raw - num_new) * slots : num_raw * slots]
            segment = Segment(tokens=tokens, think=self.policy.backbone.think)
            written, _ = self.compressor.write(take_rows(state.memory, some), segment)
            state.memory = put_rows(state.memory, some, written)
            kept = min(context.carry, num_raw)
            state.tokens[some, : kept * slots] = state.tokens[some, (num_raw - kept) * slots : num_raw * slots]
            state.num_raw[some] = kept
        state.num_new[rows] = 0
        state.num_writes[rows] += 1
        self._show_memory(state, rows)

    def _show_memory(self, state: AgentState, rows: Tensor) -> None:
        """Fill the caches of *rows* with what their windows hold right after a write: latents and carried tokens."""
        if not len(rows):
            return
        carried = state.tokens[rows, : int(state.num_raw[rows].max()) * self.policy.layout.slots]  # no row sees more
        seen = torch.cat([self.compressor.read(take_rows(state.memory, rows)), carried], 1)
        if not seen.shape[1]:
            return
        kept = self.policy.backbone.keys_and_values(seen)
        for cache, (keys, values) in zip(state.caches, kept, strict=True):
            cache.keys[rows, :, : keys.shape[2]] = keys
            cache.values[rows, :, : values.shape[2]] = values

    def _blank(self, size: int) -> HistoryBatch:
        observation, action = self.policy.spaces.observation, self.policy.spaces.action
        seen = torch.zeros(size, 1, observation.num_features, dtype=getattr(torch, dtype_of(observation)))
        seen = seen.to(self.device)
        done = torch.zeros(size, 1, dtype=torch.bool, device=self.device)
        shape = (size, 1) if action.kind == "discrete" else (size, 1, action.num_features)
        return HistoryBatch(
            observations=seen,
            actions=torch.zeros(shape, dtype=getattr(torch, dtype_of(action)), device=self.device),
            rewards=torch.zeros(size, 1, device=self.device),
            terminations=done,
            truncations=done.clone(),
            next_observations=seen.clone(),
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
