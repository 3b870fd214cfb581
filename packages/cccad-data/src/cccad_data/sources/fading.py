"""A good player whose noise fades over each life: what the sources without any learning share."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from attrs import field, frozen, validators

from cccad_data import spaces
from cccad_data.family import Task, TaskFamily
from cccad_data.plain import Array
from cccad_data.sources.sb3 import stable_baselines
from cccad_data.sources.unit import LifeSpec, Unit
from cccad_data.spaces import uniform_actions


@frozen(kw_only=True)
class FadingSpec(LifeSpec):
    """When the noise is gone, and whose saved policy plays, if one does."""

    noise_end_frac: float = field(
        default=1.0,
        validator=[validators.gt(0.0), validators.le(1.0)],
        metadata={"help": "fraction of the life after which no noise is left"},
    )
    policy: str = field(
        default="",
        metadata={
            "help": "a zip file that a stable-baselines3 algorithm saved, one to trust; {task_id} in it stands for "
            "the task's id with '-' for '/'. Empty: none"
        },
    )
    algorithm: str = field(default="PPO", metadata={"help": "the class that saved the policy"})


def play_fading(unit: Unit, act: Callable[[Array], Array], spec: FadingSpec, *, noise_start: float = 1.0) -> None:
    """Play *unit* to its end by *act*, which maps observations, `r o`, to actions, and now and then at random.

    The probability of a uniformly random action falls linearly from *noise_start* to 0 within each life.
    """
    space, lifetime = unit.action_space, unit.length * spec.noise_end_frac
    while not unit.is_over:
        uniform = unit.uniform(1 + spaces.num_features(space))
        strays = uniform[:, 0] < noise_start * (1.0 - unit.now / lifetime)
        actions = np.array(act(unit.observations))
        actions[strays] = uniform_actions(space, uniform[strays, 1:]).reshape(-1, *actions.shape[1:])
        unit.step(actions)


def saved_policies(spec: FadingSpec, family: TaskFamily, tasks: Sequence[Task]) -> Callable[[Array], Array]:
    """Return what maps observations, `r o`, to the actions of the saved policies, task by task.

    Raises SourceError when one of them is not there, or is for other spaces.
    """
    load_policy = stable_baselines().load_policy
    paths = [Path(spec.policy.replace("{task_id}", task.task_id.replace("/", "-"))) for task in tasks]
    loaded = {path: load_policy(path, spec.algorithm, family) for path in dict.fromkeys(paths)}

    def act(observations: Array) -> Array:
        parts = zip(paths, np.split(observations, len(paths)), strict=True)
        return np.concatenate([loaded[path](part) for path, part in parts])

    return act
