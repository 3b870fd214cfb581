"""What the outputs of a policy mean: the logits of discrete actions, or the means of a diagonal Gaussian over a box.

Legend: `e` learners, `b` samples, `a` outputs. Both do what Stable-Baselines3's distributions do; the slopes of
PPO's loss (arXiv 1707.06347) are written by hand, and a test holds them against autograd.
"""

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from cccad_data import spaces
from cccad_data.plain import Array
from cccad_data.sources.ppo_loss import LossConstants, Minibatch, strength_of


class Categorical:
    """One of `a` actions, by its logits."""

    has_spread = False

    def __init__(self, num_actions: int) -> None:
        self.num_outputs = num_actions

    def noise(self, stream: Generator, length: int, num_envs: int) -> Array:
        """Return what the draws of *length* env steps need, `t e`."""
        return stream.random((length, num_envs), np.float32)

    def act(self, logits: Tensor, _: Tensor, noise: Array) -> tuple[Array, Array]:
        """Return actions and their log probabilities, both `e b`."""
        log_policy: Array = logits.log_softmax(1).mT.numpy()  # e b a
        actions = choose(np.exp(log_policy), noise)
        return actions, np.take_along_axis(log_policy, actions[:, :, None], 2)[:, :, 0]

    def played(self, actions: Array) -> Array:
        """Return what the environments get of *actions*."""
        return actions

    def slopes(
        self, logits: Tensor, _: Tensor, batch: Minibatch, constants: LossConstants
    ) -> tuple[Tensor, float | Tensor]:
        """Return the gradient of clipped loss and entropy bonus by the *logits*, `e a b`, and nothing by a spread."""
        log_probs = logits.log_softmax(1)
        probs = log_probs.exp()
        chosen = batch.actions[:, None]
        strength = strength_of(log_probs.gather(1, chosen)[:, 0], batch, constants)[:, None]
        slopes = probs * strength
        slopes.scatter_add_(1, chosen, -strength)
        if constants.ent_coef:
            entropy = -(probs * log_probs).sum(1, keepdim=True)
            slopes += (constants.ent_coef / logits.shape[-1]) * probs * (log_probs + entropy)
        return slopes, 0.0


class Gaussian:
    """Numbers around the outputs, their deviation learnt and the same in every state; environments get them clipped."""

    has_spread = True

    def __init__(self, space: spaces.Space) -> None:
        self.num_outputs = spaces.num_features(space)
        self.low, self.high = spaces.bounds(space).astype(np.float32)

    def noise(self, stream: Generator, length: int, num_envs: int) -> Array:
        """Return what the draws of *length* env steps need, `t e a`."""
        return stream.standard_normal((length, num_envs, self.num_outputs), np.float32)

    def act(self, means: Tensor, log_std: Tensor, noise: Array) -> tuple[Array, Array]:
        """Return actions, `e b a`, not clipped, and the logarithms of their densities, `e b`."""
        spread = log_std.mT.numpy()  # e 1 a
        actions: Array = means.mT.numpy() + np.exp(spread) * noise
        return actions, (-0.5 * noise**2 - spread - 0.5 * math.log(2 * math.pi)).sum(-1, dtype=np.float32)

    def played(self, actions: Array) -> Array:
        """Return what the environments get of *actions*: the nearest within bounds."""
        return actions.clip(self.low, self.high)

    def slopes(
        self, means: Tensor, log_std: Tensor, batch: Minibatch, constants: LossConstants
    ) -> tuple[Tensor, float | Tensor]:
        """Return the gradient of clipped loss and entropy bonus by *means*, `e a b`, and by *log_std*, `e a 1`."""
        precision = (-log_std).exp()
        away = (batch.actions.mT - means) * precision  # in deviations
        log_probs = (-0.5 * away.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(1)
        strength = strength_of(log_probs, batch, constants)[:, None]
        spread = -(strength * (away.square() - 1.0)).sum(-1, keepdim=True) - constants.ent_coef
        return -strength * away * precision, spread


def head_of(space: spaces.Space) -> Categorical | Gaussian:
    """Return the head for an action *space*; raises SourceError for one that is neither discrete nor a box."""
    if space["kind"] == "box":
        return Gaussian(space)
    (num_actions,) = spaces.sizes(space)
    return Categorical(num_actions)


def choose(probs: Array, uniform: Array) -> NDArray[np.int64]:
    """Return one action per row of *probs* `... a`, by its cumulative distribution at *uniform* `...` in [0, 1)."""
    cumulative = probs.cumsum(-1)
    chosen: NDArray[np.int64] = (cumulative[..., :-1] <= uniform[..., None] * cumulative[..., -1:]).sum(-1)
    return chosen
