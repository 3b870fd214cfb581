"""The settings of a family of Gymnasium's: an environment, what varies from task to task, and what returns mean."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import gymnasium
from attrs import evolve, field, frozen, validators

from cccad_envs.errors import SettingError
from cccad_envs.family import MOST_SEED, whole
from cccad_envs.gym.family import FamilyWithOptimum, FamilyWithoutOptimum, GymnasiumFamily, TabularFamily
from cccad_envs.gym.imports import import_path
from cccad_envs.gym.making import Env, Recipe, argument_names, placed, registered, reset, wrapper_of
from cccad_envs.gym.spaces import action_side, observation_side
from cccad_envs.gym.vary import all_params, fields_of
from cccad_envs.plain import Table

BEST_SOURCE, TRANSITION_TABLE = "best source", "transition table"


@frozen(kw_only=True)
class GymnasiumSpec:
    """Variations of one Gymnasium environment: each combination of the values in *vary* is a task.

    A varied name is an argument of the constructor (or of *make*), an argument of a wrapper, an attribute of the bare
    environment, or `seed`, with which every episode is then reset.
    """

    id: str = field(default="", metadata={"help": "an id of Gymnasium's, such as Pendulum-v1, or package:id"})
    make: str = field(
        default="", metadata={"help": "instead of an id, the import path of a function that returns an environment"}
    )
    arguments: Table = field(
        factory=dict, metadata={"help": "arguments of the constructor that are the same in every task"}
    )
    vary: Table = field(
        metadata={
            "write": "vary = { gain = [-1.0, 1.0] }, with what makes a task",
            "help": "what makes a task: by name a list of values, { from, to, count }, { low, high, count, seed }, or "
            "{ call = import path, seed = { from, to } }",
        },
    )
    num_tasks: int = whole(0, at_least=0, at_most=10**6, tells="tasks drawn from vary; 0 for all combinations")
    task_seed: int = whole(0, at_least=0, at_most=MOST_SEED, tells="which tasks are drawn")
    wrappers: tuple[str | Table, ...] = field(
        default=(),
        metadata={"help": "import paths of wrappers, the innermost first, or tables of a path and fixed arguments"},
    )
    options: Table = field(factory=dict, metadata={"help": "options of every reset, the same in every task"})
    horizon: int = whole(0, at_least=0, tells="most env steps in an episode; 0 for the environment's own time limit")
    reference_return: float | str | dict[str, float] = field(
        default=BEST_SOURCE,
        metadata={
            "help": "the optimum: a number, a table by task, the import path of a planner, or 'transition table'; or "
            "'best source', which is what the source reaches, and no optimum"
        },
    )
    random_episodes: int = whole(20, at_least=2, at_most=10**6, tells="episodes in which the random return is measured")
    success: str = field(default="", metadata={"help": "key of infos that says whether an episode succeeded, if any"})
    equal_tasks: Literal["refuse", "merge", "keep"] = field(
        default="refuse",
        validator=validators.in_(("refuse", "merge", "keep")),
        metadata={"help": "what to do with tasks that cannot be told apart: refuse, merge (keep the first) or keep"},
    )

    def build(self) -> GymnasiumFamily:
        """Return the family.

        Raises:
            SettingError: there is no such environment, a varied name is nowhere, a space cannot be carried, or
                whatever else is wrong, in a sentence.
            PlayError: the environment fails when it is reset.
        """
        varied = fields_of(self.vary)
        params = all_params(varied, self.num_tasks, self.task_seed)
        recipe, time_limit = self._recipe()
        recipe = evolve(recipe, places=placed(recipe, varied))
        horizon = self.horizon or time_limit
        if not horizon:
            raise SettingError(f"'horizon': {recipe.name} has no time limit of its own; say how long an episode may be")
        env = recipe.build(params[0])
        seed, options = recipe.resets(params[0])
        reset(env, recipe.name, 0 if seed is None else seed, options)
        if changed := recipe.kept(env, params[0]):
            raise SettingError(f"'vary': {changed}; make it an argument of a wrapper or of a function for 'make'")
        sides = {
            "observation": observation_side(env.observation_space, recipe.name),
            "action": action_side(env.action_space, recipe.name),
        }
        env.close()
        return self._class()(self, recipe, sides, params, horizon)

    def _class(self) -> type[GymnasiumFamily]:
        if self.reference_return == BEST_SOURCE:
            return FamilyWithoutOptimum
        if self.reference_return == TRANSITION_TABLE:
            return TabularFamily
        if isinstance(self.reference_return, str):
            import_path(self.reference_return, "reference_return")
        return FamilyWithOptimum

    def _recipe(self) -> tuple[Recipe, int | None]:
        """Return how an environment is made, and the time limit of its own."""
        if bool(self.id) == bool(self.make):
            raise SettingError(
                "give the 'id' of a Gymnasium environment or the import path 'make' of a function, not both"
            )
        wrappers = tuple(wrapper_of(written, index) for index, written in enumerate(self.wrappers))
        if self.make:
            make: Callable[..., Any] = import_path(self.make, "make")
            names, takes_any = argument_names(make)
            name, time_limit = self.make.rpartition(":")[2], None
        else:
            creator, time_limit = registered(self.id)
            (names, takes_any), name = argument_names(creator), self.id.rpartition(":")[2]
            make = _maker(name, self.horizon)
        recipe = Recipe(
            name=name,
            make=make,
            arguments=self.arguments,
            constructor_names=tuple(each for each in names if each not in ("self", "render_mode")),
            takes_any=takes_any,
            wrappers=wrappers,
            options=self.options,
        )
        return recipe, time_limit


def _maker(name: str, horizon: int) -> Callable[..., Env]:
    """Return what makes the environment *name*, which ends after *horizon* env steps unless that is 0."""

    def make(**arguments: Any) -> Env:
        limit: Mapping[str, int] = {"max_episode_steps": horizon} if horizon else {}
        return gymnasium.make(name, disable_env_checker=True, **limit, **arguments)

    return make
