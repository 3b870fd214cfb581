"""Histories of nobody: uniformly random actions, for controls and for offline data without any learning."""

from attrs import frozen

from cccad_data import spaces
from cccad_data.sources.unit import LifeSpec, Unit, UnitSource
from cccad_data.spaces import uniform_actions


@frozen(kw_only=True)
class RandomSpec(LifeSpec):
    """Act uniformly at random; in a box, uniformly within its bounds."""

    def build(self) -> "Random":
        """Return the source."""
        return Random(self)


class Random(UnitSource[RandomSpec]):
    """Histories that do not improve."""

    name = "random"
    learns = False

    def play(self, unit: Unit) -> None:
        """Take random env steps; raises SourceError when actions have no finite bounds."""
        width = spaces.num_features(unit.action_space)
        while not unit.is_over:
            unit.step(uniform_actions(unit.action_space, unit.uniform(width)))
