"""Histories of anybody's expert, without any learning: its noise decays over each life (arXiv 2312.12275)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from attrs import field, frozen, validators

from cccad_data import spaces
from cccad_data.by_name import thing_at
from cccad_data.errors import DataError, SourceError
from cccad_data.family import Task
from cccad_data.plain import Array
from cccad_data.sources.fading import FadingSpec, play_fading, saved_policies
from cccad_data.sources.unit import Unit, UnitSource


@frozen(kw_only=True)
class ExpertSpec(FadingSpec):
    """Act at random with a probability that falls linearly to 0 within each life, else as an expert of yours does.

    For all rows at once, it is a function `expert(observations, params)`: the observations of all rows, `r o`, and a
    table of the parameters of their tasks, an array of `r` each; it returns actions, `r` or `r a`.
    """

    expert: str = field(
        default="",
        metadata={
            "help": "'module:function' or 'folder/file.py:function', from the working directory; "
            "empty: the saved 'policy' plays"
        },
    )
    per_environment: bool = field(
        default=False,
        metadata={
            "help": "call `expert(environment)` with the Gymnasium environment of each row once, and what it returns "
            "with the row's observation for an action; else `expert(observations, params)` for all rows at once"
        },
    )
    noise_start: float = field(
        default=1.0,
        validator=[validators.ge(0.0), validators.le(1.0)],
        metadata={"help": "probability of a random action at birth"},
    )

    def build(self) -> "Expert":
        """Return the source; raises SourceError where neither an expert nor a policy is named, or it is not there."""
        return Expert(self)


@runtime_checkable
class HasEnvironments(Protocol):
    """A vector environment that is made of single ones."""

    @property
    def envs(self) -> Sequence[object]:
        """The environment of every row."""


class Expert(UnitSource[ExpertSpec]):
    """The histories of an expert that improves because its noise fades."""

    name = "expert"

    def __init__(self, spec: ExpertSpec) -> None:
        super().__init__(spec)
        if bool(spec.expert) == bool(spec.policy):
            raise SourceError("the source 'expert' needs an 'expert', such as 'my_expert.py:act', or a saved 'policy'")
        try:
            self.expert = thing_at(spec.expert, "expert") if spec.expert else None
        except DataError as error:
            raise SourceError(str(error)) from error
        if spec.expert and not callable(self.expert):
            raise SourceError(f"expert: {spec.expert!r} cannot be called")

    def play(self, unit: Unit) -> None:
        """Take env steps, less and less of them random.

        Raises SourceError when the expert fails, its actions do not fit, or environments are hidden from it.
        """
        if self.spec.policy:
            act = saved_policies(self.spec, unit.family, unit.tasks)
        else:
            act = self._of_each(unit) if self.spec.per_environment else self._of_all(unit.tasks)
        start = self.spec.noise_start
        play_fading(unit, lambda observations: self._checked(act, observations, unit), self.spec, noise_start=start)

    def _of_all(self, tasks: Sequence[Task]) -> Callable[[Array], Array]:
        """Return what asks the expert for the actions of all rows at once."""
        names = tasks[0].params
        of_tasks = {name: np.array([task.params[name] for task in tasks]) for name in names}
        params = {name: np.repeat(values, self.spec.num_envs, axis=0) for name, values in of_tasks.items()}
        expert: Any = self.expert
        return lambda observations: expert(observations.copy(), params)

    def _of_each(self, unit: Unit) -> Callable[[Array], Array]:
        """Return what asks for the action of each row by itself, which knows the row's environment."""
        if not isinstance(unit.environment, HasEnvironments):
            raise SourceError(f"'per_environment' needs single environments; family {unit.family.name!r} has none")
        environments, make = unit.environment.envs, self.expert
        assert make is not None
        with self._blamed(unit):
            players = [make(environment) for environment in environments]
        starts = [getattr(getattr(environment, "action_space", None), "start", 0) for environment in environments]

        def act(observations: Array) -> Array:
            rows = zip(players, observations, starts, strict=True)
            return np.stack([np.asarray(player(row)) - start for player, row, start in rows])

        return act

    def _checked(self, act: Callable[[Array], Array], observations: Array, unit: Unit) -> Array:
        """Return what is to be done in every row; numbers beyond a box's bounds are put at the bound."""
        with self._blamed(unit):
            actions = np.asarray(act(observations))
        space, shape = unit.action_space, spaces.action_shape(unit.action_space)
        if actions.size != unit.num_rows * int(np.prod(shape)) or len(actions) != unit.num_rows:
            wanted = (unit.num_rows, *shape)
            raise SourceError(f"{self._title} returns actions of shape {actions.shape}, not {wanted}")
        actions = actions.reshape(unit.num_rows, *shape)
        if space["kind"] != "box":
            return actions
        low, high = (end.reshape(shape) for end in spaces.bounds(space))
        return actions.clip(low, high).astype(np.float32)

    @contextmanager
    def _blamed(self, unit: Unit) -> Iterator[None]:
        """Say that it was the expert that failed, and where, whatever it raises."""
        try:
            yield
        except SourceError:
            raise
        except Exception as error:
            where = f"in family {unit.family.name!r}, env step {unit.now:,}"
            raise SourceError(f"{self._title} fails {where}: {type(error).__name__}: {error}") from error

    @property
    def _title(self) -> str:
        return f"the expert {self.spec.expert or self.spec.policy!r}"
