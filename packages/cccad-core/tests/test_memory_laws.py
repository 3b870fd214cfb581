"""A memory is any module that keeps the laws: ours does, a stranger's does, and each law catches the bug it is for."""

import pytest
import torch
from attrs import define, frozen
from cccad_core.agent import Agent
from cccad_core.compressors.full import FullSpec
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.compressors.window import WindowSpec
from cccad_core.laws.law import LawBroken
from cccad_core.laws.layout import check_layout
from cccad_core.laws.memory import check_memory
from cccad_core.laws.noise import SPACES, random_batch
from cccad_core.layouts import ObservationSpec
from cccad_core.memory.base import Decisions, Memory, MemoryState
from cccad_core.memory.compressed import Compressed, CompressedSpec, compressed
from cccad_core.memory.memoryless import MemorylessSpec
from cccad_core.objectives.imitation import ImitationSpec
from cccad_core.objectives.reconstruction import ReconstructionSpec
from cccad_core.objectives.terms import ReconstructionTerm
from cccad_core.policy import PolicySpec
from cccad_core.registry import REGISTRY
from torch import nn

SMALL = {"window": 14, "num_layers": 1, "num_heads": 2}


@define(kw_only=True)
class FadingState(MemoryState):
    trace: torch.Tensor


class Fading(Memory[FadingState]):
    """A trace of all tokens that fades at a learned rate, for each feature; the newest token stands beside it."""

    def __init__(self, width, slots):
        super().__init__()
        self.slots = slots
        self.rate = nn.Parameter(torch.zeros(width))
        self.mix = nn.Linear(2 * width, width)

    def step(self, trace, token):
        return self.rate.sigmoid() * trace + (1 - self.rate.sigmoid()) * token

    def decided(self, trace, token):
        return self.mix(torch.cat([trace, token], -1))

    def forward(self, tokens, *, horizon=None, moment=None):
        trace, hidden = torch.zeros_like(tokens.history[:, 0]), []
        for t, parts in enumerate(tokens.history.split(self.slots, 1)):
            if tokens.queries is not None:
                hidden.append(self.decided(self.step(trace, tokens.queries[:, t]), tokens.queries[:, t]))
            for slot, token in enumerate(parts.unbind(1)):
                trace = self.step(trace, token)
                if slot == 0 and tokens.queries is None:
                    hidden.append(self.decided(trace, token))
        return Decisions(hidden=[torch.stack(hidden, 1)])

    def length_of(self, num_writes):
        return int(8 * (1 + num_writes))

    def begin(self, size):
        zeros = torch.zeros(size, len(self.rate), device=self.device)
        return FadingState(trace=zeros, num_writes=torch.zeros(size, dtype=torch.int64))

    def decide(self, state, token, *, is_query, record=None):
        trace = self.step(state.trace, token)
        if not is_query:
            state.trace = trace
        return self.decided(trace, token)[:, None]

    def settle(self, state, tokens):
        for token in tokens:
            state.trace = self.step(state.trace, token)


@pytest.fixture
def fading(monkeypatch):
    """Return a function that makes a registered spec of a memory class."""
    monkeypatch.setattr(REGISTRY, "_in_code", {})

    def of(make):
        @frozen(kw_only=True)
        class FadingSpec:
            def check(self, width, slots):
                pass

            def build(self, width, slots):
                return make(width, slots)

        return REGISTRY.register("memory", "fading")(FadingSpec)()

    return of


def caught(law):
    return pytest.raises(LawBroken, match=f"law '{law}' is broken")


@pytest.mark.parametrize("compressor", [GatedQuerySpec(num_latents=2, num_heads=2), WindowSpec(), FullSpec()])
def test_a_compressed_window_keeps_the_laws(compressor):
    check_memory(CompressedSpec(compressor=compressor, **SMALL))


def test_no_memory_keeps_the_laws():
    check_memory(MemorylessSpec())
    check_layout(ObservationSpec())


def test_a_memory_of_a_strangers_keeps_the_laws(fading):
    check_memory(fading(Fading))


# Planted bugs -------------------------------------------------------------------------------------------------------


class SeesItsOwnAction(Fading):
    def forward(self, tokens, **how):
        tokens.history = tokens.history + tokens.history.roll(-1, 1)
        return super().forward(tokens, **how)


class KeepsQueries(Fading):
    def decide(self, state, token, *, is_query, record=None):
        return super().decide(state, token, is_query=False)


class ForgetsToSettle(Fading):
    def settle(self, state, tokens):
        super().settle(state, tokens[1:])


class MixesRows(Fading):
    def decide(self, state, token, **how):
        state.trace = state.trace + 0.01 * state.trace.mean(0)
        return super().decide(state, token, **how)


class ResetsAllRows(Fading):
    def reset(self, state, rows):
        state.trace = torch.zeros_like(state.trace)


class ResetsNothing(Fading):
    def reset(self, state, rows):
        pass


class RemembersOnTheModule(Fading):
    held = 0.0

    def decide(self, state, token, *, is_query, record=None):
        hidden = super().decide(state, token, is_query=is_query)
        self.held = self.held + 0.1 * token.mean()
        return hidden + self.held


class Grows(Fading):
    def settle(self, state, tokens):
        super().settle(state, tokens)
        state.trace = 3.0 * state.trace


class TakesMoreThanItSays(Fading):
    state_bytes = 4


class Diverges(Fading):
    def settle(self, state, tokens):
        super().settle(state, tokens)
        state.trace = state.trace / 0.0


class HasADeadPart(Fading):
    def __init__(self, width, slots):
        super().__init__(width, slots)
        self.unused = nn.Parameter(torch.ones(3))


class IsNotSaved(Fading):
    def __init__(self, width, slots):
        super().__init__(width, slots)
        self.tilt = torch.randn(width)

    def decided(self, trace, token):
        return super().decided(trace, token) + self.tilt


class CountsNoStretches(Fading):
    def length_of(self, num_writes):
        return 8


class HasRowsLast(Fading):
    def begin(self, size):
        state = super().begin(size)
        state.trace = state.trace.T
        return state


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (SeesItsOwnAction, "no future"),
        (KeepsQueries, "one decision at a time equals the training pass"),
        (ForgetsToSettle, "one decision at a time equals the training pass"),
        (MixesRows, "one decision at a time equals the training pass"),
        (ResetsAllRows, "rows do not mix"),
        (ResetsNothing, "a reset row is a fresh row"),
        (RemembersOnTheModule, "explicit state"),
        (Grows, "bounded state"),
        (TakesMoreThanItSays, "bytes are as declared"),
        (Diverges, "finite values"),
        (HasADeadPart, "every weight learns"),
        (IsNotSaved, "spec and weights round-trip"),
        (CountsNoStretches, "stretches grow with the writes asked for"),
        (HasRowsLast, "a memory is whole"),
    ],
)
def test_a_planted_bug_is_caught_by_the_law_that_names_it(fading, make, law):
    with caught(law):
        check_memory(fading(make))


def test_a_window_that_is_not_what_it_declares_is_caught(monkeypatch):
    monkeypatch.setattr(Compressed, "state_bytes", 7)
    with caught("bytes are as declared"):
        check_memory(CompressedSpec(**SMALL))


# What a memory need not have ----------------------------------------------------------------------------------------


def test_what_only_a_fold_can_answer_is_refused_of_a_memory_that_folds_nothing(fading):
    policy = PolicySpec(memory=fading(Fading), width=16).build(SPACES, seed=0)
    rebuilding = ImitationSpec(reconstruction=ReconstructionTerm(weight=1.0))
    for spec in (ReconstructionSpec(), rebuilding):
        with pytest.raises(ValueError, match="this one folds nothing"):
            spec.build(policy)
    with pytest.raises(TypeError, match="a compressed memory is needed, and this is Fading"):
        compressed(policy.memory)


def test_a_memory_without_writes_trains_and_acts_and_has_written_nothing(fading):
    policy = PolicySpec(memory=fading(Fading), width=16).build(SPACES, seed=0)
    assert (policy.spec.num_latents, policy.spec.has_plain_window) == (0, False)
    spec = ImitationSpec()
    losses = spec.build(policy)(random_batch(SPACES, size=2, length=20, seed=0), 40.0, spec.weights(0.0))
    assert losses["writes"] == 0
    losses["loss"].backward()
    rate = policy.memory.get_parameter("rate")
    assert rate.grad is not None
    assert rate.grad.any()
    agent = Agent(policy)
    actions, state = agent.act(agent.begin(2), torch.zeros(2, 2, dtype=torch.int64), greedy=True)
    assert actions.shape == (2,)
    assert state.num_writes.tolist() == [0, 0]
    assert state.num_bytes == 2 * 16 * 4


def test_the_tensors_of_a_state_are_listed_by_name_with_those_in_lists_and_tables():
    with torch.no_grad():
        state = CompressedSpec(compressor=GatedQuerySpec(num_latents=2, num_heads=2), **SMALL).build(16, 1).begin(2)
    assert set(state.tensors()) == {
        *("num_writes", "latents.latents", "tokens", "num_raw", "num_new"),
        *("caches.0.keys", "caches.0.values"),
    }


def test_another_way_to_remember_leaves_the_memory_as_it_is():
    memory = CompressedSpec(compressor=WindowSpec(), **SMALL).build(16, 1)
    other = memory.sliding().uncached()
    assert (memory.is_cached, other.is_cached) == (True, False)
    assert (memory.context.carry, other.context.carry) == (0, 13)
    assert other.backbone is memory.backbone
    assert list(memory.state_dict()) == list(other.state_dict())
