"""The laws are worth what they catch: each bug planted here is found, and by the law that names it."""

from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from cccad_core.agent import Agent
from cccad_core.compressors.base import Compressor, detach, put_rows
from cccad_core.compressors.gated_query import GatedQuery, GatedQuerySpec
from cccad_core.laws.compressor import check_compressor
from cccad_core.laws.law import LawBroken
from cccad_core.laws.policy import check_policy
from cccad_core.layouts import Fused, FusedSpec, TransitionSpec
from cccad_core.memory import compressed
from cccad_core.memory.backbone import Backbone
from cccad_core.memory.compressed import Compressed, CompressedSpec
from cccad_core.memory.context import RollingContext
from cccad_core.memory.windows import SharedWindows, Window
from cccad_core.policy import PolicySpec
from cccad_core.registry import REGISTRY
from torch import nn

INNER = GatedQuerySpec(num_latents=2, num_heads=2)
FUSED = PolicySpec(memory=CompressedSpec(window=8, compressor=INNER, num_heads=2), width=16)
TRANSITION = evolve(FUSED, memory=evolve(FUSED.memory, window=9, carry=1), tokens=TransitionSpec())


@frozen
class Planted:
    """The spec of a compressor that is made by a function of the width."""

    make: Any
    num_latents: int = 2

    def build(self, width):
        return self.make(INNER, width)


def caught(law):
    return pytest.raises(LawBroken, match=f"law '{law}' is broken")


@pytest.mark.parametrize("spec", [FUSED, TRANSITION], ids=["fused", "transition"])
def test_without_a_planted_bug_nothing_is_caught(spec):
    check_policy(spec)


# The future ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [FUSED, TRANSITION], ids=["fused", "transition"])
def test_latents_that_see_the_future_are_caught(monkeypatch, spec):
    writes = SharedWindows.writes

    def peek(self, tokens, mask):
        later = [piece._replace(stop=piece.stop + 2) for piece in self.pieces[:-1]]
        return writes(evolve(self, pieces=[*later, self.pieces[-1]]), tokens, mask)

    monkeypatch.setattr(SharedWindows, "writes", peek)
    with caught("no future"):
        check_policy(spec)


def test_a_decision_that_sees_its_own_action_is_caught(monkeypatch):
    def told_too_early(self, batch):
        return self.asking(batch.observations) + self.after(batch)

    monkeypatch.setattr(Fused, "sequence", told_too_early)
    with caught("no future"):
        check_policy(FUSED)


def test_queries_that_see_the_transitions_after_them_are_caught(monkeypatch):
    run = Backbone.run

    def look_everywhere(self, x, slots, mask):
        return run(self, x, slots, None if mask is None else torch.ones_like(mask))

    monkeypatch.setattr(Backbone, "run", look_everywhere)
    with caught("no future"):
        check_policy(TRANSITION)


# Padding ------------------------------------------------------------------------------------------------------------


class IgnoresTheMask(GatedQuery):
    def write(self, state, segment):
        return super().write(state, evolve(segment, mask=None))


class DividesByNothing(GatedQuery):
    def write(self, state, segment):
        real = segment.tokens.new_ones(segment.tokens.shape[:2]) if segment.mask is None else segment.mask.float()
        mean = (segment.tokens * real[..., None]).sum(1, keepdim=True) / real.sum(1)[:, None, None]
        return {"latents": 0.9 * state["latents"] + 0.1 * mean}, {}


@pytest.mark.parametrize("make", [IgnoresTheMask, DividesByNothing])
def test_a_compressor_to_which_padding_matters_is_caught(make):
    with caught("padding is invisible"):
        check_compressor(Planted(make))


def test_reconstruction_of_padding_is_caught(monkeypatch):
    def everything(rebuilt, **_):
        return {"reconstruction": torch.stack([r.losses["reward"].mean() for r in rebuilt]).mean()}

    monkeypatch.setattr("cccad_core.objectives.imitation.rebuilt_losses", everything)
    with caught("padding is invisible"):
        check_policy(FUSED)


# Gradients ----------------------------------------------------------------------------------------------------------


class LearnsNothing(GatedQuery):
    def write(self, state, segment):
        return detach(super().write(state, segment)[0]), {}


class HasADeadPart(GatedQuery):
    def __init__(self, spec, width):
        super().__init__(spec, width)
        self.unused = nn.Parameter(torch.ones(3))


def check_behind_the_built_in_name(make, monkeypatch):
    """Check a policy whose compressor is made by *make*, but whose spec is registered, so that it can be released."""

    def build(spec, width):
        return make(spec, width)

    monkeypatch.setattr(GatedQuerySpec, "build", build)
    check_policy(FUSED)


@pytest.mark.parametrize("make", [LearnsNothing, HasADeadPart])
def test_a_write_that_does_not_learn_is_caught(make, monkeypatch):
    with caught("gradients reach the newest writes and stop at the horizon"):
        check_behind_the_built_in_name(make, monkeypatch)


def test_truncation_that_detaches_the_newest_writes_is_caught(monkeypatch):
    fold = compressed.fold

    def wrong_end(*parts, **options):
        memory = fold(*parts, **options)
        memory.reads[-1] = memory.reads[-1].detach()
        return memory

    monkeypatch.setattr(compressed, "fold", wrong_end)
    with caught("gradients reach the newest writes and stop at the horizon"):
        check_policy(FUSED)


def test_truncation_that_does_not_happen_is_caught(monkeypatch):
    monkeypatch.setattr("cccad_core.memory.compressed.detach", dict)
    with caught("gradients reach the newest writes and stop at the horizon"):
        check_policy(FUSED)


# Rows ---------------------------------------------------------------------------------------------------------------


class MixesRows(GatedQuery):
    def write(self, state, segment):
        return super().write(state, evolve(segment, tokens=segment.tokens - segment.tokens.mean(0)))


def test_a_compressor_that_mixes_rows_is_caught():
    with caught("rows do not mix"):
        check_compressor(Planted(MixesRows))


def test_a_row_that_touches_its_neighbour_when_it_writes_or_is_reset_is_caught(monkeypatch):
    def spill(state, rows, part):
        done = put_rows(state, rows, part)
        return put_rows(done, (rows + 1) % 3, part) if rows is not None and len(rows) == 1 else done

    monkeypatch.setattr("cccad_core.memory.compressed.put_rows", spill)
    with caught("rows do not mix"):
        check_policy(FUSED)


def test_a_reset_that_reaches_the_other_rows_caches_is_caught(monkeypatch):
    reset = Agent.reset

    def too_much(self, state, rows):
        state = reset(self, state, rows)
        for cache in state.memory.caches:
            cache.keys[:, :, -1] += 1.0  # a slot that nobody looks at yet
        return state

    monkeypatch.setattr(Agent, "reset", too_much)
    with caught("rows do not mix"):
        check_policy(FUSED)


def test_a_reset_that_keeps_the_last_transition_is_caught(monkeypatch):
    reset = Agent.reset

    def forgetful(self, state, rows):
        state = reset(self, state, rows)
        state.has_last.fill_(True)
        return state

    monkeypatch.setattr(Agent, "reset", forgetful)
    with caught("a reset row is a fresh row"):
        check_policy(FUSED)


# Positions, caches and counts ---------------------------------------------------------------------------------------


def test_positions_that_start_wrongly_after_a_write_are_caught(monkeypatch):
    write = Compressed._write

    def leave_a_gap(self, state, rows):
        write(self, state, rows)
        state.num_raw[rows] += 1

    monkeypatch.setattr(Compressed, "_write", leave_a_gap)
    with caught("one decision at a time equals the training pass"):
        check_policy(FUSED)


def test_a_cache_that_still_shows_the_old_latents_after_a_write_is_caught(monkeypatch):
    show = Compressed._show_latents

    def only_at_birth(self, state, rows):
        if not bool(state.num_writes[rows].any()):
            show(self, state, rows)

    monkeypatch.setattr(Compressed, "_show_latents", only_at_birth)
    with caught("cached equals uncached"):
        check_policy(FUSED)


def test_writes_that_happen_too_often_are_caught(monkeypatch):
    def hasty(_, num_decisions, **_how):
        starts = range(0, num_decisions, 2)
        return [Window(s, s, min(s + 2, num_decisions)) for s in starts]

    monkeypatch.setattr(RollingContext, "cut", hasty)
    with caught("writes asked for are writes done"):
        check_policy(FUSED)


def test_a_first_window_without_latents_is_caught(monkeypatch):
    prefixes = SharedWindows.prefixes

    def nothing_at_first(self, reads):
        first, *later = prefixes(self, reads)
        return [torch.zeros_like(first), *later]

    monkeypatch.setattr(SharedWindows, "prefixes", nothing_at_first)
    with caught("no decision without latents"):
        check_policy(FUSED)


# State --------------------------------------------------------------------------------------------------------------


class RemembersOnTheModule(GatedQuery):
    held: Any = None

    def write(self, state, segment):
        if self.held is not None and self.held["latents"].shape == state["latents"].shape:
            state = self.held
        self.held, losses = super().write(state, segment)
        return self.held, losses


class ReadsFromTheModule(GatedQuery):
    def write(self, state, segment):
        self.held, losses = super().write(state, segment)
        return self.held, losses

    def read(self, state):
        held = getattr(self, "held", state)
        return super().read(held if held["latents"].shape == state["latents"].shape else state)


class WritesInPlace(GatedQuery):
    def begin(self, size):
        return {"latents": super().begin(size)["latents"].clone()}

    def write(self, state, segment):
        state["latents"].mul_(0.9)
        return super().write(state, segment)


class Accumulates(Compressor):
    """Shows the newest two tokens of all that it ever kept."""

    num_latents = 2
    state_bytes = 4 * 3 * 16  # after one write

    def __init__(self, spec, width):
        super().__init__()
        self.initial = nn.Parameter(torch.zeros(2, width))

    def begin(self, size):
        return {"kept": self.initial.expand(size, -1, -1)}

    def read(self, state):
        return state["kept"][:, -2:]

    def write(self, state, segment):
        real = segment.tokens if segment.mask is None else segment.tokens * segment.mask[..., None]
        return {"kept": torch.cat([state["kept"], real.sum(1, keepdim=True)], 1)}, {}

    def flops_per_write(self, num_tokens):
        return 0


class HasNothingBeforeTheFirstWrite(Accumulates):
    def begin(self, size):
        return {"kept": super().begin(size)["kept"][:, :0]}


class Grows(Accumulates):
    """Adds a little of every segment to what it has."""

    state_bytes = 4 * 2 * 16

    def write(self, state, segment):
        real = segment.tokens if segment.mask is None else segment.tokens * segment.mask[..., None]
        return {"kept": state["kept"] + 0.05 * real.sum(1, keepdim=True)}, {}


def test_a_compressor_without_memory_before_its_first_write_is_caught():
    with caught("declared size"):
        check_compressor(Planted(HasNothingBeforeTheFirstWrite))


@pytest.mark.parametrize("make", [RemembersOnTheModule, ReadsFromTheModule, WritesInPlace])
def test_state_that_is_kept_on_the_module_or_changed_in_place_is_caught(make):
    with caught("explicit state"):
        check_compressor(Planted(make))


@pytest.mark.parametrize("make", [Accumulates, Grows])
def test_state_that_grows_without_bound_is_caught(make):
    with caught("bounded state"):
        check_compressor(Planted(make))


def test_a_loss_that_is_reduced_over_rows_is_caught():
    class Reduces(GatedQuery):
        def write(self, state, segment):
            state, _ = super().write(state, segment)
            return state, {"size": state["latents"].square().mean()}

    with caught("losses by row"):
        check_compressor(Planted(Reduces))


def test_a_weight_that_is_not_saved_is_caught(monkeypatch):
    class Unsaved(GatedQuery):
        def __init__(self, spec, width):
            super().__init__(spec, width)
            self.tilt = torch.randn(width)

        def read(self, state):
            return super().read(state) + self.tilt

    with caught("spec and weights round-trip"):
        check_behind_the_built_in_name(Unsaved, monkeypatch)


def test_a_spec_that_is_not_registered_is_told_so():
    assert type(REGISTRY).__name__ == "Registry"
    with pytest.raises(LookupError, match="registered under no name"):
        check_policy(evolve(FUSED, memory=evolve(FUSED.memory, compressor=Planted(GatedQuery)), tokens=FusedSpec()))
