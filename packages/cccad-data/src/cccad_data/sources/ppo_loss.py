"""PPO's loss (arXiv 1707.06347), as far as it is the same for every kind of action.

Letters in shapes: `e` learners, `b` samples, `f` input features, `a` outputs.
"""

import torch
from attrs import frozen
from torch import Tensor


@frozen(kw_only=True)
class Minibatch:
    """What PPO learns from, per learner."""

    inputs: Tensor  # e b f
    actions: Tensor  # e b int64, or e b a
    log_probs: Tensor  # e b, of the actions when they were taken
    advantages: Tensor  # e b, not normalised
    returns: Tensor  # e b


@frozen(kw_only=True)
class LossConstants:
    """The constants of PPO's loss."""

    normalize_advantage: bool
    clip_range: float
    ent_coef: float
    vf_coef: float
    max_grad_norm: float


def strength_of(log_probs: Tensor, batch: Minibatch, constants: LossConstants) -> Tensor:
    """Return minus the gradient of PPO's clipped loss by the *log_probs* of the batch's actions, `e b`."""
    count = log_probs.shape[-1]
    advantages = batch.advantages
    if constants.normalize_advantage and count > 1:
        std, mean = torch.std_mean(advantages, 1, keepdim=True)
        advantages = (advantages - mean) / (std + 1e-8)
    ratio = (log_probs - batch.log_probs).exp_()
    gain = advantages * ratio
    # Where the clipped term is the smaller one, its slope is zero.
    is_free = gain <= advantages * ratio.clamp_(1.0 - constants.clip_range, 1.0 + constants.clip_range)
    return gain.mul_(is_free).mul_(1.0 / count)
