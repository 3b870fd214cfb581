"""Which head of ours acts in a leaf."""

from collections.abc import Iterable

from cccad_core.heads.base import HeadSpec
from cccad_core.heads.categorical import CategoricalSpec
from cccad_core.heads.factored import FactoredSpec
from cccad_core.heads.gaussian import GaussianSpec
from cccad_core.spaces import Space


def ours(space: Space) -> Iterable[HeadSpec]:
    """Yield our heads that take *space*, a leaf; none where it is no leaf."""
    choices: tuple[HeadSpec, ...] = (CategoricalSpec(), FactoredSpec(), GaussianSpec())
    return (spec for spec in choices if spec.takes(space))
