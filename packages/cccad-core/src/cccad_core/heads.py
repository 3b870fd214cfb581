"""Action heads: from a hidden state to a distribution over actions, its likelihood, and a draw from it."""

from abc import ABC, abstractmethod

import torch
from einops import rearrange
from torch import Tensor, nn

from cccad_core.spaces import Box, Discrete, Space
from cccad_core.tokens import unit_range


class ActionHead(nn.Module, ABC):
    """Parameters of a distribution over one action space; `b t d -> b t a`."""

    @abstractmethod
    def forward(self, hidden: Tensor) -> Tensor:
        """Return the distribution's parameters, `b t a`."""

    @abstractmethod
    def nats(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """Return the negative log-likelihood of *actions*, `b t`, in nats per decision."""

    measure: str
    "What `measured` is: `accuracy`, or for boxes `squared_error`, the mean over features."

    @abstractmethod
    def measured(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """Return how the mode compares with *actions*, `b t`, by the head's `measure`."""

    @abstractmethod
    def draw(self, parameters: Tensor, generator: torch.Generator | None, *, greedy: bool) -> Tensor:
        """Return one action per row of `b a`: `b`, or `b a` for boxes."""


class Categorical(ActionHead):
    """Logits over *n* discrete actions."""

    measure = "accuracy"

    def __init__(self, space: Discrete, width: int) -> None:
        super().__init__()
        self.logits = nn.Linear(width, space.n)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.logits(hidden)
        return logits

    def nats(self, parameters: Tensor, actions: Tensor) -> Tensor:
        flat = nn.functional.cross_entropy(parameters.flatten(0, 1).float(), actions.flatten(), reduction="none")
        return rearrange(flat, "(b t) -> b t", b=actions.shape[0])

    def measured(self, parameters: Tensor, actions: Tensor) -> Tensor:
        return (parameters.argmax(-1) == actions).float()

    def draw(self, parameters: Tensor, generator: torch.Generator | None, *, greedy: bool) -> Tensor:
        if greedy:
            return parameters.argmax(-1)
        return torch.multinomial(parameters.float().softmax(-1), 1, generator=generator)[:, 0]


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
        told: Tensor = torch.distributions.Normal(mean, log_std.exp()).log_prob(u)
        stretched = torch.log1p(-inside.square()) + self.scale.log()  # log of the slope of the squashing
        varies = self.high > self.low
        return torch.where(varies, torch.where(self.bounded, stretched, 0.0) - told, 0.0).sum(-1)

    def measured(self, parameters: Tensor, actions: Tensor) -> Tensor:
        return (self._squash(self._split(parameters)[0]) - actions).square().mean(-1)

    def draw(self, parameters: Tensor, generator: torch.Generator | None, *, greedy: bool) -> Tensor:
        mean, log_std = self._split(parameters)
        if greedy:
            return self._squash(mean)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return self._squash(mean + log_std.exp() * noise)


def build_head(space: Space, width: int) -> ActionHead:
    """Return the head that fits the action space; raises ValueError where there is none."""
    if isinstance(space, Discrete):
        return Categorical(space, width)
    if isinstance(space, Box):
        return Gaussian(space, width)
    raise ValueError(f"actions must be 'discrete' or 'box', not {type(space).__name__!r}")
