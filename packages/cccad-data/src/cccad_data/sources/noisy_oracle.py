"""Histories without any learning: a good policy, its noise decaying over each life (arXiv 2312.12275)."""

from attrs import field, frozen

from cccad_data.errors import SourceError
from cccad_data.sources.fading import FadingSpec, play_fading, saved_policies
from cccad_data.sources.unit import Unit, UnitSource


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


class NoisyOracle(UnitSource[NoisyOracleSpec]):
    """AD-eps: the histories of a policy that improves because its noise fades; optimal actions are kept as well."""

    name = "noisy-oracle"

    def play(self, unit: Unit) -> None:
        """Take env steps, less and less of them random.

        Raises SourceError when the family has no optimum and no policy is given, or the policy does not fit.
        """
        family = unit.family
        if not self.spec.policy and unit.oracle is None:
            raise SourceError(f"noisy-oracle needs a 'policy' file: family {family.name!r} knows no optimal actions")
        act = saved_policies(self.spec, family, unit.tasks) if self.spec.policy else lambda _: unit.optimal_actions()
        play_fading(unit, act, self.spec)
