"""A Gaussian for each real action feature, squashed into the bounds that the feature has."""

import torch
from attrs import frozen
from torch import Tensor, nn

from cccad_core.heads.base import ActionHead
from cccad_core.scaling import unit_range
from cccad_core.spaces import Box, Space


@frozen(kw_only=True)
class GaussianSpec:
    """Mean and standard deviation of each real action feature, squashed into its bounds."""

    def takes(self, space: Space) -> bool:
        return isinstance(space, Box) and space.dtype == "float32"

    def build(self, space: Space, width: int) -> "Gaussian":
        assert isinstance(space, Box)
        return Gaussian(space, width)


class Gaussian(ActionHead):
    """Mean and log standard deviation of a diagonal Gaussian per action feature, squashed into the bounds it has.

    A feature with two finite bounds is `centre + scale * tanh(u)`, and u is Gaussian (arXiv 1801.01290, appendix C);
    one without is u itself, cut off at the bound that it may have. An action at its bound has no finite u, so it counts
    as lying `MARGIN` inside. A feature whose bounds are equal costs nothing and is always right.
    """

    measure = "squared_error"
    MARGIN = 1e-4  # of half the range between the bounds
    centre: Tensor
    scale: Tensor
    bounded: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, space: Box, width: int) -> None:
        super().__init__()
        low, high = (torch.tensor(bound, dtype=torch.float32) for bound in space.bounds())
        centre, scale, bounded = unit_range(space)
        buffers = {"centre": centre, "scale": scale, "bounded": bounded, "low": low, "high": high}
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)
        self.parameters_of = nn.Linear(width, 2 * space.num_features)

    def forward(self, hidden: Tensor) -> Tensor:
        parameters: Tensor = self.parameters_of(hidden)
        return parameters

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = parameters.float().chunk(2, -1)
        return mean, log_std.clamp(-5.0, 2.0)

    def _squash(self, u: Tensor) -> Tensor:
        return torch.where(self.bounded, self.centre + self.scale * u.tanh(), u).clamp(self.low, self.high)

    def nats(self, parameters: Tensor, actions: Tensor) -> Tensor:
        mean, log_std = self._split(parameters)
        inside = ((actions - self.centre) / self.scale).clamp(self.MARGIN - 1, 1 - self.MARGIN)
        u = torch.where(self.bounded, inside.atanh(), actions)
        log_density: Tensor = torch.distributions.Normal(mean, log_std.exp()).log_prob(u)
        stretched = torch.log1p(-inside.square()) + self.scale.log()  # log of the slope of the squashing
        varies = self.high > self.low
        return torch.where(varies, torch.where(self.bounded, stretched, 0.0) - log_density, 0.0).sum(-1)

    def measured(self, parameters: Tensor, actions: Tensor) -> Tensor:
        return (self._squash(self._split(parameters)[0]) - actions).square().mean(-1)

    def draw(self, parameters: Tensor, generator: torch.Generator | None, *, greedy: bool) -> Tensor:
        mean, log_std = self._split(parameters)
        if greedy:
            return self._squash(mean)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return self._squash(mean + log_std.exp() * noise)
