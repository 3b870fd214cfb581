"""Discrete actions that are never ruled out entirely: a head in one file.

Name the file in a spec, by its path relative to that spec, and its head is known there:

    imports = ["../plugins/smoothed_head.py"]

    [policy.head]
    kind = "smoothed"
    floor = 0.02

A share of the probability is spread evenly over all actions, so an agent keeps trying each of them now and then. To
write your own: copy this file, change the name, and run `cccad check head NAME --imports FILE`.
"""

import torch
from attrs import field, frozen, validators
from cccad_core.heads.base import ActionHead
from cccad_core.registry import register
from cccad_core.spaces import Discrete, Space
from torch import Tensor, nn


@register("head", "smoothed")
@frozen(kw_only=True)
class SmoothedHeadSpec:
    """A softmax mixed with the uniform distribution."""

    floor: float = field(
        default=0.02,
        validator=[validators.gt(0.0), validators.lt(1.0)],
        metadata={"help": "the probability that is spread evenly over all actions"},
    )

    def takes(self, space: Space) -> bool:
        return isinstance(space, Discrete)

    def build(self, space: Space, width: int) -> "SmoothedHead":
        assert isinstance(space, Discrete)
        return SmoothedHead(space.n, width, self.floor)


class SmoothedHead(ActionHead):
    """Parameters are log probabilities, `b t a`."""

    measure = "accuracy"

    def __init__(self, num_actions: int, width: int, floor: float) -> None:
        super().__init__()
        self.floor = floor
        self.logits = nn.Linear(width, num_actions)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.logits(hidden)
        chosen = (1 - self.floor) * logits.float().softmax(-1)
        return (chosen + self.floor / logits.shape[-1]).log()

    def nats(self, parameters: Tensor, actions: Tensor) -> Tensor:
        return -parameters.gather(-1, actions[..., None])[..., 0]

    def measured(self, parameters: Tensor, actions: Tensor) -> Tensor:
        return (parameters.argmax(-1) == actions).float()

    def draw(self, parameters: Tensor, generator: torch.Generator | None, *, greedy: bool) -> Tensor:
        if greedy:
            return parameters.argmax(-1)
        return torch.multinomial(parameters.exp(), 1, generator=generator)[:, 0]
