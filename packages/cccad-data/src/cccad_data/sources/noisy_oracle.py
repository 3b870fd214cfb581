"""Histories without any learning: a good policy, its noise decaying over each life (arXiv 2312.12275)."""

from collections.abc import Sequence

from attrs import field, frozen

from cccad_data.errors import SourceError
from cccad_data.family import Task, TaskFamily
from cccad_data.histories.history import TaskHistories
from cccad_data.jobs.job import Progress
from cccad_data.sources.fading import FadingSpec, play, saved_policies
from cccad_data.sources.unit import Unit


@frozen(kw_only=True)
class NoisyOracleSpec(FadingSpec):
    """Act at random with probability eps, else by a good policy; eps falls linearly from 1 to 0 within each life.

    The good policy is the family's own optimal one, or a saved one.
    """

    store_optimal_actions: bool = field(
        default=True, metadata={"help": "keep the actions of the family's own optimal policy, too"}
    )

    def build(self) -> "NoisyOracle":
        """Return the source."""
        return NoisyOracle(self)


class NoisyOracle:
    """AD-eps: the histories of a policy that improves because its noise fades; optimal actions are kept as well."""

    name = "noisy-oracle"

    def __init__(self, spec: NoisyOracleSpec) -> None:
        self.spec = spec

    def collect(
        self, family: TaskFamily, tasks: Sequence[Task], *, seed: int, progress: Progress | None = None
    ) -> list[TaskHistories]:
        """Return `num_envs` histories of every task. *progress* gets the env steps done so far.

        Raises SourceError when the family has no optimum and no policy is given, or the policy does not fit.
        """
        unit = Unit(self, family, tasks, seed, progress)
        if not self.spec.policy and unit.oracle is None:
            raise SourceError(f"noisy-oracle needs a 'policy' file: family {family.name!r} knows no optimal actions")
        act = saved_policies(self.spec, family, tasks) if self.spec.policy else lambda _: unit.optimal_actions()
        play(unit, act, self.spec)
        return unit.histories()
