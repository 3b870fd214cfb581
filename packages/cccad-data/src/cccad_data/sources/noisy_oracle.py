"""Histories without any learning: the optimal policy, its noise decaying over each life (arXiv 2312.12275)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from attrs import field, frozen, validators

from cccad_data import chance, spaces
from cccad_data.errors import SourceError
from cccad_data.history import TaskHistories
from cccad_data.recorder import Recorder

Progress = Callable[[int], None]


@frozen(kw_only=True)
class NoisyOracleSpec:
    """Act at random with probability eps, else optimally; eps falls linearly from 1 to 0 within each life."""

    num_envs: int = field(default=20, validator=validators.ge(1))
    "Histories per task, each with its own noise."
    env_steps: int = field(default=1000, validator=validators.ge(1))
    "Length of each history."
    noise_end_frac: float = field(default=1.0, validator=[validators.gt(0.0), validators.le(1.0)])
    "Fraction of the life after which no noise is left."
    tasks_per_unit: int = field(default=64, validator=validators.ge(1))
    "Tasks collected, and written, together."

    def build(self) -> "NoisyOracle":
        """Return the source."""
        return NoisyOracle(self)


class NoisyOracle:
    """AD-eps: the histories of a policy that improves because its noise fades; optimal actions are kept as well."""

    name = "noisy-oracle"

    def __init__(self, spec: NoisyOracleSpec) -> None:
        self.spec = spec

    def collect(
        self, family: Any, tasks: Sequence[Any], *, seed: int, progress: Progress | None = None
    ) -> list[TaskHistories]:
        """Return ``num_envs`` histories of every task. *progress* gets the env steps done so far.

        Raises SourceError when the action space is not discrete.
        """
        if family.spaces["action"]["kind"] != "discrete":
            raise SourceError(f"the noisy oracle needs discrete actions; family {family.name!r} has others")
        spec = self.spec
        (num_actions,) = spaces.sizes(family.spaces["action"])
        recorder = Recorder(family, tasks, num_envs=spec.num_envs, env_steps=spec.env_steps)
        streams = [chance.generator(seed, self.name, task.task_id) for task in tasks]
        env = family.make_vec([task for task in tasks for _ in range(spec.num_envs)])
        observations, _ = env.reset(seed=chance.seed_of(seed, self.name, tasks[0].task_id))
        for now in range(spec.env_steps):
            noise = max(0.0, 1.0 - now / (spec.env_steps * spec.noise_end_frac))
            # One uniform number decides both whether to stray (u < noise) and, if so, where to: u / noise is uniform.
            uniform = np.concatenate([stream.random(spec.num_envs) for stream in streams])
            optimal = env.optimal_actions()
            if noise > 0.0:
                stray = np.minimum(uniform * (num_actions / noise), num_actions - 1).astype(np.int64)
                actions = np.where(uniform < noise, stray, optimal)
            else:
                actions = optimal
            outcome = env.step(actions)
            recorder.add(observations, actions, outcome, optimal)
            observations = outcome[0]
            if progress is not None:
                progress((now + 1) * len(uniform))
        return recorder.histories()
