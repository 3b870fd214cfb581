"""What may be minimised beside imitation, how much it weighs and when: small objects in the spec, off unless asked for.

Shares are of the updates of a stage.
"""

from attrs import field, frozen, validators

_is_share = [validators.ge(0.0), validators.le(1.0)]


@frozen(kw_only=True)
class ReconstructionTerm:
    """How much of rebuilding what was folded in stays beside imitation."""

    weight: float = field(
        default=0.0, validator=validators.ge(0.0), metadata={"help": "of the reconstruction loss, in nats"}
    )
    decay_frac: float | None = field(
        default=None,
        validator=validators.optional([validators.gt(0.0), validators.le(1.0)]),
        metadata={"help": "share of the updates in which the weight falls evenly to zero; without it, it stays"},
    )
    reward_weighted: bool = field(
        default=False, metadata={"help": "transitions with a reward weigh as much together as those without"}
    )

    def at(self, done: float) -> float:
        """Return the weight when the share *done* of the updates is over."""
        fade = 1.0 if self.decay_frac is None else max(0.0, 1.0 - done / self.decay_frac)
        return fade * self.weight


@frozen(kw_only=True)
class AuxiliaryTerm:
    """How much the compressor's own losses weigh, such as `gate_cost`: at once, or when there is something to keep."""

    weight: float = field(default=1.0, validator=validators.ge(0.0), metadata={"help": "of these losses, once risen"})
    start_frac: float = field(
        default=0.0, validator=_is_share, metadata={"help": "share of the updates in which they weigh nothing yet"}
    )
    rise_frac: float = field(
        default=0.0,
        validator=_is_share,
        metadata={"help": "share of the updates in which the weight then rises evenly; at once, without it"},
    )

    def __attrs_post_init__(self) -> None:
        """Check what no single field can: raises ValueError."""
        if self.start_frac + self.rise_frac > 1 + 1e-9:
            total = f"{self.start_frac} + {self.rise_frac}"
            raise ValueError(f"'start_frac' + 'rise_frac' must be <= 1, or the full weight is never reached: {total}")

    def at(self, done: float) -> float:
        """Return the weight when the share *done* of the updates is over."""
        if done < self.start_frac:
            return 0.0
        return self.weight * min(1.0, (done - self.start_frac) / self.rise_frac if self.rise_frac else 1.0)


@frozen(kw_only=True)
class TeacherTerm:
    """Another agent of the experiment, trained first and then frozen, whose action probabilities are learned too."""

    agent: str = field(metadata={"help": "the name of that agent"})
    weight: float = field(default=1.0, validator=validators.gt(0.0), metadata={"help": "of the divergence, in nats"})
