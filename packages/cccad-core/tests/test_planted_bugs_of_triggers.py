"""Bugs planted into costs, triggers, rows that write apart, endless windows and tokens by threes are found too."""

from typing import cast

import pytest
import torch
from attrs import evolve
from cccad_core.compressors.base import put_rows
from cccad_core.compressors.full import FullSpec
from cccad_core.compressors.gated_query import GatedQuery, GatedQuerySpec
from cccad_core.compressors.rmt import Rmt, RmtSpec
from cccad_core.compressors.sink import Sink, SinkSpec
from cccad_core.laws.compressor import check_compressor
from cccad_core.laws.law import LawBroken
from cccad_core.laws.policy import check_policy
from cccad_core.layouts import Triple, TripleSpec
from cccad_core.memory import compressed
from cccad_core.memory.attention import Cache
from cccad_core.memory.compressed import Compressed, CompressedSpec
from cccad_core.memory.context import RollingContext
from cccad_core.memory.moment import Moment
from cccad_core.memory.triggers import EpisodeTrigger, RandomTrigger
from cccad_core.memory.windows import RowWindows
from cccad_core.policy import PolicySpec

INNER = GatedQuerySpec(num_latents=2, num_heads=2)
FULL = PolicySpec(memory=CompressedSpec(window=8, compressor=INNER, num_heads=2), width=16)
EPISODE = evolve(FULL, memory=evolve(FULL.memory, window=9, carry=1, trigger=EpisodeTrigger()))
TRIPLE = evolve(FULL, memory=evolve(FULL.memory, window=14, carry=1), tokens=TripleSpec())


def caught(law):
    return pytest.raises(LawBroken, match=f"law '{law}' is broken")


@pytest.mark.parametrize("spec", [EPISODE, TRIPLE], ids=["episode", "triple"])
def test_without_a_planted_bug_nothing_is_caught_here_either(spec):
    check_policy(spec)


# A compressor alone -------------------------------------------------------------------------------------------------


class CountsTheLatentsAlone(GatedQuery):
    def flops_per_write(self, num_tokens):
        return super().flops_per_write(0 * num_tokens)


class ForgetsItsCounter(Sink):
    state_bytes = 4 * 2 * 16  # the tokens alone


class HidesNoPadding(Rmt):
    def write(self, state, segment):
        real = torch.ones_like(segment.mask) if segment.mask is not None else None
        return super().write(state, evolve(segment, mask=real))


class PicksUpThePenTooFarBehind(Rmt):
    def write(self, state, segment):
        def think(x, _slots, mask):
            return segment.think(x, torch.arange(x.shape[1]), mask)

        return super().write(state, evolve(segment, think=think))


@pytest.mark.parametrize(
    ("make", "spec", "law"),
    [
        (CountsTheLatentsAlone, INNER, "costs are as declared"),
        (ForgetsItsCounter, SinkSpec(num_sinks=2), "costs are as declared"),
        (HidesNoPadding, RmtSpec(num_latents=2), "padding is invisible"),
        (PicksUpThePenTooFarBehind, RmtSpec(num_latents=2), "padding is invisible"),
    ],
)
def test_a_wrong_cost_or_a_backbone_that_reads_padding_is_caught(make, spec, law, monkeypatch):
    monkeypatch.setattr(type(spec), "build", lambda spec, width: make(spec, width))  # noqa: PLW0108
    with caught(law):
        check_compressor(spec)


# Triggers -----------------------------------------------------------------------------------------------------------


def test_a_trigger_that_only_training_hears_is_caught(monkeypatch):
    due = RollingContext.due
    monkeypatch.setattr(RollingContext, "due", lambda self, raw, new, ended: due(self, raw, new, ended & False))
    with caught("writes asked for are writes done"):
        check_policy(EPISODE)


def test_a_trigger_that_only_the_agent_hears_is_caught(monkeypatch):
    windows = RollingContext.windows

    def deaf(self, flags, moment, device):
        return windows(self, evolve(flags, ended=torch.zeros_like(flags.ended)), moment, device)

    monkeypatch.setattr(RollingContext, "windows", deaf)
    with caught("writes asked for are writes done"):
        check_policy(EPISODE)


def test_an_agent_that_keeps_stale_tokens_after_an_early_write_is_caught(monkeypatch):
    write = Compressed._write

    def misplaced(self, state, rows):
        kept = state.tokens[rows, :1].clone()
        write(self, state, rows)
        state.tokens[rows, :1] = kept  # the oldest of the window instead of the newest
        self._show_latents(state, rows)

    monkeypatch.setattr(Compressed, "_write", misplaced)
    with caught("one decision at a time equals the training pass"):
        check_policy(EPISODE)


def test_chance_without_a_seed_is_caught(monkeypatch):
    windows = RollingContext.windows

    def always(self, flags, _moment, device):
        return windows(self, flags, Moment(shared_seed=0), device)

    monkeypatch.setattr(RollingContext, "windows", always)
    with caught("writes asked for are writes done"):
        check_policy(evolve(FULL, memory=evolve(FULL.memory, window=8, trigger=RandomTrigger())))


# Rows that write apart ----------------------------------------------------------------------------------------------


def test_segments_of_rows_apart_that_see_the_future_are_caught(monkeypatch):
    segment = RowWindows._segment

    def peek(self, index):
        stops, self.stops = self.stops, (self.stops + 2).clamp(max=self.length)
        ahead = segment(self, index)
        self.stops = stops
        return ahead

    monkeypatch.setattr(RowWindows, "_segment", peek)
    with caught("no future"):
        check_policy(EPISODE)


def test_a_short_segment_padded_with_what_follows_it_is_caught(monkeypatch):
    writes = RowWindows.writes

    def unmasked(self, tokens, mask):
        return [
            write._replace(mask=torch.ones_like(cast("torch.Tensor", write.mask)))
            for write in writes(self, tokens, mask)
        ]

    monkeypatch.setattr(RowWindows, "writes", unmasked)
    with pytest.raises(LawBroken):  # the rows that write alike do not show it; those that write apart do
        check_policy(EPISODE)


def test_a_write_that_lands_in_another_row_is_caught(monkeypatch):
    def neighbour(state, rows, part):
        return put_rows(state, (rows + 1) % 3 if len(rows) < 3 else rows, part)

    monkeypatch.setattr(compressed, "put_rows", neighbour)
    with caught("one decision at a time equals the training pass"):
        check_policy(EPISODE)


def test_truncation_that_cuts_every_row_where_one_is_due_is_caught(monkeypatch):
    monkeypatch.setattr(compressed, "keep_rows", lambda cut, mine, is_cut: cut if bool(is_cut.any()) else mine)
    with caught("gradients reach the newest writes and stop at the horizon"):
        check_policy(EPISODE)


def test_truncation_that_does_not_happen_in_rows_apart_is_caught(monkeypatch):
    monkeypatch.setattr(compressed, "detach", dict)
    with caught("gradients reach the newest writes and stop at the horizon"):
        check_policy(EPISODE)


# Tokens by threes, and windows without end --------------------------------------------------------------------------


def test_an_action_told_before_the_observation_it_answers_is_caught(monkeypatch):
    def action_first(self, batch):
        action, outcome = self.settled(batch)
        tokens = torch.stack([action, self.asking(batch.observations), outcome], 2)
        return tokens.flatten(1, 2)

    monkeypatch.setattr(Triple, "sequence", action_first)
    with caught("no future"):
        check_policy(TRIPLE)


def test_outcomes_that_the_agent_never_places_are_caught(monkeypatch):
    settled = Triple.settled

    def only_in_training(self, batch):
        return settled(self, batch) if batch.length > 1 else [0 * token for token in settled(self, batch)]

    monkeypatch.setattr(Triple, "settled", only_in_training)
    with caught("one decision at a time equals the training pass"):
        check_policy(TRIPLE)


def test_a_cache_that_loses_what_it_held_when_it_grows_is_caught(monkeypatch):
    doubled = Cache.doubled

    def emptied(self):
        grown = doubled(self)
        return Cache(torch.zeros_like(grown.keys), torch.zeros_like(grown.values))

    monkeypatch.setattr(Cache, "doubled", emptied)
    with caught("cached equals uncached"):
        check_policy(evolve(FULL, memory=evolve(FULL.memory, compressor=FullSpec())))
