"""From the curriculum to a batch: how long stretches are, how many fit, and which rows this process takes."""

from typing import Any

import numpy as np
import torch
from attrs import Factory, field, frozen
from cccad_core.batch import Flags, HistoryBatch
from cccad_core.memory.base import Memory
from cccad_core.memory.moment import Moment
from cccad_core.spaces import Spaces
from cccad_data import Sampler
from cccad_data.sampling.sampler import Prefetcher

from cccad_train.fit.curricula import Curriculum
from cccad_train.fit.spec import PretrainSpec, TrainSpec

MEASURED = (100, 200)
"""Length and number of the stretches whose observations are shown to encoders that measure."""
_DOMAIN = 0xCCCAD_7A21  # keeps these seeds apart from others with the same numbers


@frozen(kw_only=True)
class Batches:
    """Batches by update number: a pure function, so a resumed run sees what an uninterrupted one would have seen.

    Every process plans the same global batch, however many they are, and reads its own rows alone; with an odd number
    of rows some have one more, which `num_targets` of the *global* batch accounts for.
    """

    sampler: Sampler
    memory: Memory[Any]
    curriculum: Curriculum
    spec: PretrainSpec | TrainSpec
    rank: int = 0
    num_processes: int = 1
    device: torch.device | str = "cpu"
    spaces: Spaces | None = None
    _ahead: Prefetcher[tuple[dict[str, Any], Flags, float]] = field(
        init=False, repr=False, eq=False, default=Factory(lambda self: Prefetcher(self._draw), takes_self=True)
    )

    def shape(self, update: int) -> tuple[int, int]:
        """Return the global batch's size and its stretches' length in decisions, `b` and `t`."""
        length = self.memory.length_of(self.curriculum.num_writes(update, self.spec.num_writes))
        # A batch counts decisions, not rows, so that an update costs about the same wherever the curriculum stands.
        # Every process needs a row at least: each takes part in the average of the gradients.
        return max(self.num_processes, round(self.spec.targets_per_update / length)), length

    def batch(self, update: int) -> tuple[HistoryBatch, Flags, float]:
        """Return this process's rows, their flags, and the targets of the global batch divided by the processes."""
        arrays, flags, num_targets = (self._ahead if self.sampler.spec.prefetch else self._draw)(update)
        device = torch.device(self.device)
        if device.type == "cuda":  # in the smallest types, and from memory that the device reads by itself
            arrays = {name: value.to(device, non_blocking=True) for name, value in arrays.items()}
        return HistoryBatch.from_arrays(arrays, device, self.spaces), flags, num_targets

    def observations(self) -> torch.Tensor:
        """Return some thousands of observations, `n o`: the same in every process and stage of these histories."""
        # One fixed batch, whatever the curriculum and the rank: encoders that measure must come out alike in all
        # processes.
        arrays = self.sampler.batch(0, *MEASURED)
        return torch.as_tensor(arrays["observations"][arrays["mask"]]).to(self.device)

    def _draw(self, update: int) -> tuple[dict[str, Any], Flags, float]:
        size, length = self.shape(update)
        first, last = (size * rank // self.num_processes for rank in (self.rank, self.rank + 1))
        arrays: dict[str, Any] = self.sampler.batch(update, length, size, slice(first, last))
        # While the arrays are still on the CPU: read back from a device, flags would make every pass wait for it.
        flags = Flags.of(arrays["terminations"], arrays["truncations"], arrays["mask"])
        if torch.device(self.device).type == "cuda":
            arrays = {name: torch.as_tensor(value).pin_memory() for name, value in arrays.items()}
        # Gradients are averaged over processes. Divided by the targets of its own rows, a process with fewer of them
        # would count as much as the others; an equal share of all targets makes the average the gradient of the global
        # mean.
        return arrays, flags, self.sampler.num_targets(update, length, size) / self.num_processes

    def moment(self, update: int) -> Moment:
        """Return the chance of *update*: processes, whose rows differ, draw apart, but for what all must share."""
        return self.spec.moment(self._seed(update, self.rank), self._seed(update))

    def _seed(self, *numbers: int) -> int:
        # Hashed, not added up: neighbouring updates, ranks and runs would else draw from neighbouring seeds.
        seed = np.random.SeedSequence([_DOMAIN, self.sampler.seed, *numbers]).generate_state(1, np.uint64)
        return int(seed[0] >> 1)
