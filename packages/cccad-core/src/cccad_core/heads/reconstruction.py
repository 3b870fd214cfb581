"""Ask the latents what happened: rebuild the real fields of folded transitions, never the model's own embeddings.

Given where in the segment a transition stood and what was observed there, the latents must tell the action, the reward
and the next observation: cross-entropy for discrete fields, squared error for real ones.
"""

import torch
from attrs import frozen
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy

from cccad_core.batch import HistoryBatch
from cccad_core.compressors.base import sinusoids
from cccad_core.compressors.latents import Look
from cccad_core.encoders.base import Encoders
from cccad_core.layouts import as_features
from cccad_core.spaces import Box, LeafSpace, Space, leaves_of

NUMBERS_APART = 1_000_003
"""A prime by which the numbers of several leaves are kept apart, as good as always."""


@frozen(kw_only=True)
class Rebuilt:
    """Per field: the loss, and 1 or 0 for right or wrong, of every transition, `b s`.

    `hits` leaves out actions and observations that are real-valued; a reward is right when it is less than 0.5 off.
    `values`, `b s`: what was to be rebuilt, as one number each, of the fields in `hits`; `rewarded`, `b s`: whether the
    reward was not 0. `mask`, `b s`, is False at padding.
    """

    losses: dict[str, Tensor]
    hits: dict[str, Tensor]
    values: dict[str, Tensor]
    rewarded: Tensor
    mask: Tensor


class Field(nn.Module):
    """Predict values of one space: `b s d -> b s o`-shaped parameters, a loss and hits, summed over its leaves."""

    def __init__(self, space: Space, width: int, tolerance: float | None = None) -> None:
        super().__init__()
        leaves = leaves_of(space)
        self.slices = [leaf.slice for leaf in leaves]
        self.leaves = [LeafField(leaf.space, tolerance) for leaf in leaves]
        self.widths = [sum(leaf.sizes) for leaf in self.leaves]
        self.predict = nn.Linear(width, sum(self.widths))

    def number(self, values: Tensor) -> Tensor:
        """Return *values*, `b s o`, as one number each, `b s`: equal numbers, equal values."""
        number, *others = (leaf.number(values[..., cut]) for leaf, cut in zip(self.leaves, self.slices, strict=True))
        for other in others:
            number = number * NUMBERS_APART + other
        return number

    def forward(self, hidden: Tensor, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return loss `b s` and whether every coordinate is right, `b s`; *values* are `b s o`.

        Real values are right within the *tolerance*; without one nothing is said of them.
        """
        guesses = self.predict(hidden).float().split(self.widths, -1)
        parts = zip(self.leaves, guesses, self.slices, strict=True)
        (loss, right), *others = [leaf.compare(guess, values[..., cut]) for leaf, guess, cut in parts]
        for other_loss, other_right in others:
            loss = loss + other_loss
            right = None if right is None or other_right is None else right * other_right
        return loss, right


COARSEST = 8
"""The longest side of an image that is rebuilt as it is; a larger one is rebuilt as means over so many parts of it."""


class LeafField:
    """What is predicted of one leaf, and how it is compared with what is so."""

    def __init__(self, space: LeafSpace, tolerance: float | None) -> None:
        self.tolerance = tolerance
        self.is_real = isinstance(space, Box)
        self.image = space.shape if isinstance(space, Box) and space.dtype == "uint8" else None
        if self.image is not None:
            self.sizes = [self.coarse(torch.zeros(1, 1, space.num_features)).shape[-1]]
        else:
            self.sizes = [space.num_features] if isinstance(space, Box) else list(space.sizes)

    def coarse(self, values: Tensor) -> Tensor:
        """Return images, `b s o`, in unit range, and coarser where they are large; channels are the shortest axis."""
        scaled = values / 255.0  # else an image outweighs all other fields
        if self.image is None or len(self.image) not in (2, 3):
            return scaled
        images = scaled.flatten(0, 1).unflatten(-1, self.image)
        if len(self.image) == 2:
            images = images[:, None]
        elif self.image[2] <= self.image[0]:
            images = images.movedim(-1, 1)
        height, width = (min(side, COARSEST) for side in images.shape[-2:])
        coarser = adaptive_avg_pool2d(images, (height, width))
        rows: Tensor = coarser.flatten(1).unflatten(0, values.shape[:2])
        return rows

    def number(self, values: Tensor) -> Tensor:
        """Return *values*, `b s o`, as one number each, `b s`."""
        number = values[..., 0]
        for i in range(1, 1 if self.is_real else len(self.sizes)):
            number = number * self.sizes[i] + values[..., i]
        return number

    def compare(self, guess: Tensor, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the loss and whether all is right, each `b s`, as `Field` does."""
        if self.is_real:
            off = guess - (values if self.image is None else self.coarse(values))
            right = None if self.tolerance is None else (off.abs() < self.tolerance).all(-1).float()
            return off.square().mean(-1), right
        parts = guess.split(self.sizes, -1)
        values = values.long()
        losses = [
            cross_entropy(rearrange(p, "b s n -> b n s"), values[..., i], reduction="none") for i, p in enumerate(parts)
        ]
        match = torch.stack([p.argmax(-1) == values[..., i] for i, p in enumerate(parts)])
        return torch.stack(losses).sum(0), match.all(0).float()


class Reconstruction(nn.Module):
    """A small decoder from latents, `b k d`, to the fields of a segment's transitions."""

    def __init__(self, encoders: Encoders, num_heads: int, *, slots: int = 1) -> None:
        super().__init__()
        spaces, width = encoders.spaces, encoders.width
        self.slots = slots
        self.where = nn.Linear(width, width)
        self.observation = encoders.observation()
        self.look = Look(width, num_heads, 2)
        self.norm = nn.LayerNorm(width)
        self.action = Field(spaces.action, width)
        self.reward = Field(Box(shape=(1,), low=float("-inf"), high=float("inf")), width, tolerance=0.5)
        self.next_observation = Field(spaces.observation, width)

    def forward(self, latents: Tensor, segment: HistoryBatch) -> Rebuilt:
        """*segment* holds the transitions that were folded into *latents*, `b s`."""
        places = sinusoids(segment.length * self.slots, latents.shape[-1], latents)[:: self.slots]
        asked = self.observation(segment.observations) + self.where(places)
        hidden = self.norm(self.look(asked, latents, None, alone=True))  # else the observations asked about tell
        asked_for = {
            "action": (self.action, as_features(segment.actions)),
            "reward": (self.reward, segment.rewards[..., None]),
            "next_observation": (self.next_observation, segment.next_observations),
        }
        rebuilt = {name: field(hidden, values) for name, (field, values) in asked_for.items()}
        hits = {name: right for name, (_, right) in rebuilt.items() if right is not None}
        return Rebuilt(
            losses={name: loss for name, (loss, _) in rebuilt.items()},
            hits=hits,
            values={name: asked_for[name][0].number(asked_for[name][1]) for name in hits},
            rewarded=segment.rewards != 0,
            mask=segment.mask,
        )
