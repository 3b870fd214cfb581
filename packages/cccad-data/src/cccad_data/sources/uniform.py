"""Histories of nobody: uniformly random actions, for controls and for offline data without any learning."""

from collections.abc import Sequence

from attrs import frozen

from cccad_data import spaces
from cccad_data.family import Task, TaskFamily
from cccad_data.histories.history import TaskHistories
from cccad_data.jobs.job import Progress
from cccad_data.sources.unit import LifeSpec, Unit
from cccad_data.spaces import uniform_actions


@frozen(kw_only=True)
class RandomSpec(LifeSpec):
    """Act uniformly at random; in a box, uniformly within its bounds."""

    def build(self) -> "Random":
        """Return the source."""
        return Random(self)


class Random:
    """Histories that do not improve."""

    name = "random"
    learns = False

    def __init__(self, spec: RandomSpec) -> None:
        self.spec = spec

    def collect(
        self, family: TaskFamily, tasks: Sequence[Task], *, seed: int, progress: Progress | None = None
    ) -> list[TaskHistories]:
        """Return `num_envs` histories of every task. *progress* gets the env steps done so far.

        Raises SourceError when actions have no finite bounds.
        """
        unit = Unit(self, family, tasks, seed, progress)
        width = spaces.num_features(unit.action_space)
        while not unit.is_over:
            unit.step(uniform_actions(unit.action_space, unit.uniform(width)))
        return unit.histories()
