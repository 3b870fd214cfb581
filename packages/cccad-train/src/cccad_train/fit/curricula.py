"""How many writes a stretch needs, by update: the schedule decides how long the sampled stretches are."""

from typing import Protocol

from attrs import field, frozen, validators


class Curriculum(Protocol):
    """A schedule over writes."""

    def num_writes(self, update: int, most: int) -> float:
        """Return the writes that a stretch of this update needs, at most *most*; a share is one of a window."""
        ...


class CurriculumSpec(Protocol):
    """The fields of a curriculum."""

    def build(self) -> Curriculum:
        """Return the schedule."""
        ...


@frozen(kw_only=True)
class NoneSpec:
    """No curriculum: every stretch needs as many writes as training asks for, from the first update on."""

    def build(self) -> "NoneSpec":
        """Return the schedule, which has no state."""
        return self

    def num_writes(self, update: int, most: int) -> int:
        """Return *most*."""
        return most


@frozen(kw_only=True)
class WriteLimit:
    """From this update on, stretches need this many writes; 0 lifts the limit."""

    at_update: int = field(validator=validators.ge(0), metadata={"help": "the first update of the stage"})
    num_writes: int = field(validator=validators.ge(0), metadata={"help": "the limit of writes; none, where it is 0"})


@frozen(kw_only=True)
class StagedSpec:
    """Few writes first, more from given updates on (the defaults are those of the user's description)."""

    stages: tuple[WriteLimit, ...] = field(
        default=(
            WriteLimit(at_update=0, num_writes=1),
            WriteLimit(at_update=10_000, num_writes=2),
            WriteLimit(at_update=25_000, num_writes=3),
            WriteLimit(at_update=40_000, num_writes=0),
        ),
        metadata={"help": "from which update on there may be how many writes"},
    )

    def __attrs_post_init__(self) -> None:
        """Check the order of the stages; raises ValueError."""
        starts = [stage.at_update for stage in self.stages]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"'stages' must begin at update 0 and go up: {starts}")

    def build(self) -> "StagedSpec":
        """Return the schedule, which has no state."""
        return self

    def num_writes(self, update: int, most: int) -> int:
        """Return the limit of the stage that *update* lies in."""
        # There always is one, since the first stage begins at update 0.
        limit = [stage.num_writes for stage in self.stages if stage.at_update <= update][-1]
        return min(limit or most, most)


@frozen(kw_only=True)
class LinearSpec:
    """Stretches grow evenly, decision by decision, from one window to the full length over the first `num_updates`."""

    num_updates: int = field(
        default=1_000, validator=validators.ge(1), metadata={"help": "in which stretches grow to their full length"}
    )

    def build(self) -> "LinearSpec":
        """Return the schedule, which has no state."""
        return self

    def num_writes(self, update: int, most: int) -> float:
        """Return a share of *most*, never 0: from the first update on there is a write to learn from."""
        # + 1, since a stretch with a share of 0 is a single window: nothing would be written in it.
        return min(most, most * (update + 1) / self.num_updates)
