"""Every registered family keeps the laws of families; crosses cccad-envs and cccad-data."""

from importlib.metadata import entry_points
from typing import Any

import pytest
from cccad_data.families.laws import check_family
from cccad_data.family import HasOptimum, HasRandomReturn, KnowsDynamics, Replayable, TaskFamily
from cccad_envs import (
    BanditSpec,
    DarkKeyToDoorSpec,
    DarkroomPermutedSpec,
    DarkroomSpec,
    FrozenMapsSpec,
    LargeDarkroomSpec,
    PointRobotSpec,
    RecallSpec,
    SwitchingDarkroomSpec,
    TMazeSpec,
)

REGISTERED = {point.name: point.load() for point in entry_points(group="cccad.env")}
OF_ITSELF = sorted(REGISTERED.keys() - {"gymnasium"})
"""Families that need no settings; those of Gymnasium's environments are in test_gymnasium_family.py."""
VARIANTS: list[Any] = [
    DarkroomSpec(size=4, horizon=4),
    DarkKeyToDoorSpec(size=3, horizon=12),
    DarkroomPermutedSpec(size=4, horizon=5, num_permutations=7),
    LargeDarkroomSpec(width=5, height=3, horizon=9),
    SwitchingDarkroomSpec(size=3, horizon=4, num_episodes_each=2),
    BanditSpec(num_arms=3, horizon=11, num_tasks=50),
    BanditSpec(num_arms=4, horizon=1, reward="gaussian", num_tasks=50),
    RecallSpec(num_bits=3, num_filler=2),
    RecallSpec(num_bits=2, num_symbols=3, num_filler=0, resample=False),
    PointRobotSpec(goals="circle", arena=1.0, horizon=8),
    PointRobotSpec(reward="dense", goals="square", horizon=5),
    TMazeSpec(shortest=1, longest=9, spacing=4, patience=1),
    FrozenMapsSpec(size=4, horizon=15, num_tasks=20, is_slippery=True),
    FrozenMapsSpec(size=3, horizon=8, num_tasks=9),
]


@pytest.mark.parametrize("name", OF_ITSELF)
def test_a_registered_family_keeps_all_laws(name):
    spec = REGISTERED[name]()
    check_family(spec)
    family = spec.build()
    assert family.name == name
    assert isinstance(family, TaskFamily)


@pytest.mark.parametrize("spec", VARIANTS, ids=str)
def test_other_settings_of_a_family_keep_all_laws(spec):
    check_family(spec)
    family = spec.build()
    for kind in (HasOptimum, HasRandomReturn, KnowsDynamics, Replayable):
        assert isinstance(family, kind)


def test_variants_are_of_every_family_of_ours():
    ours = {name for name, spec_class in REGISTERED.items() if spec_class.__module__.startswith("cccad_envs.")}
    assert ours - {"gymnasium"} == {spec.build().name for spec in VARIANTS}
