"""The rolling context: when a write happens, what it folds in, what stays raw, and where positions start.

Training, evaluation and the agent all ask this one object, so none of them can disagree. The window has *window*
slots: the latents first, then raw tokens. A write happens when the window is full and one more decision is due. It
folds in every token that no earlier write has folded; the last *carry* of them stay raw beside the new latents.
"""

from attrs import field, frozen, validators


@frozen(kw_only=True)
class ContextSpec:
    """How many slots the backbone sees at once, and how many raw tokens stay across a write."""

    window: int = field(default=60, validator=validators.ge(2), metadata={"help": "slots, latents included"})
    carry: int = field(default=0, validator=validators.ge(0), metadata={"help": "raw tokens kept across a write"})

    def build(self, num_latents: int) -> "RollingContext":
        """Raises ValueError when no slot is left for a new decision."""
        if self.window - num_latents - self.carry < 1:
            least = f"latents + carry = {num_latents} + {self.carry}"
            raise ValueError(f"'context.window' must be > {least}: {self.window}")
        return RollingContext(window=self.window, carry=self.carry, num_latents=num_latents)


@frozen(kw_only=True)
class Piece:
    """The decisions `start:stop` of a pass, made in one window that also shows the raw tokens from `raw_start`."""

    raw_start: int
    start: int
    stop: int


@frozen(kw_only=True)
class RollingContext:
    """The rule itself; counts are tokens of a life that starts at 0."""

    window: int
    carry: int
    num_latents: int

    @property
    def first_segment(self) -> int:
        """Decisions before the first write, and the raw tokens of a window that is full."""
        return self.window - self.num_latents

    @property
    def segment(self) -> int:
        """Decisions between later writes."""
        return self.window - self.num_latents - self.carry

    def pieces(self, num_decisions: int) -> list[Piece]:
        """Cut a pass of *num_decisions* into windows; there is a write between each two."""
        pieces = [Piece(raw_start=0, start=0, stop=min(self.first_segment, num_decisions))]
        while (start := pieces[-1].stop) < num_decisions:
            stop = min(start + self.segment, num_decisions)
            pieces.append(Piece(raw_start=start - self.carry, start=start, stop=stop))
        return pieces

    def num_writes(self, num_decisions: int) -> int:
        """Return how many writes happen in a life of *num_decisions*."""
        return max(0, -(-(num_decisions - self.first_segment) // self.segment))

    def length_of(self, num_writes: int) -> int:
        """Return the longest life, in decisions, with *num_writes* writes."""
        return self.first_segment + num_writes * self.segment
