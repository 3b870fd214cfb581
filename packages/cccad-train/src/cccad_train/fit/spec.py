"""How one policy is trained: the fields of `[train]` and `[pretrain]`."""

from typing import Annotated, Any, Literal

from attrs import Factory, field, frozen, validators
from cccad_core.moment import Moment
from cccad_core.specs import Kind

from cccad_train.fit.curricula import NoneSpec
from cccad_train.fit.optimization import OptimizerSpec
from cccad_train.fit.recursion import AuxiliarySpec, ReconstructionSpec, StatePassingSpec, TeacherSpec

_count = validators.ge(1)


@frozen(kw_only=True)
class FitSpec:
    """A run of gradient updates: how many, on how much, how fast."""

    num_updates: int = field(default=2_000, validator=_count)
    targets_per_update: int = field(
        default=24_000, validator=_count, metadata={"help": "decisions in one batch; the batch size follows from it"}
    )
    num_writes: int = field(
        default=6,
        validator=[validators.ge(0), validators.le(100_000)],
        metadata={"help": "writes in a sampled stretch"},
    )
    max_gradient_rounds: int | None = field(
        default=None,
        validator=validators.optional(_count),
        metadata={"help": "writes that the last decisions' gradient reaches; all, without it"},
    )
    optimizer: OptimizerSpec = Factory(OptimizerSpec)
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every_updates: int = field(default=500, validator=_count)
    log_every_updates: int = field(default=20, validator=_count)

    def moment(self, update: int, seed: int, shared_seed: int) -> Moment:
        """Return the chance of *update*, drawn from a *seed* of each process and one that all of them share."""
        return Moment(seed=seed, shared_seed=shared_seed)


@frozen(kw_only=True)
class TrainSpec(FitSpec):
    """Imitation of the histories, through as many writes as the curriculum allows."""

    curriculum: Annotated[Any, Kind("curriculum")] = Factory(NoneSpec)
    reconstruction: ReconstructionSpec = Factory(ReconstructionSpec)
    auxiliary: AuxiliarySpec = Factory(AuxiliarySpec)
    state_passing: StatePassingSpec = Factory(StatePassingSpec)
    latent_noise: float = field(
        default=0.0, validator=validators.ge(0.0), metadata={"help": "standard deviation, on what the latents show"}
    )
    warm_start: str | None = field(
        default=None, metadata={"help": "the other agent whose layout, backbone and head training begins with"}
    )
    teacher: TeacherSpec | None = None

    def moment(self, update: int, seed: int, shared_seed: int) -> Moment:
        """Return the chance of *update*, drawn from a *seed* of each process and one that all of them share."""
        return Moment(
            seed=seed,
            shared_seed=shared_seed,
            state_passing=self.state_passing.frac,
            from_itself=self.state_passing.donor == "own",
            latent_noise=self.latent_noise,
            fade=self.reconstruction.fade(update / self.num_updates),
            auxiliary=self.auxiliary.risen(update / self.num_updates),
        )

    def named(self) -> dict[str, str]:
        """Return the other agents that must be trained first, by the field that names them."""
        named = {"warm_start": self.warm_start, "teacher": None if self.teacher is None else self.teacher.agent}
        return {name: agent for name, agent in named.items() if agent is not None}
