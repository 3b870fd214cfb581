"""The graph of a run: which stages there are, what each needs, and a digest of all that its outcome depends on.

It is resolved once, when a spec has been read. Whoever asks whether a stage is done, whose weights it begins with or
what has to come before it asks the graph; the name of a stage is for files and people, and is never taken apart.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen
from cccad_core.registry import distributions
from cccad_core.specs import digest, parts, unstructure
from cccad_data import HistoryFileError

from cccad_train.experiment import AgentSpec, ExperimentSpec, recorded
from cccad_train.files import Json
from cccad_train.run.histories import content

FITTING = ("pretrain", "train")
"""The kinds that change the weights of one agent."""


# eq=False: a stage is alike itself alone, or each `in` would compare all the stages behind it, again and again.
@frozen(kw_only=True, eq=False)
class Stage:
    """One piece of a run's work, which is done once for the same inputs.

    `needs` are the stages whose outcomes it reads, and `weights_from`, one of them, is that whose weights it begins
    with. `inputs` is a digest of all that its outcome depends on, the stages before it included; it is None where the
    histories that the spec names cannot be read.
    """

    kind: str
    agent: str | None = None
    needs: tuple["Stage", ...] = ()
    weights_from: "Stage | None" = None
    inputs: str | None = None

    @property
    def name(self) -> str:
        """What files and messages call it, such as `train-cad`."""
        return self.kind if self.agent is None else f"{self.kind}-{self.agent}"


@frozen(kw_only=True, eq=False)
class Graph:
    """The stages of an experiment, each after those that it needs.

    With it goes what else follows from the spec alone: the agents by name, the main one first, the spec as plain data,
    its digest, and the distributions and files that supplied its parts.
    """

    spec: ExperimentSpec
    plain: Json
    digest: str
    agents: Mapping[str, AgentSpec]
    stages: tuple[Stage, ...]
    suppliers: Mapping[str, str]

    @property
    def folder_name(self) -> str:
        """What the folder of the run is called: `<name>-<8 hex of the resolved spec>-s<seed>`."""
        return f"{self.spec.name}-{self.digest}-s{self.spec.seed}"

    def stage(self, kind: str, agent: str | None = None) -> Stage:
        """Return the stage of *kind*, of *agent* if each agent has one of its own."""
        [stage] = (stage for stage in self.stages if (stage.kind, stage.agent) == (kind, agent))
        return stage

    def agent_of(self, stage: Stage) -> AgentSpec:
        """Return the agent that *stage* trains."""
        assert stage.agent is not None
        return self.agents[stage.agent]

    def fits(self) -> list[Stage]:
        """Return the stages in which an agent is trained."""
        return [stage for stage in self.stages if stage.kind in FITTING]

    def wanted(self, only: str | None = None) -> list[Stage]:
        """Return what is to be done: everything, or the stages of kind *only*.

        Pre-training may begin with the weights of another agent; what that agent needs is then wanted with it.
        """
        chosen = [stage for stage in self.stages if only in (None, stage.kind)]
        if only == "pretrain":
            chosen = _with_needs(chosen)
        return [stage for stage in self.stages if stage in chosen]

    def required(self, only: str) -> list[Stage]:
        """Return what must have been done before the stages of kind *only* can be."""
        wanted = self.wanted(only)
        needed = {need.name for stage in wanted for need in stage.needs if need not in wanted}
        return [stage for stage in self.stages if stage.name in needed]


def _with_needs(stages: Sequence[Stage]) -> list[Stage]:
    """Return *stages* with all training stages that they build on, however indirectly."""
    needs = [need for stage in stages for need in stage.needs if need.kind in FITTING]
    return [*_with_needs(needs), *stages] if needs else list(stages)


def resolve(spec: ExperimentSpec) -> Graph:
    """Return the graph of *spec*; of histories that it names, all bytes are read."""
    plain = unstructure(spec)
    agents = spec.agents()
    collect = Stage(kind="collect", inputs=_digest_of_data(spec, plain))
    # In the order of the spec, but each after the stages that it begins with or learns from.
    fits = _Fits(agents=agents, plain=plain, collect=collect)
    for kind in FITTING:
        for name, agent in agents.items():
            if getattr(agent, kind) is not None:
                fits.add(kind, name)
    trained = tuple(fits.stages["train", name] for name in agents)
    evaluate = Stage(
        kind="evaluate",
        needs=(collect, *trained),
        inputs=_digest_from(trained, lambda inputs: _what_is_played(list(agents), inputs, plain)),
    )
    release = Stage(
        kind="release",
        needs=(collect, *trained, evaluate),
        inputs=_digest_from((evaluate,), lambda inputs: {"release": inputs}),
    )
    # Without inputs it is never done: it is quick, and drawn anew whenever it is asked for.
    report = Stage(kind="report", needs=(evaluate,))
    return Graph(
        spec=spec,
        plain=plain,
        digest=_digest_of_spec(plain),
        agents=agents,
        stages=(collect, *fits.stages.values(), evaluate, release, report),
        suppliers=distributions(sorted(parts(spec))),
    )


@define(kw_only=True)
class _Fits:
    """The training stages so far, in an order in which they can be done."""

    agents: Mapping[str, AgentSpec]
    plain: Json
    collect: Stage
    stages: dict[tuple[str, str], Stage] = field(init=False, factory=dict)

    def add(self, kind: str, name: str) -> Stage:
        """Return the stage of *kind* of an agent, which comes after all that it needs."""
        if (kind, name) in self.stages:
            return self.stages[kind, name]
        # This ends: a spec whose agents begin with, or learn from, one another in a circle was refused.
        weights_from = self._weights_from(kind, name)
        others = [self.add("train", other) for other in self.agents[name].fit(kind).objective.agents.values()]
        before = tuple(stage for stage in (weights_from, *others) if stage is not None)
        stage = Stage(
            kind=kind,
            agent=name,
            needs=tuple(dict.fromkeys([self.collect, *before])),
            weights_from=weights_from,
            inputs=_digest_from(before or (self.collect,), lambda inputs: self._what_is_fitted(kind, name, inputs)),
        )
        self.stages[kind, name] = stage
        return stage

    def _weights_from(self, kind: str, name: str) -> Stage | None:
        agent = self.agents[name]
        if kind == "train" and agent.pretrain is not None:
            return self.add("pretrain", name)
        return None if agent.train.warm_start is None else self.add("train", agent.train.warm_start)

    def _what_is_fitted(self, kind: str, name: str, before: list[str]) -> Json:
        """Return all that the weights at the end of a stage depend on; *before* are the inputs of those it needs."""
        policy, fit = self.agents[name].policy, self.agents[name].fit(kind)
        return {
            "before": before,
            "policy": unstructure(policy),
            # Names with versions: another version of a package may compute something else from the same fields.
            "suppliers": distributions(sorted(parts(policy))),
            "fit": unstructure(fit),
            "sampler": self.plain["data"].get("sampler", {}),
            "seed": self.plain["seed"],
            **_by_files([fit]),
        }


def _digest_of_spec(plain: Json) -> str:
    """Return 8 hex digits that stand for all of the spec but its seed and the folders of its plugins and histories.

    What lies in those files counts in the inputs of stages.
    """
    data = dict(plain["data"])
    if "path" in data:
        data["path"] = Path(data["path"]).absolute().name
    imports = [Path(file).name for file in plain["imports"]]
    # The seed stands beside the digest in a folder's name, so that runs that differ by it alone are seen to be one
    # experiment. Old names of fields, since a renamed field must not make runs strangers to their folders.
    return digest({**plain, "seed": 0, "imports": imports, "data": data, "evaluate": recorded(plain["evaluate"])})


def _digest_of_data(spec: ExperimentSpec, plain: Json) -> str | None:
    """Return a digest of the histories: of how they are collected, or of the bytes that are there."""
    split = {name: value for name, value in plain["split"].items() if name != "max_held_out_tasks"}
    if spec.data.path is None:
        histories = [plain["env"], split, plain["data"]["source"], plain["data"]["seed"]]
        return digest({"data": histories, **_by_files([spec.env, spec.data.source])})
    try:
        hashes = content(Path(spec.data.path))
    except (HistoryFileError, OSError):  # who opens them says what is wrong
        return None
    return digest({"data": [plain["env"], split, *hashes], **_by_files([spec.env])})


def _what_is_played(agents: list[str], trained: list[str], plain: Json) -> Json:
    """Return all that the results depend on; *trained* are the inputs of the agents' training."""
    most = plain["split"].get("max_held_out_tasks")
    # No key, rather than one that says None: digests of specs without a limit know nothing of the field.
    limited = {} if most is None else {"max_held_out_tasks": most}
    return {"agents": trained, "names": agents, "evaluate": recorded(plain["evaluate"]), **limited}


def _digest_from(before: Sequence[Stage], describe: Callable[[list[str]], Json]) -> str | None:
    """Return the digest of what *describe* makes of the inputs of the stages *before*; None where one has none."""
    # What depends on something unknown is unknown, too: half a digest would find the outcome of another run.
    inputs = [stage.inputs for stage in before if stage.inputs is not None]
    return digest(describe(inputs)) if len(inputs) == len(before) else None


def _by_files(specs: Sequence[object]) -> Json:
    """Return the contents, as hashes, of the plugin files that supplied parts of *specs*, if there are any."""
    suppliers = distributions(sorted(parts(specs)))
    files = {name: version for name, version in suppliers.items() if name.endswith(".py")}
    return {"files": files} if files else {}
