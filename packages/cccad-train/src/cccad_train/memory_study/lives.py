"""What a memory does in a life: lives that are watched as they write, lives that are lent another's memory."""

import math
from collections import defaultdict
from typing import Any, cast

import numpy as np
import torch
from attrs import evolve
from cccad_core.agent import Agent, AgentState
from cccad_core.compressors.base import Compressor, Segment, State
from cccad_core.memory.attention import AttentionRecord
from cccad_core.memory.compressed import CompressedState
from cccad_core.memory.controls import Wrapped
from cccad_data.family import KnowsOptimalActions, VectorEnvironment
from numpy.typing import NDArray
from torch import Tensor

AGE = "writes of this life"  # beside the inner compressor's own state
MOST_WRITES = 100  # that are watched


class Lent(Wrapped):
    """Writes as *inner*, but each life may begin with a memory that was lent to it, and stop changing it.

    Args:
        inner: the compressor of the policy.
        start: what row i of `begin(size)` starts with, where there are so many; its own memory without it.
        last_write: no write after the *last_write*-th changes a memory.

    `openness` holds, by write, how open the gate of every life was, where *inner* hands that out.
    """

    def __init__(self, inner: Compressor, *, start: State | None = None, last_write: float = math.inf) -> None:
        super().__init__(inner)
        self.start, self.last_write = start, last_write
        self.openness: dict[int, list[float]] = defaultdict(list)

    def begin(self, size: int) -> State:
        own = self.inner.begin(size)
        if self.start is not None and len(self.start[AGE]) == size:
            own = _own(self.start)
        return {**own, AGE: torch.zeros(size, dtype=torch.int64, device=next(iter(own.values())).device)}

    def read(self, state: State) -> Tensor:
        return self.inner.read(_own(state))

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        own, age = _own(state), state[AGE]
        record: dict[str, Tensor] = {}
        written, extra = self.inner.write(own, evolve(segment, record=record))
        if "openness" in record:
            for number, share in zip(age.tolist(), record["openness"].tolist(), strict=True):
                self.openness[number + 1].append(share)
        rows = torch.nonzero(age >= self.last_write)[:, 0]
        written = {name: value.index_copy(0, rows, own[name][rows]) for name, value in written.items()}
        return {**written, AGE: age + 1}, extra


def _own(state: State) -> State:
    return {name: value for name, value in state.items() if name != AGE}


class Witness:
    """Lives as *agent* does where `play` expects one, and keeps what its memory holds and how decisions look at it.

    `memories[n]` is the memory after the *n*-th write in the rows where `reached[n]`, `b`, is True. `mass`, `layer w`,
    adds up the share of attention that decisions at each slot of the window, `looks` `w` of them, pay to the latents.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent, self.observe = agent, agent.observe
        self.memories: list[State] = []
        self.reached: list[Tensor] = []
        self.mass = self.looks = torch.zeros(0)

    def begin(self, num_envs: int) -> AgentState:
        """Begin, and keep what a memory holds before its first write."""
        state = self.agent.begin(num_envs)
        caches = _held(state).caches
        self.mass = torch.zeros(len(caches), caches[0].keys.shape[2], device=self.agent.device)
        self.looks = torch.zeros_like(self.mass[0])
        self._keep(state, state.num_writes == 0)
        return state

    def act(self, state: AgentState, observations: Any, **how: Any) -> tuple[Tensor, AgentState]:
        """Decide, and keep what was written and attended to."""
        before, record = state.num_writes.clone(), AttentionRecord()
        actions, state = self.agent.act(state, observations, record=record, **how)
        self._keep(state, state.num_writes > before)
        self._look(record)
        return actions, state

    def _keep(self, state: AgentState, has_written: Tensor) -> None:
        for number in state.num_writes[has_written].unique().tolist():
            rows = has_written & (state.num_writes == number)
            if number == len(self.memories) <= MOST_WRITES:
                self.memories.append({name: value.clone() for name, value in _held(state).latents.items()})
                self.reached.append(torch.zeros_like(rows))
            if number < len(self.memories):
                self.reached[number] |= rows
                for name, value in _held(state).latents.items():
                    self.memories[number][name][rows] = value[rows]

    def _look(self, record: AttentionRecord) -> None:
        """Add up the attention of the newest decisions."""
        num_latents = self.agent.policy.spec.num_latents
        for mass, shares in zip(self.mass, record.shares, strict=True):
            mass.index_add_(0, record.slots, shares[..., :num_latents].sum(-1).mean(1))
        self.looks.index_add_(0, record.slots, torch.ones_like(record.slots, dtype=self.looks.dtype))


def _held(state: AgentState) -> CompressedState:
    return cast(CompressedState, state.memory)


class Torn:
    """Lives in *environments* where `play` expects an agent, and asks at each decision what is best in the *donors*.

    The same actions are taken in the donors' environments; from where these look otherwise, or an episode ended, a life
    is no longer compared. `returns`, `e`, are those on the donor's terms.
    """

    def __init__(self, agent: Agent, environments: VectorEnvironment, donors: VectorEnvironment, seed: int) -> None:
        self.agent, self.begin, self.environments, self.donors = agent, agent.begin, environments, donors
        self.observed, _ = donors.reset(seed=seed)
        self.is_alike = np.ones(environments.num_envs, dtype=np.bool_)
        self.returns = np.zeros(environments.num_envs)
        self.compared: list[NDArray[np.bool_]] = []  # by decision, e
        self.asked: list[NDArray[np.int64]] = []  # what was done, what is best: own and donor's; 3 e

    def act(self, state: AgentState, observations: Any, **how: Any) -> tuple[Tensor, AgentState]:
        """Decide, ask, and do the same in the donors' environments."""
        drawn, state = self.agent.act(state, observations, **how)
        actions = drawn.cpu().numpy()
        self.is_alike &= (np.asarray(self.observed) == np.asarray(observations)).reshape(len(actions), -1).all(1)
        self.compared.append(self.is_alike.copy())
        if isinstance(self.environments, KnowsOptimalActions) and isinstance(self.donors, KnowsOptimalActions):
            self.asked.append(np.stack([actions, self.environments.optimal_actions(), self.donors.optimal_actions()]))
        self.observed, rewards, terminations, truncations, _ = self.donors.step(actions)
        self.returns += rewards * self.is_alike
        self.is_alike &= ~(terminations | truncations)
        return drawn, state

    def observe(self, state: AgentState, rewards: Any, terminations: Any, truncations: Any, after: Any) -> AgentState:
        """Pass on what the actions led to in the own environments."""
        self.is_alike &= ~(terminations | truncations)
        return self.agent.observe(state, rewards, terminations, truncations, after)

    def agreement(self, is_swapped: NDArray[np.bool_]) -> dict[str, float | None]:
        """Return how often what was done is optimal on the own and on the donor's task, where these two differ.

        Also how often where they are one task, not *is_swapped* `e`, as `..._intact`, and the share of the other
        lives' decisions that can be `compared`.
        """
        alike = np.stack(self.compared)  # t e
        rates: dict[str, float | None] = {"compared": float(alike[:, is_swapped].mean()) if is_swapped.any() else None}
        for name, part in (("actions", self.asked), ("first_actions", self.asked[:1])):
            if part:
                took, own, donor = np.stack(part, 1)  # t e
                torn = own != donor
                for whose, best, which in (("own", own, torn), ("donor", donor, torn), ("intact", own, ~is_swapped)):
                    where = alike[: len(part)] & which
                    rates[f"{name}_{whose}"] = float((took == best)[where].mean()) if where.any() else None
        return rates
