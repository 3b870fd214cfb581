"""The training loop: batches in, losses out, one update at a time. Start reading here.

From here an update goes through `cccad_core.losses`, `cccad_core.policy`, one compressor and `cccad_core.backbone`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from cccad_train.batches import Batches
from cccad_train.checkpoints import Progress
from cccad_train.optimization import OptimizerSpec

Hook = Callable[[int, dict[str, Tensor]], None]
"""Called after each update with the number of updates done and the losses of the last, each a scalar."""


def fit(
    objective: torch.nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    schedule: OptimizerSpec,
    progress: Progress,
    accelerator: Accelerator,
    *,
    num_updates: int,
    hooks: Iterable[Hook] = (),
) -> None:
    """Minimise *objective* from `progress.update` to *num_updates*; everything random is a function of the update."""
    hooks = list(hooks)
    for update in range(progress.update, num_updates):
        batch, num_targets = batches.batch(update)
        with accelerator.autocast():
            losses = objective(batch, num_targets)
        apply(losses["loss"], optimizer, accelerator, schedule, schedule.rate(update, num_updates))
        progress.update = update + 1
        for hook in hooks:
            hook(update + 1, losses)


def apply(
    loss: Tensor, optimizer: torch.optim.Optimizer, accelerator: Accelerator, schedule: OptimizerSpec, rate: float
) -> None:
    """Take one gradient step at learning rate *rate*."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    accelerator.backward(loss)
    parameters: list[Any] = [p for group in optimizer.param_groups for p in group["params"]]
    accelerator.clip_grad_norm_(parameters, schedule.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
