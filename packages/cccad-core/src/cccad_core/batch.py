"""A stretch of histories as tensors: what every forward pass of training takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import define, fields, frozen
from torch import Tensor

from cccad_core.border import is_finite, refuse
from cccad_core.spaces import Spaces, dtype_of


@define(kw_only=True)
class HistoryBatch:
    """Consecutive transitions of *b* histories, *t* decisions each.

    Attributes:
        observations: what each decision was made on, `b t o`, of the type that `spaces.dtype_of` gives: int64 for
            discrete kinds, float32 for boxes, uint8 for images. Parts stand one behind the other.
        actions: what was decided, `b t` int64, or `b t a` for actions of several features (float32 for boxes).
        rewards: what each transition earned, `b t` float32.
        terminations: whether it ended its episode for good, `b t` bool.
        truncations: whether its episode was cut off behind it, `b t` bool.
        next_observations: what it led to, as `observations`; at an episode's end the *true* last observation.
        mask: what is real, `b t` bool. False where the history is over: padding, always at the end of a row. What
            stands there may be anything, and no loss may depend on it.
        targets: which decisions a loss counts, `b t` bool: all real ones, unless a sampler leaves out some that are
            only to be read. Whoever counts asks for `targets & mask`.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminations: Tensor
    truncations: Tensor
    next_observations: Tensor
    mask: Tensor
    targets: Tensor

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Any], device: torch.device | str = "cpu", spaces: Spaces | None = None
    ) -> "HistoryBatch":
        """Build from the NumPy arrays that a sampler returns; integers become int64, floats float32.

        With *spaces*, observations of images stay uint8. Without `targets`, every decision that is not padding is one.
        Raises UnfitValueError where a float on the CPU is not finite as float32.
        """
        keeps_bytes = spaces is not None and dtype_of(spaces.observation) == "uint8"

        def tensor(name: str) -> Tensor:
            value = torch.as_tensor(arrays["mask" if name == "targets" and name not in arrays else name])
            is_image = keeps_bytes and name in ("observations", "next_observations") and value.dtype == torch.uint8
            if value.dtype != torch.bool and not is_image:
                kept = value.to(torch.float32 if value.is_floating_point() else torch.int64)
                if value.is_floating_point() and value.device.type == "cpu" and not is_finite(kept):
                    refuse(value.flatten(1), ~kept.isfinite().flatten(1), f"the batch's {name!r}")
                value = kept
            return value.to(device, non_blocking=True)

        return cls(**{name: tensor(name) for name in NAMES})

    @property
    def size(self) -> int:
        """Number of histories, `b`."""
        return self.actions.shape[0]

    @property
    def length(self) -> int:
        """Number of decisions in each row, `t`."""
        return self.actions.shape[1]

    def at(self, index: slice | Tensor) -> "HistoryBatch":
        """Return the decisions *index* along time."""
        return HistoryBatch(**{name: getattr(self, name)[:, index] for name in NAMES})

    def rows(self, index: slice | Tensor) -> "HistoryBatch":
        """Return the histories *index*."""
        return HistoryBatch(**{name: getattr(self, name)[index] for name in NAMES})

    @classmethod
    def join(cls, batches: "Sequence[HistoryBatch]") -> "HistoryBatch":
        """Return the rows of several batches of one length as one batch."""
        return cls(**{name: torch.cat([getattr(batch, name) for batch in batches]) for name in NAMES})

    def flags(self) -> "Flags":
        """Return what the geometry of a pass over this batch depends on; waits for the device, if that is no CPU."""
        return Flags.of(self.terminations, self.truncations, self.mask)


NAMES = tuple(field.name for field in fields(HistoryBatch))


@frozen(eq=False)
class Flags:
    """What the geometry of a pass depends on, on the CPU: where episodes `ended`, `b t`, and whether there is padding.

    Whoever has a batch on the CPU before it goes to a device makes them there, so that a pass never waits for it.
    """

    ended: Tensor
    is_padded: bool

    @classmethod
    def of(cls, terminations: Any, truncations: Any, mask: Any) -> "Flags":
        """Build from tensors or arrays, each `b t`."""
        flags = (torch.as_tensor(value).cpu() for value in (terminations, truncations, mask))
        terminations, truncations, mask = flags
        return cls((terminations | truncations) & mask, not bool(mask.all()))
