"""The training loop: batches in, losses out, one update at a time. Start reading here.

From here an update goes through one of `cccad_core.objectives`, `cccad_core.policy`, its memory, by default
`cccad_core.memory.compressed`, and one of `cccad_core.compressors`.
"""

from collections.abc import Callable, Iterable

import torch
from accelerate import Accelerator
from cccad_core.objectives.base import Objective
from torch import Tensor

from cccad_train.fit.batches import Batches
from cccad_train.fit.checkpoints import Progress
from cccad_train.fit.optimization import OptimizerSpec

Hook = Callable[[int, dict[str, Tensor]], None]
"""Called after each update with the number of updates done and the losses of the last, each a scalar."""


def fit(
    objective: Objective,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    accelerator: Accelerator,
    *,
    hooks: Iterable[Hook] = (),
    is_to_stop: Callable[[], object] = bool,
) -> None:
    """Minimise *objective* from `progress.update` on; everything random is a function of the update's number.

    After every update *is_to_stop* is asked whether it shall be the last for now.
    """
    hooks, spec = list(hooks), batches.spec
    for update in range(progress.update, spec.num_updates):
        batch, flags, num_targets = batches.batch(update)
        # By the share that is done, not by the update: a run of fewer updates goes through the same schedule.
        weights = spec.objective.weights(update / spec.num_updates)
        # The forward pass alone: backward repeats its types by itself, and weights, moments and the step stay fp32.
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=spec.precision == "bf16"):
            losses = objective(
                batch, num_targets=num_targets, weights=weights, moment=batches.moment(update), flags=flags
            )
        apply(losses["loss"], optimizer, accelerator, spec.optimizer, spec.optimizer.rate(update, spec.num_updates))
        # Before the hooks, one of which saves it: a resumed run goes on with the update after this one.
        progress.update = update + 1
        for hook in hooks:
            hook(update + 1, losses)
        if is_to_stop():
            return


def apply(
    loss: Tensor, optimizer: torch.optim.Optimizer, accelerator: Accelerator, schedule: OptimizerSpec, rate: float
) -> None:
    """Take one gradient step at learning rate *rate*, times the scale of each group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    accelerator.backward(loss)
    # All groups as one vector: shortened group by group, the gradient would change its direction.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    accelerator.clip_grad_norm_(parameters, schedule.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
