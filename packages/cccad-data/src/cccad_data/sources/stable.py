"""Stable-Baselines3 inside: its algorithms by name, the environments of a unit as its VecEnv, its saved policies."""

import copy
import inspect
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecEnv

from cccad_data import spaces
from cccad_data.errors import DataError, SourceError, hint
from cccad_data.family import TaskFamily
from cccad_data.gym_spaces import GymSpace, adapt
from cccad_data.plain import Array, Fields, Table
from cccad_data.sources.unit import Unit, one_thread

_OURS = {"self", "policy", "env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model"}


@runtime_checkable
class HasGymSpaces(Protocol):
    """Environments that say their spaces in Gymnasium's own classes."""

    single_observation_space: GymSpace
    single_action_space: GymSpace


def algorithm_of(name: str) -> Any:
    """Return the algorithm of that name in stable-baselines3 or sb3-contrib; raises SourceError when there is none."""
    algorithms: Table = {}
    for module in ("sb3_contrib", "stable_baselines3"):
        try:
            offers = vars(import_module(module))
        except ImportError:
            continue
        algorithms |= {
            key: value for key, value in offers.items() if inspect.isclass(value) and issubclass(value, BaseAlgorithm)
        }
    if name not in algorithms:
        raise SourceError(f"there is no algorithm {name!r} in stable-baselines3; {hint(name, algorithms)}")
    return algorithms[name]


def check_hyperparameters(algorithm: type[BaseAlgorithm], hyperparameters: Fields) -> None:
    """Raise SourceError when *algorithm* takes no argument of one of these names."""
    names = set(inspect.signature(algorithm.__init__).parameters) - _OURS
    for name in hyperparameters:
        if name not in names:
            raise SourceError(f"{algorithm.__name__} has no hyperparameter {name!r}; {hint(name, names)}")


def learn(algorithm: Any, spec: Any, unit: Unit, seed: int) -> None:
    """Let one learner live in the environments of *unit* until its histories have their length.

    Raises SourceError when the algorithm refuses the spaces or the value of a hyperparameter, or learns nothing before
    its last env step.
    """
    vec_env = UnitVecEnv(unit)
    mine = copy.deepcopy(spec.hyperparameters)  # algorithms add to the tables that they are given
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in mine.items()}
    with one_thread(), _own_randomness():
        noise = arguments.get("action_noise")
        if isinstance(noise, int | float) and unit.action_space["kind"] == "box":
            mean = np.zeros(unit.action_space["shape"])
            arguments["action_noise"] = NormalActionNoise(mean, mean + noise)
        try:
            model = algorithm(policy=spec.policy, env=vec_env, seed=seed, device="cpu", **arguments)
        except (AssertionError, TypeError, ValueError) as error:
            raise SourceError(
                f"{algorithm.__name__} cannot be made for these environments and settings: {error}"
            ) from error
        _refuse_late_learning(model, spec.env_steps, unit.num_rows)
        vec_env.weights_of = model.policy.parameters
        with suppress(_LifeIsOverError):
            model.learn(spec.env_steps * unit.num_rows, callback=lambda *_: not unit.is_over, log_interval=None)
    if not vec_env.has_learnt:
        raise SourceError(f"{algorithm.__name__} changed no weight of its policy in {spec.env_steps:,} env steps")


def _refuse_late_learning(model: BaseAlgorithm, env_steps: int, num_rows: int) -> None:
    """Raise SourceError where settings say that nothing is learnt before the last env step."""
    for name, length in (("n_steps", env_steps), ("learning_starts", env_steps * num_rows)):
        wait = getattr(model, name, 0)
        if isinstance(wait, int) and wait >= length:
            raise SourceError(
                f"{type(model).__name__} would never learn: its {name!r} of {wait:,} must be below {length:,}, the "
                f"env steps of {'a history' if name == 'n_steps' else 'all its histories together'}"
            )


def load_policy(path: Path, algorithm: str, family: TaskFamily) -> Callable[[Array], Array]:
    """Return what maps observations, `r o`, to the actions of the policy saved in the zip file *path*.

    Raises SourceError when there is no such file, it holds no such policy, or the policy is one for other spaces.
    """
    if not path.is_file():
        raise SourceError(f"there is no policy file {str(path)!r}")
    try:
        model = algorithm_of(algorithm).load(path, device="cpu")
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"{str(path)!r} holds no policy that {algorithm} saved: {error}") from error
    for side, space in (("observation", model.observation_space), ("action", model.action_space)):
        where = f"the policy in {str(path)!r} is for {side}s {space!s:.120}"
        _check_alike(space, family.spaces[side], where, f"family {family.name!r}")
    shape = tuple(model.observation_space.shape)

    def act(observations: Array) -> Array:
        with one_thread():
            shaped = np.asarray(observations).reshape(len(observations), *shape)
            return np.asarray(model.predict(shaped, deterministic=True)[0])

    return act


def _check_alike(space: GymSpace, wanted: spaces.Space, where: str, whose: str) -> None:
    """Raise SourceError, which begins with *where*, unless a space of Gymnasium's has the elements of *wanted*."""
    try:
        adapted = adapt(space, where)
    except DataError as error:
        raise SourceError(str(error)) from error
    if adapted.is_shifted:
        raise SourceError(f"{where}, with a start; {whose} counts from 0: {spaces.plain(wanted)!s:.160}")
    if not spaces.alike(adapted.ours, wanted):
        raise SourceError(f"{where}; {whose} has {spaces.plain(wanted)!s:.160}")


class _LifeIsOverError(Exception):
    """The histories have their length, and an algorithm that asks nobody whether to stop acts on."""


class UnitVecEnv(VecEnv):  # type: ignore[misc, unused-ignore]
    """A unit of one task behind the interface of many single environments; what happens is written down on the way."""

    def __init__(self, unit: Unit) -> None:
        environment = unit.environment
        if not isinstance(environment, HasGymSpaces):
            raise SourceError("sb3 needs environments that are gymnasium vector environments, with their spaces")
        self.unit, self.actions = unit, np.empty(0)
        self.weights_of: Callable[[], Iterable[torch.Tensor]] = tuple
        self._first_weights: list[torch.Tensor] = []
        self.has_learnt = False
        space = copy.deepcopy(environment.single_observation_space)
        if hasattr(space, "nvec"):
            space.nvec = space.nvec.astype(object)  # ints: uint8 overflows in a sum, and an LSTM takes none of NumPy's
        for side, shown in (("observation", space), ("action", environment.single_action_space)):
            wanted = unit.family.spaces[side]
            if wanted["kind"] != "box":
                _check_alike(shown, wanted, f"its environments have {side}s {shown}", f"family {unit.family.name!r}")
        super().__init__(unit.num_rows, space, environment.single_action_space)

    def reset(self) -> Array:
        return self.unit.observations

    def step_async(self, actions: Array) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[Array, Array, Array, list[Table]]:
        if self.unit.is_over:
            raise _LifeIsOverError
        if self.unit.now == 0:
            self._first_weights = [weight.detach().clone() for weight in self.weights_of()]
        elif self.unit.now == self.unit.length - 1:  # what is learnt later shows in no env step
            pairs = zip(self._first_weights, self.weights_of(), strict=True)
            self.has_learnt = not all(torch.equal(*pair) for pair in pairs)
        _, rewards, terminations, truncations, infos = self.unit.step(self.actions)
        notes: list[Table] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(terminations | truncations):
            notes[row]["terminal_observation"] = infos["final_obs"][row]
            notes[row]["TimeLimit.truncated"] = bool(truncations[row] and not terminations[row])
        return self.unit.observations, np.array(rewards, np.float32), terminations | truncations, notes

    def close(self) -> None:
        """Leave the environments to the unit."""

    def get_attr(self, attr_name: str, indices: object = None) -> list[object]:
        return [getattr(self.unit.environment, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: object, indices: object = None) -> None:
        raise AttributeError(f"{attr_name!r} of a recorded environment cannot be set")

    def env_method(self, method_name: str, *args: object, indices: object = None, **kwargs: object) -> list[object]:
        raise AttributeError(f"a recorded environment has no method {method_name!r}")

    def env_is_wrapped(self, wrapper_class: object, indices: object = None) -> list[bool]:
        return [False] * self.num_envs


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Give the generators that Stable-Baselines3 seeds for the whole process back as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # it is the one that is seeded
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002  # the same
