"""When writes happen, worked out by hand for a window of 60 with 8 latents, and in general."""

import pytest
import torch
from attrs import evolve
from cccad_core.errors import SpecError
from cccad_core.memory.context import RollingContext
from cccad_core.memory.moment import Moment
from cccad_core.memory.triggers import EpisodeTrigger, EveryTrigger, FullTrigger, RandomTrigger
from cccad_core.policy import PolicySpec
from cccad_core.specs import structure
from hypothesis import given
from hypothesis import strategies as st


def cuts(context, num_decisions):
    return [(piece.raw_start, piece.start, piece.stop) for piece in context.cut(num_decisions)]


@st.composite
def contexts(draw):
    num_latents, carry, segment = draw(st.integers(0, 9)), draw(st.integers(0, 9)), draw(st.integers(1, 9))
    slots, every = draw(st.sampled_from([1, 3])), draw(st.none() | st.integers(1, 12))
    trigger = FullTrigger() if every is None else EveryTrigger(decisions=every)
    window = max(2, num_latents + slots * (carry + segment))
    return RollingContext(window=window, carry=carry, trigger=trigger, num_latents=num_latents, slots=slots)


def test_pieces_without_carry_are_those_worked_out_by_hand():
    context = RollingContext(window=60, num_latents=8)
    assert cuts(context, 312) == [(at, at, at + 52) for at in (0, 52, 104, 156, 208, 260)]


def test_pieces_with_carry_are_those_worked_out_by_hand():
    context = RollingContext(window=60, carry=10, num_latents=8)
    later = [(at - 10, at, min(at + 42, 312)) for at in (52, 94, 136, 178, 220, 262, 304)]
    assert cuts(context, 312) == [(0, 0, 52), *later]


@pytest.mark.parametrize(
    ("carry", "num_decisions", "num_writes"),
    [
        *[(0, 1, 0), (0, 52, 0), (0, 53, 1), (0, 104, 1), (0, 105, 2), (0, 312, 5), (0, 313, 6)],
        *[(10, 1, 0), (10, 52, 0), (10, 53, 1), (10, 94, 1), (10, 95, 2), (10, 105, 2), (10, 312, 7)],
    ],
)
def test_writes_are_those_worked_out_by_hand(carry, num_decisions, num_writes):
    assert RollingContext(window=60, carry=carry, num_latents=8).num_writes(num_decisions) == num_writes


@given(contexts(), st.integers(1, 200))
def test_pieces_follow_one_another_fit_the_window_and_have_a_write_between_each_two(context, num_decisions):
    pieces = context.cut(num_decisions)
    assert [piece.start for piece in pieces] == [0, *(piece.stop for piece in pieces[:-1])]
    assert pieces[-1].stop == num_decisions
    taken = [context.num_latents + context.slots * (piece.stop - piece.raw_start) for piece in pieces]
    assert max(taken) <= context.window
    assert all(piece.start - piece.raw_start == min(context.carry, piece.start) for piece in pieces[1:])
    assert len(pieces) - 1 == context.num_writes(num_decisions)


@given(contexts(), st.integers(0, 50))
def test_the_longest_life_of_so_many_writes_has_so_many_and_one_decision_more_has_another(context, num_writes):
    length = context.length_of(num_writes)
    assert context.num_writes(length) == num_writes
    assert context.num_writes(length + 1) == num_writes + 1


def test_an_episodes_end_triggers_a_write_and_a_full_window_does_too():
    context = RollingContext(window=10, carry=2, trigger=EpisodeTrigger(), num_latents=4)
    assert [(p.raw_start, p.start, p.stop) for p in context.cut(13, ends=[0, 3, 12])] == [
        (0, 0, 1),
        (0, 1, 4),
        (2, 4, 8),
        (6, 8, 12),
        (10, 12, 13),
    ]


def test_a_number_of_decisions_triggers_a_write_unless_the_window_is_full_before():
    often, rarely = (
        RollingContext(window=10, trigger=EveryTrigger(decisions=number), num_latents=4) for number in (3, 9)
    )
    assert cuts(often, 8) == [(0, 0, 3), (3, 3, 6), (6, 6, 8)]
    assert cuts(rarely, 8) == [(0, 0, 6), (6, 6, 8)]


def test_chance_cuts_segments_of_every_length_up_to_the_longest_and_equally_often():
    context = RollingContext(window=10, carry=2, trigger=RandomTrigger(), num_latents=4)
    pieces = context.cut(8_000, moment=Moment(shared_seed=0))
    counts = [sum(piece.stop - piece.start == length for piece in pieces) for length in range(1, 6)]
    assert counts[4] == 0
    assert all(abs(count / len(pieces) - 0.25) < 0.03 for count in counts[:4])


def test_where_nothing_is_evicted_there_is_one_window_and_lengths_are_those_of_a_bounded_one():
    bounded = RollingContext(window=20, carry=5, trigger=EveryTrigger(decisions=4), num_latents=0)
    context = evolve(bounded, evicts=False)
    assert cuts(context, 500) == [(0, 0, 500)]
    assert context.num_writes(500) == 0
    assert context.length_of(3) == bounded.length_of(3)


def test_a_number_of_decisions_is_at_least_one():
    with pytest.raises(ValueError, match="'decisions' must be >= 1: 0"):
        EveryTrigger(decisions=0)


def test_a_spec_of_old_is_told_the_new_place_of_its_trigger():
    with pytest.raises(SpecError) as refused:
        structure({"context": {"window": 20, "trigger": "every", "every": 3}}, PolicySpec)
    problems = str(refused.value)
    for name, place in (("window", "window"), ("trigger", "trigger"), ("every", "trigger.decisions")):
        assert f"the field 'context.{name}' is now 'memory.{place}'" in problems


def test_a_window_without_room_for_the_tokens_of_a_transition_is_refused():
    with pytest.raises(ValueError, match=r"must be > latents \+ 3 \* carry \+ 2 = 8 \+ 6 \+ 2: 16"):
        RollingContext(window=16, carry=2, num_latents=8, slots=3)


def test_a_window_without_room_for_a_decision_is_refused():
    with pytest.raises(ValueError, match=r"'memory.window' must be > latents \+ carry = 8 \+ 2: 10"):
        RollingContext(window=10, carry=2, num_latents=8)


def test_a_write_is_due_where_the_window_is_full_and_the_count_is_reached_at_once():
    context = RollingContext(window=12, trigger=EveryTrigger(decisions=10), num_latents=2)
    num_raw = torch.tensor([9, 10, 10])
    assert context.due(num_raw, torch.tensor([9, 10, 4]), num_raw < 0).tolist() == [False, True, True]


def test_a_rule_that_says_nothing_of_slots_takes_one_for_a_transition():
    assert RollingContext(window=10, carry=0, num_latents=2).first_segment == 8
