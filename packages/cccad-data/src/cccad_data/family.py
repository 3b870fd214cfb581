"""The contract of a task family: what every family has, and what else it may offer, asked for by `isinstance`.

Letters in shapes: `e` rows of a vector environment, `t` env steps, `o` observation features, `a` action features.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from attrs import AttrsInstance
from numpy.typing import NDArray

from cccad_data.errors import FamilyError
from cccad_data.plain import Array, Parameter, Table
from cccad_data.spaces import Space

StepOutcome: TypeAlias = tuple[Array, Array, Array, Array, Table]
"What `step` returns: observations, rewards, terminations, truncations, infos."


@runtime_checkable
class Task(Protocol):
    """One member of a family, known by a stable readable id such as `darkroom-9x9/goal-4-2`."""

    @property
    def task_id(self) -> str:
        """The id, which data files, artefacts and results carry."""

    @property
    def params(self) -> Mapping[str, Parameter]:
        """The parameters that make up the task, by name."""


@runtime_checkable
class TaskSplit(Protocol):
    """Tasks to train on and held-out tasks: disjoint, and together all tasks."""

    @property
    def train(self) -> Sequence[Task]:
        """The tasks to train on, in drawn order: any prefix is a uniform sample."""

    @property
    def held_out(self) -> Sequence[Task]:
        """The tasks that no training history may hold, in drawn order."""


@runtime_checkable
class VectorEnvironment(Protocol):
    """Environments stepped together, with Gymnasium's vector interface and autoreset in the same env step.

    Row i draws its random numbers as if it were alone and had been reset with `seed + i`.
    """

    @property
    def num_envs(self) -> int:
        """The number of rows."""

    def reset(self, *, seed: int | None = None, options: Table | None = None) -> tuple[Array, Table]:
        """Begin a new life in every row, or in the rows of `options["reset_mask"]`, bool `e`, alone.

        Returns:
            The observations of all rows, `e o`, and infos.
        """

    def step(self, actions: Array, /) -> StepOutcome:
        """Take one env step in every row; a row whose episode ends begins its next one at once.

        Returns:
            Observations `e o`, rewards, terminations and truncations `e`, and infos, in which `final_obs` holds the
            true last observation of every episode that ended.
        """


@runtime_checkable
class FamilySpec(AttrsInstance, Protocol):
    """An attrs class whose fields are a family's settings."""

    def build(self) -> "TaskFamily":
        """Return the family; the same settings always make the same family."""


@runtime_checkable
class TaskFamily(Protocol):
    """Tasks that share spaces and dynamics."""

    @property
    def name(self) -> str:
        """The name under which the family's spec is registered."""

    @property
    def spec(self) -> FamilySpec:
        """The settings that built the family."""

    @property
    def horizon(self) -> int:
        """The most env steps that an episode can have."""

    @property
    def spaces(self) -> Mapping[str, Space]:
        """The spaces of `observation` and `action`, as plain dictionaries."""

    @property
    def tasks(self) -> Sequence[Task]:
        """Every task, in canonical order."""

    def task(self, task_id: str, /) -> Task:
        """Return the task of this id; raises LookupError where there is none."""

    def split(self, seed: int = ..., held_out_frac: float = ...) -> TaskSplit:
        """Draw the held-out tasks; the same *seed* always draws the same."""

    def make_vec(self, tasks: Sequence[Task], /) -> VectorEnvironment:
        """Return a vector environment whose row i plays `tasks[i]`; a task may occur many times."""


# What a family may offer besides -------------------------------------------------------------------------------------


@runtime_checkable
class HasOptimum(Protocol):
    """A family that knows the optimum of every task."""

    def optimal_returns(self, tasks: Sequence[Task], /) -> Array:
        """Return the highest expected return of one episode of each task, `e`."""


@runtime_checkable
class NeedsReference(Protocol):
    """A family whose optimum nobody knows: returns are measured by what the source of the histories reaches."""

    @property
    def has_no_optimum(self) -> bool:
        """True."""


@runtime_checkable
class HasRandomReturn(Protocol):
    """A family that knows what the uniformly random policy earns."""

    def random_returns(self, tasks: Sequence[Task], /) -> Array:
        """Return the expected return of the uniformly random policy in one episode of each task, `e`."""


@runtime_checkable
class MeasuresRandomReturn(HasRandomReturn, Protocol):
    """A family whose random returns are estimates, measured over some episodes."""

    def random_return_errors(self, tasks: Sequence[Task], /) -> Array:
        """Return the standard error of the random return of each task, `e`; 0 where it is exact."""


@runtime_checkable
class KnowsDynamics(Protocol):
    """A family that says where actions lead."""

    def next_observations(
        self, task: Task, observations: Array, actions: Array, /, *, recorded: Array | None = None
    ) -> Array:
        """Return the true next observations of one history, `t o`.

        Args:
            task: The task that was played.
            observations: The observations of a history from its birth on, `t o`.
            actions: What was done, `t` or `t a`.
            recorded: The next observations that were recorded; only where `has_random_transitions`, and then those
                that are possible are returned as they are.
        """


@runtime_checkable
class Replayable(Protocol):
    """A family that computes rewards and flags from recorded transitions."""

    def replay(
        self,
        task: Task,
        observations: Array,
        actions: Array,
        next_observations: Array,
        episode_ends: Array,
        /,
        *,
        rewards: Array | None = None,
    ) -> tuple[Array, Array, Array]:
        """Return the rewards, terminations and truncations that one history must have recorded, `t` each.

        *rewards* are the recorded ones; only where `has_random_rewards`, and then those that are possible are returned
        as they are.
        """


@runtime_checkable
class RepeatableFamily(TaskFamily, KnowsDynamics, Replayable, Protocol):
    """A family that can play a recorded history again."""


class ReferencePlayer(Protocol):
    """A strategy that plays every row of a vector environment."""

    def choose(self) -> Array:
        """Return an action for every row."""

    def learn(self, actions: Array, rewards: Array, /) -> object:
        """Take in what *actions* earned."""


MakePlayer: TypeAlias = Callable[..., ReferencePlayer]
"Makes a player, of a vector environment of the family and a seed."


@runtime_checkable
class HasReferencePlayers(Protocol):
    """A family that offers known strategies, to be compared with a trained agent."""

    @property
    def reference_players(self) -> Mapping[str, MakePlayer]:
        """By name, functions of a vector environment and a seed."""


@runtime_checkable
class SaysRandomRewards(Protocol):
    """A family that says whether chance decides its rewards."""

    @property
    def has_random_rewards(self) -> bool:
        """Whether the same transition may be paid differently another time."""


@runtime_checkable
class SaysRandomTransitions(Protocol):
    """A family that says whether chance decides where actions lead."""

    @property
    def has_random_transitions(self) -> bool:
        """Whether the same action may lead elsewhere another time."""


@runtime_checkable
class SaysCycle(Protocol):
    """A family whose tasks change from episode to episode, and come round again."""

    @property
    def episodes_per_cycle(self) -> int:
        """The number of episodes over which declared returns are means."""


class ActionSpace(Protocol):
    """A space of Gymnasium's, as far as random actions need it."""

    def seed(self, seed: int, /) -> object:
        """Begin the space's stream of random numbers again."""

    def sample(self) -> Array:
        """Return uniformly random actions of all rows."""


@runtime_checkable
class HasActionSpace(Protocol):
    """A vector environment that draws random actions itself."""

    @property
    def action_space(self) -> ActionSpace:
        """The space of the actions of all rows."""


@runtime_checkable
class KnowsOptimalActions(Protocol):
    """A vector environment that knows what an agent who knows the task would do."""

    def optimal_actions(self) -> Array:
        """Return an optimal action for every row, `e` or `e a`."""


# Questions to a family -----------------------------------------------------------------------------------------------


def has_random_rewards(family: TaskFamily) -> bool:
    """Return whether chance decides rewards, so that none can be computed."""
    return isinstance(family, SaysRandomRewards) and family.has_random_rewards


def has_random_transitions(family: TaskFamily) -> bool:
    """Return whether chance decides where actions lead."""
    return isinstance(family, SaysRandomTransitions) and family.has_random_transitions


def episodes_per_cycle(family: TaskFamily) -> int:
    """Return the number of episodes over which declared returns are means."""
    return family.episodes_per_cycle if isinstance(family, SaysCycle) else 1


def optimal_returns(family: TaskFamily, tasks: Sequence[Task]) -> NDArray[np.float64]:
    """Return the declared optimum of each task, `e`; raises FamilyError where the family declares none."""
    if not isinstance(family, HasOptimum):
        raise FamilyError(f"the task family {family.name!r} has no 'optimal_returns', so that its optimum is not known")
    return np.asarray(family.optimal_returns(tasks), np.float64)


def random_returns(family: TaskFamily, tasks: Sequence[Task]) -> NDArray[np.float64]:
    """Return the declared return of the random policy, `e`; raises FamilyError where the family declares none."""
    if not isinstance(family, HasRandomReturn):
        raise FamilyError(
            f"the task family {family.name!r} has no 'random_returns', so that what a random policy earns is not known"
        )
    return np.asarray(family.random_returns(tasks), np.float64)


def random_return_errors(family: TaskFamily, tasks: Sequence[Task]) -> NDArray[np.float64]:
    """Return the standard errors of the declared random returns, `e`: 0 where they are exact."""
    if isinstance(family, MeasuresRandomReturn):
        return np.asarray(family.random_return_errors(tasks), np.float64)
    return np.zeros(len(tasks))


def has_scores(family: TaskFamily) -> bool:
    """Return whether the family declares what normalised returns need: the optimum and the random return."""
    return isinstance(family, HasOptimum) and isinstance(family, HasRandomReturn)


def can_be_scored(family: TaskFamily) -> bool:
    """Return whether returns can be normalised: by what is declared, or by a reference where there is no optimum."""
    return has_scores(family) or (isinstance(family, NeedsReference) and isinstance(family, HasRandomReturn))
