"""Our heads keep their laws, and each bug planted here is caught by the law that names it."""

from typing import Any

import pytest
import torch
from attrs import frozen
from cccad_core.heads.base import HeadSpec
from cccad_core.heads.categorical import Categorical, CategoricalSpec
from cccad_core.heads.gaussian import Gaussian, GaussianSpec
from cccad_core.laws.head import check_head
from cccad_core.laws.law import LawBroken
from cccad_core.registry import lookup, names


@pytest.mark.parametrize("name", names("head"))
def test_every_head_keeps_its_laws(name):
    check_head(lookup("head", name)())


@frozen
class Planted:
    """Builds, for the spaces that *spec* takes, something else."""

    spec: HeadSpec
    make: Any

    def takes(self, space):
        return self.spec.takes(space)

    def build(self, space, width):
        return self.make(space, width)


class NoHead(torch.nn.Linear):
    pass


class Transposed(Categorical):
    def nats(self, parameters, actions):
        return super().nats(parameters, actions).T


class Beside(Categorical):
    def forward(self, hidden):
        return super().forward(hidden - hidden.mean(0))


class Sharpened(Categorical):
    def draw(self, parameters, generator, *, greedy):
        return super().draw(3 * parameters, generator, greedy=greedy)


class Greedy(Categorical):
    def draw(self, parameters, generator, *, greedy):
        return super().draw(parameters, generator, greedy=True)


class Least(Categorical):
    def draw(self, parameters, generator, *, greedy):
        return parameters.argmin(-1) if greedy else super().draw(parameters, generator, greedy=False)


class Unscaled(Categorical):
    def nats(self, parameters, actions):
        return -parameters.gather(-1, actions[..., None])[..., 0]


class Slopeless(Gaussian):
    def nats(self, parameters, actions):
        mean, log_std = self._split(parameters)
        u = ((actions - self.centre) / self.scale).clamp(-0.999, 0.999).atanh()
        return -torch.distributions.Normal(mean, log_std.exp()).log_prob(u).sum(-1)


class Unbounded(Gaussian):
    def _squash(self, u):
        return 2 * self.centre.abs().max() + 5 + u


class Deaf(Categorical):
    def forward(self, hidden):
        return self.logits(hidden).detach() + 0 * self.logits.weight.sum()


class Shifting(Categorical):
    def nats(self, parameters, actions):
        return super().nats(parameters.sub_(1.0), actions)


class Global(Categorical):
    def draw(self, parameters, generator, *, greedy):
        return super().draw(parameters, None, greedy=greedy)


class Unsure(Categorical):
    measure: Any = "hits"


class Tempered(Categorical):
    """Scales its logits by a number that no state dictionary holds."""

    def __init__(self, space, width):
        super().__init__(space, width)
        self.temperature = torch.rand(())

    def forward(self, hidden):
        return super().forward(hidden) * self.temperature


@frozen
class TakesAll:
    def takes(self, _space):
        return True

    def build(self, space, width):
        return Categorical(space, width)


BROKEN_HEADS: dict[str, HeadSpec] = {
    "a head is built": Planted(CategoricalSpec(), lambda space, width: NoHead(width, space.n)),
    "declared size": Planted(CategoricalSpec(), Transposed),
    "every decision for itself": Planted(CategoricalSpec(), Beside),
    "actions are drawn as often as is said": Planted(CategoricalSpec(), Sharpened),
    "the generator alone decides": Planted(CategoricalSpec(), Greedy),
    "a greedy draw is the mode": Planted(CategoricalSpec(), Least),
    "likelihoods sum to one": Planted(CategoricalSpec(), Unscaled),
    "draws lie in the space": Planted(GaussianSpec(), Unbounded),
    "every weight learns": Planted(CategoricalSpec(), Deaf),
    "what is asked stays as it is": Planted(CategoricalSpec(), Shifting),
    "weights are kept": Planted(CategoricalSpec(), Tempered),
    "what is taken can be used": TakesAll(),
}


@pytest.mark.parametrize("law", BROKEN_HEADS)
def test_a_bug_in_a_head_is_caught_by_its_law(law):
    with pytest.raises(LawBroken, match=f"law '{law}' is broken"):
        check_head(BROKEN_HEADS[law])


def test_a_squashed_likelihood_without_its_slope_is_caught():
    with pytest.raises(LawBroken, match="law 'likelihoods sum to one' is broken"):
        check_head(Planted(GaussianSpec(), Slopeless))


def test_draws_from_torchs_own_generator_are_caught():
    with pytest.raises(LawBroken, match="law 'the generator alone decides' is broken"):
        check_head(Planted(CategoricalSpec(), Global))


def test_a_measure_that_no_report_knows_is_caught():
    with pytest.raises(LawBroken, match="law 'a head is built' is broken: its measure is 'hits'"):
        check_head(Planted(CategoricalSpec(), Unsure))
