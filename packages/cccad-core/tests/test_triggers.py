"""The laws of a trigger hold for ours, and each bug planted here is found by the law that names it."""

import pytest
from attrs import frozen
from cccad_core.laws.law import LawBroken
from cccad_core.laws.trigger import check_trigger
from cccad_core.memory.triggers import EpisodeTrigger, EveryTrigger, FullTrigger, RandomTrigger

OURS = [FullTrigger(), EveryTrigger(decisions=4), EveryTrigger(decisions=1), EpisodeTrigger(), RandomTrigger()]


@pytest.mark.parametrize("trigger", OURS, ids=str)
def test_ours_keep_the_laws(trigger):
    check_trigger(trigger)


@frozen
class OnlyInPasses(EveryTrigger):
    def is_due(self, num_new, ended):
        return num_new < 0


@frozen
class OnlyInLives(EveryTrigger):
    def limits(self, segment, ends, moment):
        return lambda _start: segment


@frozen
class LooksAhead(FullTrigger):
    """A window is short where few episodes end after it."""

    by_row = True

    def limits(self, segment, ends, moment):
        return lambda start: segment if sum(end > start for end in ends) > 20 else 2

    def is_due(self, num_new, ended):
        return num_new >= 2


@frozen
class DrawsAlone(RandomTrigger):
    def limits(self, segment, ends, moment):
        return lambda _start: segment if moment.shared_seed is None else moment.seed + 1


@frozen
class AsksForEndsInSecret(EpisodeTrigger):
    by_row = False


@pytest.mark.parametrize(
    ("trigger", "law"),
    [
        (OnlyInPasses(decisions=4), "a life writes where a pass does"),
        (OnlyInLives(decisions=4), "a life writes where a pass does"),
        (LooksAhead(), "no future"),
        (DrawsAlone(), "chance is shared"),
        (AsksForEndsInSecret(), "rows that differ write apart"),
    ],
)
def test_a_planted_bug_is_caught_by_its_law(trigger, law):
    with pytest.raises(LawBroken, match=f"law '{law}' is broken"):
        check_trigger(trigger)
