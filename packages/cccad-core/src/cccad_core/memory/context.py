"""The rolling context: when a write happens, what it folds in, what stays raw, and where positions start.

Training, evaluation and the agent all ask this one object, so none of them can disagree. The window has *window*
slots: the latents first, then raw tokens. A write comes before a decision for which the window has no room, and
earlier where the trigger says so. It folds in every transition that no earlier write has folded; the last *carry* of
them stay raw beside the new latents.
"""

import math
from collections.abc import Sequence

import torch
from attrs import Factory, evolve, frozen
from torch import Tensor

from cccad_core.batch import Flags
from cccad_core.memory.moment import CALM, Moment
from cccad_core.memory.triggers import FullTrigger, Limit, Trigger
from cccad_core.memory.windows import RowWindows, SharedWindows, Window, Windows


@frozen(kw_only=True)
class RollingContext:
    """The rule; counts are decisions of a life that starts at 0, each of which takes *slots* in the window.

    Raises ValueError when no slot is left for a decision.
    """

    window: int
    carry: int = 0
    trigger: Trigger = Factory(FullTrigger)
    num_latents: int
    slots: int = 1
    evicts: bool = True

    def __attrs_post_init__(self) -> None:
        """Check that there is room."""
        num_latents, carry, slots = self.num_latents, self.carry, self.slots
        if (self.window - num_latents) // slots - carry < 1:
            least = f"latents + carry = {num_latents} + {carry}"
            if slots > 1:
                least = f"latents + {slots} * carry + {slots - 1} = {num_latents} + {slots * carry} + {slots - 1}"
            raise ValueError(f"'memory.window' must be > {least}: {self.window}")

    @property
    def first_segment(self) -> int:
        """Decisions for which an empty window has room."""
        return (self.window - self.num_latents) // self.slots

    @property
    def segment(self) -> int:
        """Decisions for which it has room beside those that are carried over."""
        return self.first_segment - self.carry

    @property
    def by_row(self) -> bool:
        """Whether rows of one pass may write at different times."""
        return self.evicts and self.trigger.by_row

    def sliding(self) -> "RollingContext":
        """Return the rule by which a plain window slides instead of being emptied.

        Every decision then sees the `first_segment - 1` transitions before it, placed anew from slot 0, so that no
        layer reaches further back. Raises ValueError where there are latents, or where nothing is ever evicted.
        """
        if self.num_latents or not self.evicts:
            reason = f"shows {self.num_latents} latents" if self.num_latents else "evicts nothing"
            raise ValueError(f"only a plain window can slide, and this policy's memory {reason}")
        # With room for one decision beside those carried, each window but the first makes one; no trigger comes sooner.
        return evolve(self, carry=self.first_segment - 1, trigger=FullTrigger())

    def due(self, num_raw: Tensor, num_new: Tensor, ended: Tensor) -> Tensor:
        """Return, `b`, whether a write comes before the next decision, as the agent asks before each.

        *num_raw* decisions are raw in the window, *num_new* of them not folded yet; *ended*: whether the last one ended
        an episode.
        """
        if not self.evicts:
            # False, as a tensor like the other answer: on the device, one for each row.
            return num_raw < 0
        return (num_raw >= self.first_segment) | self.trigger.is_due(num_new, ended)

    def windows(self, flags: Flags, moment: Moment, device: torch.device) -> Windows:
        """Return the windows of a pass over a batch with these *flags*; where chance triggers, *moment* decides them.

        A calm moment leaves nothing to chance: a policy whose writes chance triggers writes when its window is full.
        """
        size, length = flags.ended.shape
        if self.by_row:
            # The flags lie on the CPU, so that these lists cost no wait for a device.
            ends = [torch.nonzero(row)[:, 0].tolist() for row in flags.ended]
            return RowWindows([self.cut(length, each, moment) for each in ends], self.slots, device)
        return SharedWindows(self.cut(length, moment=moment), size, self.slots, flags.is_padded)

    def cut(self, num_decisions: int, ends: Sequence[int] = (), moment: Moment = CALM) -> list[Window]:
        """Cut a pass of *num_decisions* into windows; there is a write between each two.

        *ends*, ascending: the decisions that end an episode, for triggers that ask for them; *moment*: the chance of
        the pass, for those that draw.
        """
        if not self.evicts:
            # One window, however long: positions go on behind the size that it was planned for.
            return [Window(0, 0, num_decisions)]
        # Asked once for a pass: asked anew for each window, a trigger that draws would draw the same length every time.
        limit = self.trigger.limits(self.segment, ends, moment)
        windows: list[Window] = []
        while not windows or windows[-1].stop < num_decisions:
            start = windows[-1].stop if windows else 0
            raw_start = max(0, start - self.carry)
            windows.append(Window(raw_start, start, min(self._stop(start, limit), num_decisions)))
        return windows

    def _stop(self, start: int, limit: Limit) -> int:
        """Return where the window that begins at *start* must end: where it is full, or sooner if the trigger says."""
        # From the first raw one on, carried or not, a window has room for as many.
        return min(max(0, start - self.carry) + self.first_segment, start + limit(start))

    def num_writes(self, num_decisions: int) -> int:
        """Return how many writes happen in a life of *num_decisions* (of one episode, where episodes trigger)."""
        return len(self.cut(num_decisions)) - 1

    def length_of(self, num_writes: float) -> int:
        """Return the longest life, in decisions, with *num_writes* writes; a share of a write is one of its window.

        Where nothing is evicted it is what a window of this size would have, so that both are given the same data.
        """
        # By full windows where chance or episodes trigger: the length is asked for before any stretch is drawn, and
        # writes that come sooner only add to those that were wanted.
        limit = self.trigger.limits(self.segment, (), CALM)
        stop = 0
        for _ in range(int(num_writes) + 1):
            stop = self._stop(stop, limit)
        # Up: the least share still has a decision after the write, without which the write would not happen.
        return stop + math.ceil(num_writes % 1 * (self._stop(stop, limit) - stop))
