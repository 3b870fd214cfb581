"""A source that breaks what collection relies on is told which law it breaks."""

import pytest
from attrs import frozen
from cccad_data.collecting.source_laws import check_source
from cccad_data.families.toys import CorridorSpec
from cccad_data.laws import LawBrokenError
from cccad_data.sources.noisy_oracle import NoisyOracle, NoisyOracleSpec


class Lazy(NoisyOracle):
    """Plays one task too few."""

    def collect(self, family, tasks, *, seed, progress=None):
        return super().collect(family, tasks[:1], seed=seed, progress=progress)


class Restless(NoisyOracle):
    """Draws other numbers every time."""

    times = 0

    def collect(self, family, tasks, *, seed, progress=None):
        Restless.times += 1
        return super().collect(family, tasks, seed=seed + self.times, progress=progress)


class Mixing(NoisyOracle):
    """Draws numbers that depend on how many tasks there are."""

    def collect(self, family, tasks, *, seed, progress=None):
        return super().collect(family, tasks, seed=seed + len(tasks), progress=progress)


@frozen(kw_only=True)
class BrokenSpec(NoisyOracleSpec):
    kind: type = NoisyOracle

    def build(self):
        return self.kind(self)


def test_an_honest_source_keeps_all_laws():
    check_source(NoisyOracleSpec(num_envs=3, env_steps=40), CorridorSpec().build())


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (Lazy, "one set of histories per task"),
        (Restless, "the same seed gives the same arrays"),
        (Mixing, "a task's arrays do not depend on the tasks beside it"),
    ],
)
def test_a_source_that_breaks_a_law_is_told_which(kind, law):
    with pytest.raises(LawBrokenError, match=f"law '{law}' is broken"):
        check_source(BrokenSpec(kind=kind, num_envs=2, env_steps=40), CorridorSpec().build())
