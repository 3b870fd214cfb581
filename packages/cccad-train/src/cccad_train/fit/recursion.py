"""What helps a policy to learn through many writes: small objects in the spec, each off unless asked for."""

from typing import Literal

from attrs import field, frozen, validators

_share = validators.le(1.0)


@frozen(kw_only=True)
class ReconstructionSpec:
    """How much of rebuilding what was folded in stays beside imitation."""

    weight: float = field(default=0.0, validator=validators.ge(0.0))
    decay_frac: float | None = field(
        default=None,
        validator=validators.optional([validators.gt(0.0), _share]),
        metadata={"help": "share of the updates in which the weight falls evenly to zero; without it, it stays"},
    )
    reward_weighted: bool = field(
        default=False, metadata={"help": "transitions with a reward weigh as much together as those without"}
    )

    def fade(self, done: float) -> float:
        """Return what is left of the weight when the share *done* of the updates is over."""
        return 1.0 if self.decay_frac is None else max(0.0, 1.0 - done / self.decay_frac)


@frozen(kw_only=True)
class AuxiliarySpec:
    """How much the compressor's own losses weigh, such as `gate_cost`: at once, or when there is something to keep."""

    weight: float = field(default=1.0, validator=validators.ge(0.0))
    start_frac: float = field(
        default=0.0,
        validator=[validators.ge(0.0), _share],
        metadata={"help": "share of the updates in which they weigh nothing yet"},
    )
    rise_frac: float = field(
        default=0.0,
        validator=[validators.ge(0.0), _share],
        metadata={"help": "share of the updates in which the weight then rises evenly; at once, without it"},
    )

    def __attrs_post_init__(self) -> None:
        """Check what no single field can: raises ValueError."""
        if self.start_frac + self.rise_frac > 1 + 1e-9:
            told = f"{self.start_frac} + {self.rise_frac}"
            raise ValueError(f"'start_frac' + 'rise_frac' must be <= 1, or the full weight is never reached: {told}")

    def risen(self, done: float) -> float:
        """Return the weight when the share *done* of the updates is over."""
        if done < self.start_frac:
            return 0.0
        return self.weight * min(1.0, (done - self.start_frac) / self.rise_frac if self.rise_frac else 1.0)


@frozen(kw_only=True)
class StatePassingSpec:
    """Stretches that begin with the memory that a stretch of the batch ended with (arXiv 2507.02782).

    Of `another`, mostly of another task, so that what memory says may be wrong; or of its `own`, so that the memory of
    its task is twice as old.
    """

    frac: float = field(default=0.0, validator=[validators.ge(0.0), _share], metadata={"help": "of all stretches"})
    donor: Literal["another", "own"] = "another"


@frozen(kw_only=True)
class TeacherSpec:
    """Another agent of the experiment, trained first and then frozen, whose action probabilities are learned too."""

    agent: str
    weight: float = field(default=1.0, validator=validators.gt(0.0), metadata={"help": "of the divergence, in nats"})
