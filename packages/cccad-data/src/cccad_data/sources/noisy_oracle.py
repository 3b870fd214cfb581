"""Histories without any learning: a good policy, its noise decaying over each life (arXiv 2312.12275)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from attrs import field, frozen, validators

from cccad_data import spaces
from cccad_data.errors import SourceError
from cccad_data.family import Task, TaskFamily
from cccad_data.histories.history import TaskHistories
from cccad_data.jobs.job import Progress
from cccad_data.plain import Array
from cccad_data.sources.sb3 import stable_baselines
from cccad_data.sources.unit import LifeSpec, Unit
from cccad_data.spaces import uniform_actions


@frozen(kw_only=True)
class NoisyOracleSpec(LifeSpec):
    """Act at random with probability eps, else by a good policy; eps falls linearly from 1 to 0 within each life."""

    noise_end_frac: float = field(
        default=1.0,
        validator=[validators.gt(0.0), validators.le(1.0)],
        metadata={"help": "fraction of the life after which no noise is left"},
    )
    policy: str = field(
        default="",
        metadata={
            "help": "a zip file that a stable-baselines3 algorithm saved, one to trust; {task_id} in it stands for "
            "the task's id with '-' for '/'. Empty: the family's own optimal policy"
        },
    )
    algorithm: str = field(default="PPO", metadata={"help": "the class that saved the policy"})
    store_optimal_actions: bool = field(
        default=True, metadata={"help": "keep the actions of the family's own optimal policy, too"}
    )

    def build(self) -> "NoisyOracle":
        """Return the source."""
        return NoisyOracle(self)


class NoisyOracle:
    """AD-eps: the histories of a policy that improves because its noise fades; optimal actions are kept as well."""

    name = "noisy-oracle"

    def __init__(self, spec: NoisyOracleSpec) -> None:
        self.spec = spec

    def collect(
        self, family: TaskFamily, tasks: Sequence[Task], *, seed: int, progress: Progress | None = None
    ) -> list[TaskHistories]:
        """Return `num_envs` histories of every task. *progress* gets the env steps done so far.

        Raises SourceError when the family has no optimum and no policy is given, or the policy does not fit.
        """
        unit, space = Unit(self, family, tasks, seed, progress), family.spaces["action"]
        if not self.spec.policy and unit.oracle is None:
            raise SourceError(f"noisy-oracle needs a 'policy' file: family {family.name!r} knows no optimal actions")
        act = self._saved(family, tasks) if self.spec.policy else lambda _: unit.optimal_actions()
        lifetime = self.spec.env_steps * self.spec.noise_end_frac
        while not unit.is_over:
            uniform = unit.uniform(1 + spaces.num_features(space))
            strays = uniform[:, 0] < 1.0 - unit.now / lifetime
            actions = np.array(act(unit.observations))
            actions[strays] = uniform_actions(space, uniform[strays, 1:]).reshape(-1, *actions.shape[1:])
            unit.step(actions)
        return unit.histories()

    def _saved(self, family: TaskFamily, tasks: Sequence[Task]) -> Callable[[Array], Array]:
        """Return what maps observations, `r o`, to the actions of the saved policies, task by task."""
        load_policy = stable_baselines().load_policy
        paths = [Path(self.spec.policy.replace("{task_id}", task.task_id.replace("/", "-"))) for task in tasks]
        loaded = {path: load_policy(path, self.spec.algorithm, family) for path in dict.fromkeys(paths)}

        def act(observations: Array) -> Array:
            parts = zip(paths, np.split(observations, len(paths)), strict=True)
            return np.concatenate([loaded[path](part) for path, part in parts])

        return act
