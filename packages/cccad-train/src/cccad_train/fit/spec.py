"""How one policy is trained: the fields of `[train]` and `[pretrain]`."""

from typing import Annotated, Any, ClassVar, Literal

from attrs import field, frozen, validators
from cccad_core.memory.moment import Moment
from cccad_core.objectives.imitation import ImitationSpec
from cccad_core.objectives.reconstruction import ReconstructionSpec
from cccad_core.registry import refuse_what_lacks
from cccad_core.specs import Kind

from cccad_train.fit.chance import StatePassingSpec
from cccad_train.fit.curricula import NoneSpec
from cccad_train.fit.optimization import OptimizerSpec

_count = validators.ge(1)


@frozen(kw_only=True)
class FitSpec:
    """A run of gradient updates: how many, on how much, how fast."""

    num_updates: int = field(default=2_000, validator=_count, metadata={"help": "gradient steps"})
    targets_per_update: int = field(
        default=24_000, validator=_count, metadata={"help": "decisions in one batch; the batch size follows from it"}
    )
    num_writes: int = field(
        default=6,
        validator=[validators.ge(0), validators.le(100_000)],
        metadata={"help": "writes in a sampled stretch"},
    )
    # A limit shortens the chain of writes, not the pass: backward still holds every window and every write.
    max_gradient_rounds: int | None = field(
        default=None,
        validator=validators.optional(_count),
        metadata={"help": "writes that the last decisions' gradient reaches; all, without it"},
    )
    optimizer: OptimizerSpec = field(factory=OptimizerSpec, metadata={"help": "how gradients become steps"})
    precision: Literal["fp32", "bf16"] = field(
        default="fp32", metadata={"help": "of the matrix products in the forward pass; weights stay fp32"}
    )
    checkpoint_every_updates: int = field(
        default=500, validator=_count, metadata={"help": "updates between two states from which --resume goes on"}
    )
    log_every_updates: int = field(
        default=20, validator=_count, metadata={"help": "updates between two lines of metrics.jsonl"}
    )

    curriculum: Annotated[Any, Kind("curriculum")] = field(
        factory=NoneSpec, metadata={"help": "how many writes a stretch needs, by update"}
    )
    state_passing: StatePassingSpec = field(
        factory=StatePassingSpec, metadata={"help": "stretches that begin with another stretch's memory"}
    )
    latent_noise: float = field(
        default=0.0, validator=validators.ge(0.0), metadata={"help": "standard deviation, on what the latents show"}
    )

    def moment(self, seed: int, shared_seed: int) -> Moment:
        """Return the chance of one update, drawn from a *seed* of each process and one that all of them share."""
        return Moment(
            # Rows differ by process, and so may noise and donors; where windows end may not, or processes would wait
            # for the one that happens to have the most.
            seed=seed,
            shared_seed=shared_seed,
            state_passing=self.state_passing.frac,
            from_itself=self.state_passing.donor == "own",
            latent_noise=self.latent_noise,
        )


@frozen(kw_only=True)
class PretrainSpec(FitSpec):
    """What comes before training: by default, rebuilding what was folded in, which warms up the compressor."""

    objective: Annotated[Any, Kind("objective")] = field(
        factory=ReconstructionSpec, metadata={"help": "what is minimised"}
    )

    def __attrs_post_init__(self) -> None:
        """Check that the objective is whole: raises BrokenPart."""
        refuse_what_lacks(self.objective, "objective")


@frozen(kw_only=True)
class TrainSpec(FitSpec):
    """Training itself: by default, imitation of the histories, through as many writes as the curriculum allows."""

    # An earlier version had these here; the error about such a spec names their new places by it.
    MOVED: ClassVar[dict[str, str]] = {name: f"objective.{name}" for name in ("reconstruction", "auxiliary", "teacher")}

    objective: Annotated[Any, Kind("objective")] = field(factory=ImitationSpec, metadata={"help": "what is minimised"})
    warm_start: str | None = field(
        default=None, metadata={"help": "the other agent whose layout, backbone and head training begins with"}
    )

    def __attrs_post_init__(self) -> None:
        """Check that the objective is whole: raises BrokenPart."""
        refuse_what_lacks(self.objective, "objective")
