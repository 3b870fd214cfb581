"""One environment of one task: where each of its parameters goes, and how it is made and reset."""

import difflib
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import gymnasium
from attrs import field, frozen

from cccad_envs.errors import PlayError, SettingError
from cccad_envs.gym.imports import import_path, in_one_line, near_names
from cccad_envs.gym.vary import Field
from cccad_envs.plain import Parameter, Table

Env: TypeAlias = gymnasium.Env[object, object]
Place: TypeAlias = Literal["constructor", "attribute", "wrapper", "option", "seed"]

_EXTRAS = {"box2d": "Box2D", "mujoco": "MuJoCo", "ale_py": "Atari", "pygame": "its pictures"}
_HARMLESS = r".*(Overriding environment|is out of date|should consider upgrading).*"


@frozen(kw_only=True)
class Wrapper:
    """A wrapper, the arguments that are the same in all tasks, and the names of those that it may take."""

    path: str
    make: Callable[..., Env]
    fixed: Table
    names: tuple[str, ...]


@frozen(kw_only=True)
class Recipe:
    """How an environment is made of a task's parameters."""

    name: str  # of the environment, in ids and messages
    make: Callable[..., Env]  # of constructor arguments
    arguments: Table
    constructor_names: tuple[str, ...]
    takes_any: bool  # as constructor arguments
    wrappers: tuple[Wrapper, ...]
    options: Table = field(factory=dict)  # of every reset
    places: Mapping[str, Place] = field(factory=dict)  # of the parameters

    def build(self, params: Mapping[str, Parameter]) -> Env:
        """Return a new environment of the task with these parameters.

        Raises:
            SettingError: it cannot be made with them, or has no such attribute.
        """
        at: dict[str, Table] = {"constructor": {}, "attribute": {}, "wrapper": {}, "option": {}, "seed": {}}
        for name, value in params.items():
            at[self.places[name]][name] = value
        env = self.bare(at["constructor"])
        for name, value in at["attribute"].items():
            _set(env, name, value, self.name)
        for wrapper in self.wrappers:
            varied = {name: value for name, value in at["wrapper"].items() if name in wrapper.names}
            what = f"the wrapper {wrapper.path!r} cannot be put around {self.name}"
            env = self._called(wrapper.make, {**wrapper.fixed, **varied}, what, env)
        self._refuse_own_resets(env)
        return env

    def _refuse_own_resets(self, env: Env) -> None:
        """Refuse an environment that begins its next episode by itself, in the step after the last of one."""
        layer: object = env
        while isinstance(layer, gymnasium.Wrapper):
            if isinstance(layer, gymnasium.wrappers.Autoreset):
                raise SettingError(
                    f"{self.name} is wrapped in Autoreset, which resets in the next step (NEXT_STEP); leave it out: "
                    "rows are reset in the step that ends their episode (SAME_STEP)"
                )
            layer = layer.env

    def bare(self, arguments: Table) -> Env:
        """Return a new environment without our wrappers, made with *arguments* of its constructor.

        Raises:
            SettingError: it cannot be made with them.
        """
        return self._called(self.make, {**self.arguments, **arguments}, f"{self.name} cannot be made")

    def _called(self, make: Callable[..., Env], arguments: Table, what: str, *before: Env) -> Env:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=_HARMLESS)
                env = make(*before, **arguments)
        except SettingError:
            raise
        except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
            raise SettingError(_missing(self.name, error)) from error
        except (Exception, SystemExit) as error:  # whatever the code of a stranger raises
            said = ", ".join(f"{name} = {value!r:.60}" for name, value in arguments.items())
            raise SettingError(f"{what}{said and f' with {said}'}: {in_one_line(error)}") from error
        if not isinstance(env, gymnasium.Env):
            raise SettingError(f"{what}: it gives no gymnasium.Env, but {env!r:.60}")
        return env

    def resets(self, params: Mapping[str, Parameter]) -> tuple[int | None, Table]:
        """Return the seed of every reset of this task, if it has one, and the options."""
        varied = {name: value for name, value in params.items() if self.places[name] == "option"}
        seeds = [value for name, value in params.items() if self.places[name] == "seed"]
        return (int(str(seeds[0])) if seeds else None), {**self.options, **varied}

    def kept(self, env: Env, params: Mapping[str, Parameter]) -> str:
        """Return what became of the attributes of *env*, which was reset: a sentence where one is not as it was set."""
        for name, value in params.items():
            if self.places[name] == "attribute" and getattr(env.unwrapped, name) != value:
                now = getattr(env.unwrapped, name)
                return f"the attribute {name!r} of {self.name} is {now!r} after a reset, not {value!r}"
        return ""


def reset(env: Env, name: str, seed: int | None, options: Table) -> object:
    """Return the first observation of an episode; raises PlayError where the environment fails."""
    try:
        result = env.reset(seed=seed, options=options or None)
    except (Exception, SystemExit) as error:  # whatever the environment of a stranger raises
        raise PlayError(f"{name} fails on reset: {in_one_line(error)}") from error
    if not isinstance(result, tuple) or len(result) != 2:
        raise PlayError(f"{name} does not return an observation and infos from reset(); it is of an old interface")
    return result[0]


def registered(env_id: str) -> tuple[Callable[..., Env], int | None]:
    """Return the class of the environment *env_id*, or the function that makes it, and its time limit.

    Raises:
        SettingError: there is no such environment, or a package that it needs is missing; the message says which.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        import_path(f"{module}:__name__", "id")
    if name.partition("/")[0] not in {other.partition("/")[0] for other in gymnasium.registry}:
        _import_namespace(name)
    try:
        registered = gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise SettingError(f"'id': there is no environment {env_id!r}; {_near_ids(name)}") from error
    try:
        entry = registered.entry_point
        creator: Any = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise SettingError(_missing(env_id, error)) from error
    return creator, registered.max_episode_steps


def _import_namespace(name: str) -> None:
    """Import the package that a namespace is named after, such as `minigrid`: many register when they are imported."""
    package = re.split(r"[/-]", name)[0].lower()
    try:
        __import__(package)
    except Exception:  # noqa: BLE001  # then the id is simply not known
        return


def _near_ids(name: str) -> str:
    mine = name.partition("-v")[0].lower()
    same = [other for other in gymnasium.registry if other.partition("-v")[0].lower() == mine]
    if same:
        return f"did you mean {' or '.join(map(repr, same[-3:]))}?"
    bases = {other.partition("-v")[0]: other for other in gymnasium.registry}  # the newest version of each
    near = difflib.get_close_matches(name.partition("-v")[0], bases, n=2)
    hint = f"did you mean {' or '.join(repr(bases[base]) for base in near)}?" if near else ""
    more = " (a package that registers environments is named before a colon: 'minigrid:MiniGrid-Empty-5x5-v0')"
    return (hint or f"{len(gymnasium.registry)} are registered") + more


def _missing(name: str, error: Exception) -> str:
    """Return a sentence that names the package to install."""
    text = str(error)
    advice = re.search(r"pip install [\"'`]?([\w.\[\]-]+(?:\[[\w,-]+\])?)", text)
    module = re.search(r"No module named '([\w.]+)'", text)
    package = advice[1] if advice else (module[1].partition(".")[0] if module else "")
    shell = f'"{package}"' if "[" in package else package
    how = f"pip install {shell}" if package else in_one_line(error)
    return f"{name} needs a package that is not installed: {how}"


def argument_names(make: Callable[..., object]) -> tuple[tuple[str, ...], bool]:
    """Return the names of the arguments that *make* takes by name, and whether it takes any."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return (), True
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = tuple(each.name for each in parameters if each.kind in named)
    return names, any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)


def wrapper_of(written: str | Table, index: int) -> Wrapper:
    """Return the wrapper that an entry of `wrappers` names: an import path, or a table with it and its arguments."""
    where, fixed = f"wrappers[{index}]", {} if isinstance(written, str) else dict(written)
    path = written if isinstance(written, str) else fixed.pop("path", "")
    make = import_path(str(path), where)
    if not callable(make):
        raise SettingError(f"{where}: {path!r} is no wrapper, but {make!r:.60}")
    names, takes_any = argument_names(make)
    if strange := [name for name in fixed if name not in names and not takes_any]:
        raise SettingError(f"{where}: {path!r} takes no {strange[0]!r}; {near_names(strange[0], names[1:])}")
    return Wrapper(path=str(path), make=make, fixed=fixed, names=tuple(name for name in names[1:] if name not in fixed))


def placed(recipe: Recipe, varied: list[Field]) -> dict[str, Place]:
    """Return where every varied field goes: a seed, an argument of the constructor or of a wrapper, or an attribute.

    Raises:
        SettingError: it is nowhere, or in two places.
    """
    unwrapped: list[Env] = []
    places: dict[str, Place] = {}
    for each in varied:
        if not unwrapped and each.place in ("", "attribute"):
            unwrapped.append(_example(recipe, varied))
        places[each.name] = _place(recipe, each, unwrapped[0] if unwrapped else None)
    return places


def _example(recipe: Recipe, varied: list[Field]) -> Env:
    """Return the bare environment, made with the first value of each argument that it must have."""
    needed = {
        each.name: each.draw(0)
        for each in varied
        if each.place in ("", "constructor") and each.name in recipe.constructor_names
    }
    return recipe.bare(needed).unwrapped


def _place(recipe: Recipe, each: Field, unwrapped: Env | None) -> Place:
    name, wrapper_names = each.name, [other for wrapper in recipe.wrappers for other in wrapper.names]
    there: list[Place] = []
    if name in recipe.constructor_names or (each.place == "constructor" and recipe.takes_any):
        there.append("constructor")
    if name in wrapper_names:
        there.append("wrapper")
    if unwrapped is not None and not there and hasattr(unwrapped, name):
        there.append("attribute")
    if each.place == "attribute" and unwrapped is not None and hasattr(unwrapped, name):
        return "attribute"
    if each.place == "option":
        return "option"
    if each.place:
        there = [place for place in there if place == each.place]
    elif not there and name == "seed":
        return "seed"
    if len(there) == 1:
        return there[0]
    if len(there) > 1:
        raise SettingError(
            f"'vary.{name}' is an argument both of the constructor and of a wrapper; say which, as in "
            f"vary = {{ wrapper = {{ {name} = [...] }} }}"
        )
    attributes = [] if unwrapped is None else [other for other in dir(unwrapped) if _is_setting(unwrapped, other)]
    names = {*recipe.constructor_names, *wrapper_names, *attributes} - {"render_mode", "self"}
    kinds = {"": "an argument or an attribute", "attribute": "an attribute", "wrapper": "an argument of a wrapper"}
    what = f"{kinds.get(each.place, 'an argument of the constructor')} of {recipe.name}"
    raise SettingError(f"'vary.{name}' is not {what}; {near_names(name, names)}")


def _is_setting(unwrapped: Env, name: str) -> bool:
    if name.startswith("_"):
        return False
    try:
        value = getattr(unwrapped, name)
    except Exception:  # noqa: BLE001  # a property that needs a reset first
        return False
    return isinstance(value, bool | int | float | str | list | tuple) or hasattr(value, "dtype")


def _set(env: Env, name: str, value: Parameter, what: str) -> None:
    try:
        setattr(env.unwrapped, name, value)
    except Exception as error:  # a property of a stranger's environment
        raise SettingError(
            f"the attribute {name!r} of {what} cannot be set to {value!r}: {in_one_line(error)}"
        ) from error
