"""Streams by name: each of its own, and the same wherever it is drawn."""

from itertools import combinations

from cccad_data import chance

NAMED = [(0, "ppo", "task"), (0, "ppotask"), (0, "pp", "otask"), (0, "ppo"), (1, "ppo", "task"), (1, "0"), (10,), (0,)]


def test_streams_of_different_names_are_different_where_the_names_end_elsewhere_too():
    drawn = {name: chance.generator(*name).integers(2**63, size=4).tolist() for name in NAMED}
    for one, other in combinations(NAMED, 2):
        assert drawn[one] != drawn[other], (one, other)


def test_a_stream_is_the_same_on_every_machine():
    assert chance.generator(4, "ppo", "corridor/goal-1").integers(1000, size=4).tolist() == [455, 694, 923, 616]
    assert chance.seed_of(4, "ppo", "corridor/goal-1") == 977465129
