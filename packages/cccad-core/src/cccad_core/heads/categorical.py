"""A logit for each discrete action."""

import torch
from attrs import frozen
from einops import rearrange
from torch import Tensor, nn

from cccad_core.heads.base import ActionHead
from cccad_core.spaces import Discrete, Space


@frozen(kw_only=True)
class CategoricalSpec:
    """A logit for each discrete action."""

    def takes(self, space: Space) -> bool:
        return isinstance(space, Discrete)

    def build(self, space: Space, width: int) -> "Categorical":
        assert isinstance(space, Discrete)
        return Categorical(space, width)


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

    def divergence(self, parameters: Tensor, wanted: Tensor) -> Tensor:
        logs = parameters.float().log_softmax(-1)
        return nn.functional.kl_div(logs, wanted.float().log_softmax(-1), reduction="none", log_target=True).sum(-1)
