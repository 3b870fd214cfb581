"""One TOML file is one experiment, complete: which tasks, whose histories, what policy, how trained, how judged."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from attrs import evolve, field, frozen, validators
from cccad_core.layouts import ObservationSpec
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.memory.memoryless import MemorylessSpec
from cccad_core.policy import PolicySpec
from cccad_core.specs import Kind
from cccad_core.specs.toml import show
from cccad_data import InlineSpec, SamplerSpec

from cccad_train.fit.spec import PretrainSpec, TrainSpec

_count = validators.ge(1)
_seed = [validators.ge(0), validators.lt(2**64)]
BLIND = "blind"
"""What the task-blind control is called in folders."""
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
_name = validators.matches_re(NAME)
FAMILY = "[env] with the kind of a task family, as in kind = \"darkroom\" ('cccad list env' names them)"
HISTORIES = (
    "[data.source] with the kind of a learning algorithm, as in kind = \"ppo\" ('cccad list source' names them), "
    "or [data] with the path of histories that are there"
)


@frozen(kw_only=True)
class SplitSpec:
    """Which tasks are held out; the ids that follow from it travel with the data, the policy and the results."""

    seed: int = field(default=0, validator=_seed, metadata={"help": "of the draw of the held-out tasks"})
    held_out_frac: float = field(
        default=0.1,
        validator=[validators.gt(0.0), validators.lt(1.0)],
        metadata={"help": "the share of all tasks that no training ever sees"},
    )
    max_train_tasks: int | None = field(
        default=None, validator=validators.optional(_count), metadata={"help": "collect only the first of the split"}
    )
    max_held_out_tasks: int | None = field(
        default=None, validator=validators.optional(_count), metadata={"help": "evaluate only the first of the split"}
    )


@frozen(kw_only=True)
class DataSpec:
    """Whose learning histories are imitated, who collects them, and how stretches are cut from them."""

    path: str | None = field(
        default=None,
        metadata={
            "help": "a dataset folder or shard, from the current directory; a run keeps it as an absolute path and by "
            "its content; source, executor and seed are ignored then"
        },
    )
    source: Annotated[Any, Kind("source")] | None = field(
        default=None, metadata={"help": "the learning algorithm whose histories are collected; required without 'path'"}
    )
    executor: Annotated[Any, Kind("executor")] = field(
        factory=InlineSpec, metadata={"help": "who does the collecting, and how much of it at a time"}
    )
    sampler: SamplerSpec = field(
        factory=SamplerSpec, metadata={"help": "how stretches are cut from the histories for training"}
    )
    seed: int = field(default=0, validator=_seed, metadata={"help": "of the learners, not of training"})

    def __attrs_post_init__(self) -> None:
        """Check what no single field can: raises ValueError."""
        if self.path is None and self.source is None:
            raise ValueError(f"'data' needs a source or a path; write {HISTORIES}")


@frozen(kw_only=True)
class AgentSpec:
    """A policy with its own training: the main agent of an experiment, or one that it is compared with."""

    policy: PolicySpec = field(factory=PolicySpec, metadata={"help": "what is trained"})
    pretrain: PretrainSpec | None = field(
        default=None, metadata={"help": "what comes before training; nothing, without it"}
    )
    train: TrainSpec = field(factory=TrainSpec, metadata={"help": "how it is trained"})

    def __attrs_post_init__(self) -> None:
        """Check what no single field can: raises ValueError."""
        if self.pretrain is not None and not self.policy.num_latents:
            raise ValueError("'pretrain' trains a compressor, and this policy's memory has no latents")
        if self.pretrain is not None and self.pretrain.num_writes < 1:
            raise ValueError(f"'pretrain.num_writes' must be >= 1: {self.pretrain.num_writes}")
        if (self.train.state_passing.frac or self.train.latent_noise) and not self.policy.num_latents:
            raise ValueError(
                "'train.state_passing' and 'train.latent_noise' are about latents, and this policy's memory has none"
            )
        if self.train.optimizer.compressor_scale != 1 and not self.policy.num_latents:
            raise ValueError(
                "'optimizer.compressor_scale' is about a compressor that learns, and this policy's does not"
            )

    def fit(self, kind: str) -> PretrainSpec | TrainSpec:
        """Return how the agent is trained in a stage of *kind* `pretrain` or `train`."""
        return self.fits()[kind]

    def fits(self) -> dict[str, PretrainSpec | TrainSpec]:
        """Return how the agent is trained in each of its stages, by the stage's kind."""
        return {"train": self.train} if self.pretrain is None else {"pretrain": self.pretrain, "train": self.train}

    def blinded(self) -> "AgentSpec":
        """Return a task-blind agent beside this one: as wide, and with a quarter of its updates, which are cheap."""
        policy = evolve(self.policy, tokens=ObservationSpec(), memory=MemorylessSpec())
        train = TrainSpec(
            num_updates=-(-self.train.num_updates // 4),
            targets_per_update=self.train.targets_per_update,
            optimizer=evolve(self.train.optimizer, compressor_scale=1.0),
            precision=self.train.precision,
            checkpoint_every_updates=self.train.checkpoint_every_updates,
            log_every_updates=self.train.log_every_updates,
        )
        return AgentSpec(policy=policy, train=train)

    def named(self) -> dict[str, str]:
        """Return the other agents that must be trained first, by the field that names them."""
        named = {} if self.train.warm_start is None else {"train.warm_start": self.train.warm_start}
        for kind, spec in self.fits().items():
            named |= {f"{kind}.objective.{place}": agent for place, agent in spec.objective.agents.items()}
        return named


@frozen(kw_only=True)
class EvaluateSpec:
    """How the held-out tasks are played."""

    MOVED: ClassVar[dict[str, str]] = {"worlds": "environments"}

    num_episodes: int = field(
        default=100, validator=_count, metadata={"help": "in a life; its last ten or fewer count"}
    )
    num_replicas: int = field(default=16, validator=_count, metadata={"help": "lives per task"})
    greedy: bool = field(default=False, metadata={"help": "take the likeliest action instead of drawing one"})
    memory_controls: bool = field(default=True, metadata={"help": "play again with latents zeroed and swapped"})
    sliding: tuple[str, ...] = field(
        default=(), metadata={"help": "agents whose plain window is played again, sliding instead of being emptied"}
    )
    seed: int = field(default=0, validator=_seed, metadata={"help": "of the lives that are played"})
    environments: dict[str, dict[str, Any]] = field(
        factory=dict, metadata={"help": "by name: other settings of 'env' to play in as well"}
    )


@frozen(kw_only=True)
class ExperimentSpec:
    """A whole experiment. `agent` names the main agent in tables; `controls` are others, by name."""

    name: str = field(
        validator=validators.matches_re(r"[A-Za-z0-9][A-Za-z0-9_.-]*"),
        metadata={"help": "what the folder of a run begins with"},
    )
    seed: int = field(default=0, validator=_seed, metadata={"help": "of training and weights"})
    imports: tuple[str, ...] = field(
        default=(), metadata={"help": "Python files with parts of your own, relative to the spec"}
    )
    env: Annotated[Any, Kind("env")] = field(
        metadata={"help": "the family of tasks that are learned, and of those that are held out", "write": FAMILY}
    )
    split: SplitSpec = field(factory=SplitSpec, metadata={"help": "which tasks are trained on, and which are held out"})
    data: DataSpec = field(metadata={"help": "the histories that are imitated", "write": HISTORIES})
    agent: str = field(
        default="cad", validator=_name, metadata={"help": "the name of the main agent in tables and folders"}
    )
    policy: PolicySpec = field(factory=PolicySpec, metadata={"help": "the main agent's policy"})
    pretrain: PretrainSpec | None = field(
        default=None, metadata={"help": "what comes before its training; nothing, without it"}
    )
    train: TrainSpec = field(factory=TrainSpec, metadata={"help": "its training"})
    controls: dict[str, AgentSpec] = field(
        factory=dict,
        metadata={"help": "by name: other agents, trained on the same histories and played on the same tasks"},
    )
    blind: bool = field(
        default=True,
        metadata={
            "help": "add a task-blind control, unless 'controls' has one of that name: trained on the same histories, "
            "it sees the current observation alone, so it cannot learn which task it is in"
        },
    )
    evaluate: EvaluateSpec = field(factory=EvaluateSpec, metadata={"help": "how held-out tasks are played"})

    def __attrs_post_init__(self) -> None:
        """Check what no single field can: raises ValueError."""
        if self.agent in self.controls:
            raise ValueError(f"'controls' has the name of the main agent: {self.agent!r}")
        for name in self.controls:  # a folder is named after each
            if re.fullmatch(NAME, name) is None:
                raise ValueError(f"'controls' must have names of letters, digits, '_' and '-': {show(name)}")
        for name in self.evaluate.environments:
            if not name.isprintable():
                raise ValueError(f"'evaluate.environments' must have printable names: {show(name)}")
        refuse_what_does_not_fit(self.described())
        refuse_what_cannot_slide(self.evaluate.sliding, self.described())

    def described(self) -> dict[str, AgentSpec]:
        """Return the agents that the spec describes by name, the main one first."""
        main = AgentSpec(policy=self.policy, pretrain=self.pretrain, train=self.train)
        return {self.agent: main, **self.controls}

    def agents(self) -> dict[str, AgentSpec]:
        """Return every agent to be trained by name, the main one first, and the task-blind control last."""
        agents = self.described()
        main = agents[self.agent]
        if not self.blind or BLIND in agents or main.policy.is_blind:
            return agents
        return {**agents, BLIND: main.blinded()}


def recorded(evaluate: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain `[evaluate]` by the names under which digests and results have known its fields from the first."""
    first_names = {"environments": "worlds"}
    return {first_names.get(name, name): value for name, value in evaluate.items()}


def refuse_what_cannot_slide(names: tuple[str, ...], agents: dict[str, AgentSpec]) -> None:
    """Raise ValueError where one of *names* is no agent with a plain window."""
    plain = [name for name, agent in agents.items() if agent.policy.has_plain_window]
    for name in names:
        if name not in plain:
            listed = ", ".join(plain) or "there is none"
            raise ValueError(f"'evaluate.sliding' must name agents with a plain window ({listed}): {name!r}")


def _shared_shape(ours: PolicySpec, theirs: PolicySpec) -> dict[str, tuple[Any, Any]]:
    """Return, by field, what must be the same in two policies of which one begins with the other's weights."""
    shape = {part: (getattr(ours, part), getattr(theirs, part)) for part in ("tokens", "width")}
    memories = ours.memory, theirs.memory
    if all(isinstance(memory, CompressedSpec) for memory in memories):
        for part in ("num_layers", "num_heads", "mlp_ratio"):
            shape[f"memory.{part}"] = getattr(memories[0], part), getattr(memories[1], part)
    return shape


def refuse_what_does_not_fit(agents: dict[str, AgentSpec]) -> None:
    """Raise ValueError where an agent names another that is not there, of another shape, or trained after it."""
    for name, agent in agents.items():
        for place, other in agent.named().items():
            if other == name or other not in agents:
                others = ", ".join(sorted(set(agents) - {name})) or "there is none"
                raise ValueError(f"'{place}' of {name!r} must name another agent ({others}): {other!r}")
        if agent.train.warm_start is not None:
            ours, theirs = agent.policy, agents[agent.train.warm_start].policy
            for part, (own, wanted) in _shared_shape(ours, theirs).items():
                if own != wanted:
                    raise ValueError(
                        f"'train.warm_start' of {name!r} needs the 'policy.{part}' of {agent.train.warm_start!r}, "
                        f"{wanted}, not {own}"
                    )
    left = {name: set(agent.named().values()) for name, agent in agents.items()}
    while ready := [name for name, waits in left.items() if not waits & left.keys()]:
        left = {name: waits for name, waits in left.items() if name not in ready}
    if left:
        raise ValueError(
            f"each of {', '.join(sorted(left))} must be trained before the others "
            "('warm_start', or an agent that an objective names)"
        )
