"""Our encoders keep their laws, and each bug planted here is caught by the law that names it."""

from typing import Any

import numpy as np
import pytest
import torch
from attrs import frozen
from cccad_core.encoders.base import EncoderSpec
from cccad_core.encoders.linear import Projection, ProjectionSpec
from cccad_core.encoders.table import Table, TableSpec
from cccad_core.laws.encoder import check_encoder
from cccad_core.laws.law import LawBroken
from cccad_core.registry import lookup, names
from cccad_core.spaces import Discrete, MultiDiscrete


@pytest.mark.parametrize("name", names("encoder"))
def test_every_encoder_keeps_its_laws(name):
    check_encoder(lookup("encoder", name)())


@frozen
class Planted:
    """Builds, for the spaces that *spec* takes, something else."""

    spec: EncoderSpec
    make: Any

    def takes(self, space):
        return self.spec.takes(space)

    def build(self, space, width):
        return self.make(space, width)


class NoEncoder(torch.nn.Linear):
    pass


class Narrow(Projection):
    def forward(self, values):
        return super().forward(values)[..., 1:]


class Overflowing(Projection):
    def forward(self, values):
        return super().forward(values * 1e30 * 1e30)


class Centred(Projection):
    def forward(self, values):
        return super().forward(values - values.mean((0, 1), keepdim=True) if values.dim() == 3 else values)


class Counting(Projection):
    calls = 0

    def forward(self, values):
        self.calls += 1
        return super().forward(values) + 1e-3 * self.calls


class Blind(Projection):
    def forward(self, values):
        return super().forward(values * torch.tensor([1.0, 0.0, 1.0, 1.0]))


class FirstAlone(Table):
    def forward(self, values):
        return torch.nn.functional.embedding(values[..., 0], self.table)


class Frozen(Projection):
    def forward(self, values):
        return super().forward(values).detach() + 0 * self.project.weight.sum()


class Scaling(Projection):
    def forward(self, values):
        return super().forward(values.mul_(0.5))


class OwnDraw(Projection):
    """Draws its weights by NumPy."""

    def __init__(self, space, width):
        super().__init__(space, width)
        drawn = np.random.default_rng().normal(size=self.project.weight.shape)
        self.project.weight.data = torch.tensor(drawn, dtype=torch.float32)


class Unsaved(Projection):
    """Draws numbers that no state dictionary holds."""

    def __init__(self, space, width):
        super().__init__(space, width)
        self.shift = torch.randn(width)

    def forward(self, values):
        return super().forward(values) + self.shift


@frozen
class Greedy:
    """Says that it takes everything."""

    def takes(self, _space):
        return True

    def build(self, space, width):
        return Projection(space, width)


BROKEN_ENCODERS: dict[str, EncoderSpec] = {
    "an encoder is built": Planted(ProjectionSpec(), lambda space, width: NoEncoder(space.num_features, width)),
    "declared size": Planted(ProjectionSpec(), Narrow),
    "finite values": Planted(ProjectionSpec(), Overflowing),
    "every value for itself": Planted(ProjectionSpec(), Centred),
    "a function of the value": Planted(ProjectionSpec(), Counting),
    "different values, different vectors": Planted(ProjectionSpec(), Blind),
    "every weight learns": Planted(ProjectionSpec(), Frozen),
    "what is read stays as it is": Planted(ProjectionSpec(), Scaling),
    "the seed draws the weights": Planted(ProjectionSpec(), OwnDraw),
    "weights are kept": Planted(ProjectionSpec(), Unsaved),
    "what is taken can be used": Greedy(),
}


@pytest.mark.parametrize("law", BROKEN_ENCODERS)
def test_a_bug_in_an_encoder_is_caught_by_its_law(law):
    with pytest.raises(LawBroken, match=f"law '{law}' is broken"):
        check_encoder(BROKEN_ENCODERS[law])


class Forgetful(Projection):
    """Keeps what it measures beside its weights, and not among them."""

    def __init__(self, space, width):
        super().__init__(space, width, is_measured=True)
        self.mean = torch.zeros(space.num_features)

    def measure(self, values):
        self.mean = values.float().mean(0)

    def forward(self, values):
        return super().forward(values - self.mean)


class Dividing(Projection):
    """Divides by a deviation that may be zero."""

    def __init__(self, space, width):
        super().__init__(space, width, is_measured=True)

    def measure(self, values):
        self.scale.copy_(values.float().std(0))


@pytest.mark.parametrize(("make", "law"), [(Forgetful, "weights are kept"), (Dividing, "finite values")])
def test_a_bug_in_what_is_measured_is_caught(make, law):
    with pytest.raises(LawBroken, match=f"law '{law}' is broken"):
        check_encoder(Planted(ProjectionSpec(), make))


def test_a_coordinate_that_is_not_looked_up_is_caught():
    spec = Planted(TableSpec(), lambda space, width: FirstAlone(space.sizes, width))
    with pytest.raises(LawBroken, match="become the same vector"):
        check_encoder(spec, space=MultiDiscrete((3, 4)))


def test_a_space_that_is_not_taken_is_named():
    with pytest.raises(LawBroken, match=r"law 'an encoder takes a space' is broken: takes\(\) says no to .* discrete"):
        check_encoder(ProjectionSpec(), space=Discrete(3))
