"""Any algorithm of Stable-Baselines3, and of sb3-contrib where that is installed, by its name: one learner per task."""

from collections.abc import Sequence
from types import ModuleType

from attrs import Factory, field, frozen, validators

from cccad_data import chance
from cccad_data.errors import SourceError
from cccad_data.family import Task, TaskFamily
from cccad_data.histories.history import TaskHistories
from cccad_data.jobs.job import Progress
from cccad_data.plain import Table
from cccad_data.sources.unit import LifeSpec, Unit


@frozen(kw_only=True)
class SB3Spec(LifeSpec):
    """Any Stable-Baselines3 algorithm by name, one learner per task; sb3-contrib's too, where it is installed."""

    num_envs: int = field(
        default=8, validator=validators.ge(1), metadata={"help": "environments of a learner, and so histories per task"}
    )
    env_steps: int = field(default=5000, validator=validators.ge(1), metadata={"help": "length of each history"})
    tasks_per_unit: int = field(
        default=1,
        validator=validators.ge(1),
        metadata={"help": "tasks that are learnt one after another, and written together"},
    )
    algorithm: str = field(default="PPO", metadata={"help": "such as PPO, A2C, DQN, SAC or TD3"})
    policy: str = field(default="MlpPolicy", metadata={"help": "the name of its kind of network"})
    hyperparameters: Table = field(
        default=Factory(dict),
        validator=validators.instance_of(dict),
        metadata={"help": "arguments of the algorithm; a number as action_noise is the deviation of Gaussian noise"},
    )

    def build(self) -> "SB3":
        """Return the source.

        Raises SourceError when stable-baselines3 is missing, or has no such algorithm or hyperparameter.
        """
        return SB3(self)


class SB3:
    """Histories of whatever Stable-Baselines3 can train."""

    name = "sb3"

    def __init__(self, spec: SB3Spec) -> None:
        self.spec, self._stable = spec, stable_baselines()
        self.algorithm = self._stable.algorithm_of(spec.algorithm)
        self._stable.check_hyperparameters(self.algorithm, spec.hyperparameters)

    def collect(
        self, family: TaskFamily, tasks: Sequence[Task], *, seed: int, progress: Progress | None = None
    ) -> list[TaskHistories]:
        """Return `num_envs` histories of every task. *progress* gets the env steps done so far.

        Uses one thread. Raises SourceError when the algorithm refuses the spaces or the value of a hyperparameter.
        """
        histories: list[TaskHistories] = []
        for index, task in enumerate(tasks):
            before = index * self.spec.num_envs * self.spec.env_steps

            def report(done: int, before: int = before) -> None:
                if progress is not None:
                    progress(before + done)

            unit = Unit(self, family, [task], seed, report)
            self._stable.learn(self.algorithm, self.spec, unit, chance.seed_of(seed, "learner", task.task_id))
            histories += unit.histories()
        return histories


def stable_baselines() -> ModuleType:
    """Return the module that deals with Stable-Baselines3; raises SourceError where that is not installed."""
    try:
        from cccad_data.sources import stable
    except ImportError as error:
        raise SourceError("this needs stable-baselines3; install cccad-data[rl]") from error
    return stable
