"""Bandit learners: UCB1 and Thompson sampling, a learner per history, for environments with one state.

Legend: `r` rows (one learner each), `a` actions (arms).
"""

from abc import abstractmethod
from typing import Literal, final

import numpy as np
from attrs import field, frozen, validators

from cccad_data.errors import SourceError
from cccad_data.plain import Array
from cccad_data.sources.unit import LifeSpec, S, Unit, UnitSource, num_discrete


@frozen(kw_only=True)
class UCBSpec(LifeSpec):
    """UCB1 for bandits: the arm with the highest mean so far plus a bonus for few pulls."""

    scale: float = field(
        default=2.0**0.5,
        validator=validators.ge(0.0),
        metadata={"help": "of the bonus sqrt(ln(all pulls) / pulls of the arm), in units of reward"},
    )

    def build(self) -> "UCB":
        """Return the source."""
        return UCB(self)


@frozen(kw_only=True)
class ThompsonSpec(LifeSpec):
    """Thompson sampling for bandits: the arm that is best in an environment drawn from the posterior."""

    prior: Literal["beta", "gaussian"] = field(
        default="beta",
        validator=validators.in_(("beta", "gaussian")),
        metadata={"help": "beta(1, 1) for rewards of 0 or 1; gaussian(0, 1) for any"},
    )
    noise_std: float = field(
        default=1.0, validator=validators.gt(0.0), metadata={"help": "of one reward; for the gaussian prior alone"}
    )

    def build(self) -> "Thompson":
        """Return the source."""
        return Thompson(self)


class BanditSource(UnitSource[S]):
    """Histories of learners that know how often they pulled each arm and what it paid."""

    @abstractmethod
    def _merit(self, unit: Unit, pulls: Array, paid: Array) -> Array:
        """Return what each arm promises after *pulls* pulls that *paid* so much in all, `r a`."""

    @final
    def play(self, unit: Unit) -> None:
        """Pull arms; a life goes on over the ends of episodes.

        Raises SourceError when actions are not discrete, there is more than one state, or rewards are out of range.
        """
        (num_arms,) = num_discrete(self, unit.family)
        if np.prod(num_discrete(self, unit.family, "observation"), dtype=np.float64) > 1:
            raise SourceError(
                f"{self.name} is for bandits, with one state; family {unit.family.name!r} has more: try q-learning"
            )
        pulls, paid = np.zeros((2, unit.num_rows, num_arms))
        rows = np.arange(unit.num_rows)
        while not unit.is_over:
            arms = self._merit(unit, pulls, paid).argmax(1)
            rewards = unit.step(arms)[1]
            pulls[rows, arms] += 1.0
            paid[rows, arms] += rewards


@final
class UCB(BanditSource[UCBSpec]):
    """UCB1 (Auer et al. 2002): every arm once, in random order, then optimism."""

    name = "ucb"

    def _merit(self, unit: Unit, pulls: Array, paid: Array) -> Array:
        if unit.now < pulls.shape[1]:
            return np.where(pulls == 0.0, unit.uniform(pulls.shape[1]), -1.0)
        merit: Array = paid / pulls + self.spec.scale * np.sqrt(np.log(unit.now) / pulls)
        return merit


@final
class Thompson(BanditSource[ThompsonSpec]):
    """Thompson sampling (arXiv 1111.1797), with conjugate posteriors."""

    name = "thompson"

    def _merit(self, unit: Unit, pulls: Array, paid: Array) -> Array:
        parts = zip(unit.streams, np.split(pulls, unit.num_tasks), np.split(paid, unit.num_tasks), strict=True)
        return np.concatenate([self._drawn(stream, *counts) for stream, *counts in parts])

    def _drawn(self, stream: np.random.Generator, pulls: Array, paid: Array) -> Array:
        if self.spec.prior == "beta":
            if (paid % 1.0).any() or (paid < 0.0).any() or (paid > pulls).any():
                raise SourceError("thompson with prior 'beta' needs rewards of 0 or 1; choose prior = \"gaussian\"")
            return np.asarray(stream.beta(1.0 + paid, 1.0 + pulls - paid))
        precision = 1.0 + pulls / self.spec.noise_std**2
        mean = paid / self.spec.noise_std**2 / precision
        return np.asarray(stream.normal(mean, precision**-0.5))
