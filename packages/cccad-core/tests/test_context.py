"""When writes happen, worked out by hand for a window of 60 with 8 latents, and in general."""

import pytest
from cccad_core.context import ContextSpec
from hypothesis import given
from hypothesis import strategies as st


def cuts(context, num_decisions):
    return [(piece.raw_start, piece.start, piece.stop) for piece in context.pieces(num_decisions)]


@st.composite
def contexts(draw):
    num_latents, carry, segment = draw(st.integers(0, 9)), draw(st.integers(0, 9)), draw(st.integers(1, 9))
    spec = ContextSpec(window=max(2, num_latents + carry + segment), carry=carry)
    return spec.build(num_latents)


def test_pieces_without_carry_are_those_worked_out_by_hand():
    context = ContextSpec(window=60).build(8)
    assert cuts(context, 312) == [(at, at, at + 52) for at in (0, 52, 104, 156, 208, 260)]


def test_pieces_with_carry_are_those_worked_out_by_hand():
    context = ContextSpec(window=60, carry=10).build(8)
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
    assert ContextSpec(window=60, carry=carry).build(8).num_writes(num_decisions) == num_writes


@given(contexts(), st.integers(1, 200))
def test_pieces_follow_one_another_fit_the_window_and_have_a_write_between_each_two(context, num_decisions):
    pieces = context.pieces(num_decisions)
    assert [piece.start for piece in pieces] == [0, *(piece.stop for piece in pieces[:-1])]
    assert pieces[-1].stop == num_decisions
    assert all(context.num_latents + piece.stop - piece.raw_start <= context.window for piece in pieces)
    assert all(piece.start - piece.raw_start == context.carry for piece in pieces[1:])
    assert len(pieces) - 1 == context.num_writes(num_decisions)


@given(contexts(), st.integers(0, 50))
def test_the_longest_life_of_so_many_writes_has_so_many_and_one_decision_more_has_another(context, num_writes):
    length = context.length_of(num_writes)
    assert context.num_writes(length) == num_writes
    assert context.num_writes(length + 1) == num_writes + 1


def test_a_window_without_room_for_a_decision_is_refused():
    with pytest.raises(ValueError, match=r"'context.window' must be > latents \+ carry = 8 \+ 2: 10"):
        ContextSpec(window=10, carry=2).build(8)
