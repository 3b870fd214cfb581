"""A logit for each choice of each action feature; the features are drawn apart."""

import torch
from attrs import frozen
from torch import Tensor, nn

from cccad_core.heads.base import ActionHead
from cccad_core.spaces import MultiDiscrete, Space


@frozen(kw_only=True)
class FactoredSpec:
    """A logit for each choice of each feature of a multi-discrete action; features are independent of one another."""

    def takes(self, space: Space) -> bool:
        return isinstance(space, MultiDiscrete)

    def build(self, space: Space, width: int) -> "Factored":
        assert isinstance(space, MultiDiscrete)
        return Factored(space, width)


class Factored(ActionHead):
    """Logits of all features, one behind the other; an action is right where all of its features are."""

    measure = "accuracy"

    def __init__(self, space: MultiDiscrete, width: int) -> None:
        super().__init__()
        self.sizes = list(space.sizes)
        self.logits = nn.Linear(width, sum(self.sizes))

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.logits(hidden)
        return logits

    def nats(self, parameters: Tensor, actions: Tensor) -> Tensor:
        logs = [part.log_softmax(-1) for part in parameters.float().split(self.sizes, -1)]
        of_features = [part.gather(-1, actions[..., i, None])[..., 0] for i, part in enumerate(logs)]
        return -torch.stack(of_features).sum(0)

    def measured(self, parameters: Tensor, actions: Tensor) -> Tensor:
        return (self._mode(parameters) == actions).all(-1).float()

    def draw(self, parameters: Tensor, generator: torch.Generator | None, *, greedy: bool) -> Tensor:
        if greedy:
            return self._mode(parameters)
        shares = [part.softmax(-1) for part in parameters.float().split(self.sizes, -1)]
        return torch.cat([torch.multinomial(part, 1, generator=generator) for part in shares], -1)

    def divergence(self, parameters: Tensor, wanted: Tensor) -> Tensor:
        pairs = zip(parameters.float().split(self.sizes, -1), wanted.float().split(self.sizes, -1), strict=True)
        logs = [(part.log_softmax(-1), wanted_part.log_softmax(-1)) for part, wanted_part in pairs]
        return torch.stack([(wanted_log.exp() * (wanted_log - log)).sum(-1) for log, wanted_log in logs]).sum(0)

    def _mode(self, parameters: Tensor) -> Tensor:
        return torch.stack([part.argmax(-1) for part in parameters.split(self.sizes, -1)], -1)
