"""Whether parts keep their contracts: quickly before a run for those that are not ours, with all laws on request."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from numbers import Real
from typing import Any

import torch
from attrs import frozen
from cccad_core.blame import place_of
from cccad_core.encoders.base import EncoderSpec
from cccad_core.errors import CccadError, UnknownPart, reason
from cccad_core.fitting import encoder_for, head_for
from cccad_core.heads.base import HeadSpec
from cccad_core.laws.bench import Bench
from cccad_core.laws.compressor import check_compressor
from cccad_core.laws.encoder import check_encoder
from cccad_core.laws.head import check_head
from cccad_core.laws.law import LawBroken, require
from cccad_core.laws.layout import check_layout
from cccad_core.laws.memory import check_memory
from cccad_core.laws.noise import SPACES
from cccad_core.laws.objective import check_objective
from cccad_core.laws.trigger import check_trigger
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.objectives.base import ObjectiveSpec
from cccad_core.registry import entry, lookup, name_of, names, refuse_what_lacks, title
from cccad_core.spaces import Spaces
from cccad_core.specs import structure
from cccad_core.specs.toml import override
from cccad_data.collecting.source_laws import check_source
from cccad_data.errors import DataError, SourceError
from cccad_data.families.laws import check_family
from cccad_data.family import FamilySpec, TaskFamily

from cccad_train.experiment import AgentSpec, ExperimentSpec
from cccad_train.fit.curricula import CurriculumSpec
from cccad_train.fit.spec import FitSpec

CHECKED_UPDATES = 200  # of a curriculum


class LawsBrokenError(ValueError):
    """A part does not do what all others rely on; the sentence says which law, which part and whose."""


Law = Callable[[Any, bool], None]
"""Checks a part's spec, quickly or wholly."""


@frozen(slots=False)
class Bed:
    """What the parts of an experiment are checked in: its environment, and the sizes of its policies."""

    spec: ExperimentSpec

    @cached_property
    def family(self) -> TaskFamily:
        """The family of the spec's environment."""
        family: TaskFamily = self.spec.env.build()
        return family

    @cached_property
    def spaces(self) -> Spaces:
        """What an agent observes and does there."""
        return Spaces.from_dict(self.family.spaces)

    def parts(self) -> Iterator[tuple[str, object, Law]]:
        """Yield the kind, the spec and the laws of every part that has laws, environments first."""
        yield "env", self.spec.env, self._family
        if self.spec.data.path is None:
            yield "source", self.spec.data.source, self._source
        for agent in self.spec.described().values():
            yield "tokens", agent.policy.tokens, self._layout
            if agent.policy.encoder is not None:
                yield "encoder", agent.policy.encoder, self._encoder
            if agent.policy.head is not None:
                yield "head", agent.policy.head, self._head
            yield from _of_memory(agent)
            for fit in agent.fits().values():
                yield "curriculum", fit.curriculum, partial(_curriculum, fit)
                yield "objective", fit.objective, self._objective

    def refuse_unfit_objectives(self) -> None:
        """Raise LawsBrokenError where an agent is to be trained by an objective that does not take its head."""
        space = self.spaces.action
        for agent in self.spec.described().values():
            with torch.random.fork_rng(devices=[]):
                head = head_for(space, agent.policy.head).build(space, 8)  # of any width: sizes are checked later
            for objective in (fit.objective for fit in agent.fits().values()):
                if not objective.takes(head):
                    name = title(type(objective), "objective")
                    problem = f"{name}, as it is set, cannot train a head for {space.kind} actions"
                    raise LawsBrokenError(f"{problem}: {type(head).__name__}")

    def _family(self, part: FamilySpec, is_quick: bool) -> None:
        check_family(part, is_quick=is_quick)
        _check_name("env", part, self.family.name)

    def _source(self, part: Any, is_quick: bool) -> None:
        check_source(part, self.family, is_quick=is_quick)
        _check_name("source", part, part.build().name)

    def _objective(self, part: ObjectiveSpec, _: bool) -> None:
        check_objective(part, spaces=self.spaces)

    def _encoder(self, part: EncoderSpec, _: bool) -> None:
        encoder_for(self.spaces.observation, part)
        check_encoder(part, space=self.spaces.observation)

    def _head(self, part: HeadSpec, _: bool) -> None:
        head_for(self.spaces.action, part)
        check_head(part, space=self.spaces.action)

    def _layout(self, part: object, _: bool) -> None:
        check_layout(part, spaces=self.spaces)


def _check_name(kind: str, part: object, name: str) -> None:
    registered = name_of(type(part), kind)[1]
    what = f"it calls itself {name!r} and is registered as {registered!r}; histories would name what nobody knows"
    require("one name", name == registered, what)


def _curriculum(fit: FitSpec, part: CurriculumSpec, _: bool) -> None:
    check_curriculum(part, fit.num_updates, fit.num_writes)


def _of_memory(agent: AgentSpec) -> Iterator[tuple[str, object, Law]]:
    """Yield a memory, and the parts of one that has parts."""
    memory = agent.policy.memory
    yield "memory", memory, lambda part, _: check_memory(part, width=agent.policy.width)
    if isinstance(memory, CompressedSpec):
        yield "compressor", memory.compressor, partial(_compressor, agent)
        yield "trigger", memory.trigger, lambda part, _: check_trigger(part)


def _compressor(agent: AgentSpec, part: Any, is_quick: bool) -> None:
    if is_quick:
        Bench.of(part, agent.policy.width, agent.policy.memory.num_heads).check_quickly()
    else:
        check_compressor(part, width=agent.policy.width)


def check_curriculum(part: CurriculumSpec, num_updates: int, most: int) -> None:
    """Check that a schedule asks for 0 to *most* writes, and now and then for one; raises LawBroken."""
    schedule, largest = part.build(), 0.0
    require("a curriculum is whole", hasattr(schedule, "num_writes"), "what build() returns has no num_writes()")
    for index in range(min(CHECKED_UPDATES, num_updates)):
        update = index * (num_updates - 1) // max(1, min(CHECKED_UPDATES, num_updates) - 1)
        writes: Any = schedule.num_writes(update, most)
        again = schedule.num_writes(update, most)
        law, what = "writes within bounds", f"num_writes({update}, {most}) is {writes!r}, no number from 0 to {most}"
        is_number = type(writes) is not bool and isinstance(writes, Real) and math.isfinite(writes)
        require(law, is_number and 0 <= writes <= most, what)
        require("a function of the update", writes == again, f"num_writes({update}, {most}) is {writes}, then {again}")
        largest = max(largest, float(writes))
    require("some stretch has a write", not most or largest > 0, f"num_writes() is 0 in all of {num_updates:,} updates")


def preflight(spec: ExperimentSpec) -> None:
    """Put every part of *spec* that is not ours to the quick laws; raises LawsBrokenError and BrokenPart."""
    bed = Bed(spec)
    for kind, part, law in bed.parts():
        if not entry(*name_of(type(part), kind)).is_ours:
            _put_to(law, kind, part, is_quick=True)
    bed.refuse_unfit_objectives()


def check_experiment(spec: ExperimentSpec) -> Iterator[str]:
    """Put every part of *spec* to all its laws; yield a line for each that keeps them; raises as `preflight` does."""
    checked: list[tuple[str, object]] = []
    for kind, part, law in Bed(spec).parts():
        if (kind, part) not in checked:
            checked.append((kind, part))
            yield _put_to(law, kind, part)


def check_part(kind: str, name: str, overrides: Iterable[str] = ()) -> str:
    """Put one part to all its laws; return a line that says it keeps them.

    Its settings are its defaults, but for *overrides* such as `size=5`.
    """
    cls = lookup(kind, name)
    settings: dict[str, Any] = {}
    for text in overrides:
        override(settings, text)
    laws: dict[str, Law] = {
        "compressor": lambda part, _: check_compressor(part),
        "memory": lambda part, _: check_memory(part),
        "tokens": lambda part, _: check_layout(part, spaces=SPACES),
        "encoder": lambda part, _: check_encoder(part),
        "head": lambda part, _: check_head(part),
        "objective": lambda part, _: check_objective(part),
        "trigger": lambda part, _: check_trigger(part),
        "curriculum": lambda part, _: check_curriculum(part, 1_000, 6),
        "env": lambda part, is_quick: check_family(part, is_quick=is_quick),
        "source": _in_some_family,
    }
    if kind not in laws:
        raise UnknownPart(f"there are no laws for a part of kind '{kind}', but for {', '.join(laws)}")
    try:
        part = structure(settings, cls) if settings else cls()
    except TypeError as error:
        problem = f"{title(cls, kind)} has fields without defaults: set them, --set field=VALUE, or check a whole SPEC"
        raise LawsBrokenError(f"{problem} ({error})") from None
    return _put_to(laws[kind], kind, part)


def _in_some_family(part: Any, is_quick: bool) -> None:
    """Check a source in the first installed family that it can play, of those that need no settings."""
    refused: list[SourceError] = []
    for name in names("env"):
        try:
            family = lookup("env", name)().build()
        except TypeError:  # it has fields without defaults
            continue
        try:
            return check_source(part, family, is_quick=is_quick)
        except SourceError as error:
            refused.append(error)
    if not refused:
        raise UnknownPart("a source is checked in a task family, and none is installed that needs no settings")
    raise refused[0]


def _put_to(law: Law, kind: str, part: object, *, is_quick: bool = False) -> str:
    name = title(type(part), kind)
    try:
        refuse_what_lacks(part, kind)
        with torch.random.fork_rng(devices=[]):
            law(part, is_quick)
    except (LawBroken, DataError) as error:
        raise LawsBrokenError(f"{name}: {error}") from error
    except CccadError:
        raise
    except Exception as error:
        raise LawsBrokenError(f"{name} fails where its laws are checked: {reason(error)}{place_of(error)}") from error
    return f"{name}: keeps its laws"
