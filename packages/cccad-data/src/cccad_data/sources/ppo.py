"""PPO (arXiv 1707.06347), one independent learner per task, all of them trained at once in one batched network.

Losses and networks are Stable-Baselines3's; each of the `num_envs` environments of a learner is one history.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray

from cccad_data import spaces
from cccad_data.errors import SourceError
from cccad_data.family import Task, TaskFamily
from cccad_data.histories.history import TaskHistories
from cccad_data.jobs.job import Progress, silent
from cccad_data.plain import Array
from cccad_data.sources.unit import LifeSpec, Unit, one_thread

if TYPE_CHECKING:
    from torch import Tensor

_FRACTION = [validators.ge(0.0), validators.le(1.0)]


@frozen(kw_only=True)
class PPOSpec(LifeSpec):
    """Batched PPO, for discrete actions and boxes: one learner per task, all trained at once."""

    num_envs: int = field(
        default=20,
        validator=validators.ge(1),
        metadata={"help": "environments of a learner, and so histories per task"},
    )
    n_steps: int = field(
        default=80,
        validator=validators.ge(1),
        metadata={"help": "env steps in each environment between two rounds of learning"},
    )
    batch_size: int = field(default=40, validator=validators.ge(2), metadata={"help": "env steps in a minibatch"})
    n_epochs: int = field(
        default=20, validator=validators.ge(1), metadata={"help": "times that a round goes through its env steps"}
    )
    learning_rate: float = field(default=3e-4, validator=validators.gt(0.0), metadata={"help": "Adam's step size"})
    gamma: float = field(default=0.99, validator=_FRACTION, metadata={"help": "discount per env step"})
    gae_lambda: float = field(
        default=0.95, validator=_FRACTION, metadata={"help": "lambda of generalised advantage estimation"}
    )
    normalize_advantage: bool = field(
        default=True, metadata={"help": "bring the advantages of each minibatch to mean 0 and deviation 1"}
    )
    clip_range: float = field(
        default=0.2, validator=validators.gt(0.0), metadata={"help": "how far a probability's ratio may move from 1"}
    )
    ent_coef: float = field(default=0.0, validator=validators.ge(0.0), metadata={"help": "weight of the entropy bonus"})
    vf_coef: float = field(default=0.5, validator=validators.ge(0.0), metadata={"help": "weight of the value loss"})
    max_grad_norm: float = field(
        default=0.5, validator=validators.gt(0.0), metadata={"help": "norm to which a learner's gradient is clipped"}
    )
    tasks_per_unit: int = field(
        default=37, validator=validators.ge(1), metadata={"help": "tasks that learn, and are written, together"}
    )

    def build(self) -> "PPO":
        """Return the source; raises SourceError where its settings leave no env step after the first learning."""
        if self.n_steps >= self.env_steps:
            raise SourceError(
                f"ppo would never learn: 'n_steps' ({self.n_steps:,}) must be below 'env_steps' ({self.env_steps:,}), "
                "since what is learnt after a history's last env step does not show in it"
            )
        return PPO(self)


class PPO:
    """Histories of policies that learn by trial and error."""

    name = "ppo"

    def __init__(self, spec: PPOSpec) -> None:
        self.spec = spec

    def collect(
        self, family: TaskFamily, tasks: Sequence[Task], *, seed: int, progress: Progress | None = None
    ) -> list[TaskHistories]:
        """Return `num_envs` histories of every task. *progress* gets the env steps done so far.

        Uses one thread. Raises SourceError when torch is missing.
        """
        try:
            import torch
        except ImportError as error:
            raise SourceError("the ppo source needs torch; install cccad-data[rl]") from error
        with one_thread(), torch.no_grad():
            return _Run(self, family, tasks, seed).play(progress or silent)


class _Run:
    """The learners of one unit, their environments, and what they have seen since they last learned."""

    def __init__(self, source: PPO, family: TaskFamily, tasks: Sequence[Task], seed: int) -> None:
        from cccad_data.sources.heads import head_of
        from cccad_data.sources.learners import Learners

        self.spec, self.unit = source.spec, Unit(source, family, tasks, seed)
        self.encode, self.head = Encoder(family.spaces["observation"]), head_of(family.spaces["action"])
        streams, rate = self.unit.streams, self.spec.learning_rate
        self.learners = Learners(self.encode.num_features, self.head, streams, rate)

    def play(self, progress: Progress) -> list[TaskHistories]:
        """Act and learn in turns until every history is long enough; the last turn only acts."""
        unit, spec = self.unit, self.spec
        while not unit.is_over:
            done = unit.now
            rollout = self._act(min(spec.n_steps, spec.env_steps - done))
            gained = unit.now - done
            if not unit.is_over:
                for epoch in range(spec.n_epochs):
                    self._learn(rollout)
                    progress(int((done + gained * (epoch + 1) / spec.n_epochs) * unit.num_rows))
        progress(unit.now * unit.num_rows)
        return unit.histories()

    def _act(self, length: int) -> dict[str, "Tensor"]:
        """Play *length* env steps and return what to learn from, `e b ...` with b = length * num_envs."""
        import torch

        unit, head = self.unit, self.head
        noise = np.stack([head.noise(stream, length, unit.num_envs) for stream in unit.streams], axis=1)  # t e b ...
        observed, final, acted, outcomes = [], [], [], []
        for now in range(length):
            observed.append(unit.observations)
            outputs = self.learners.outputs(self.encode(self._grouped(observed[-1])))
            acted.append(head.act(outputs, self.learners.spread, noise[now]))
            outcome = unit.step(head.played(acted[-1][0]).reshape(unit.num_rows, -1))
            outcomes.append(outcome[1:4])
            final.append(np.array(outcome[4]["final_obs"]) if outcome[3].any() else None)
        returns, advantages = self._targets(observed, final, *map(np.stack, zip(*outcomes, strict=True)))
        actions, log_probs = map(np.stack, zip(*acted, strict=True))

        def by_task(array: Array) -> "Tensor":  # t e b -> e (t b)
            return torch.from_numpy(
                np.ascontiguousarray(array.swapaxes(0, 1).reshape(unit.num_tasks, -1, *array.shape[3:]))
            )

        observations = np.stack([self._grouped(observation) for observation in observed])
        return {
            "inputs": self.encode(by_task(observations)),
            "actions": by_task(actions),
            "log_probs": by_task(log_probs),
            "advantages": by_task(advantages),
            "returns": by_task(returns),
        }

    def _targets(
        self, observed: list[Array], final: list[Array | None], rewards: Array, terminations: Array, truncations: Array
    ) -> tuple[Array, Array]:
        """Return returns and advantages, `t e b`; the value of what a truncation cut off is added to its reward."""
        shape = (len(observed), self.unit.num_tasks, self.unit.num_envs)
        values = np.stack([self._values(observations) for observations in [*observed, self.unit.observations]])
        rewards = rewards.astype(np.float32).reshape(shape)
        truncations, terminations = truncations.reshape(shape), terminations.reshape(shape)
        for now, observations in enumerate(final):
            if observations is not None:
                cut = truncations[now] & ~terminations[now]
                rewards[now] += self.spec.gamma * self._values(observations) * cut
        advantages = gae(
            rewards, values, truncations | terminations, gamma=self.spec.gamma, gae_lambda=self.spec.gae_lambda
        )
        return advantages + values[:-1], advantages

    def _values(self, observations: Array) -> Array:
        values: Array = self.learners.values(self.encode(self._grouped(observations))).numpy()
        return values

    def _grouped(self, observations: Array) -> Array:
        return observations.reshape(self.unit.num_tasks, self.unit.num_envs, -1)

    def _learn(self, rollout: dict[str, "Tensor"]) -> None:
        """Go once through *rollout* in minibatches, in an order of each learner's own."""
        import torch

        from cccad_data.sources.ppo_loss import LossConstants, Minibatch

        spec, size = self.spec, rollout["actions"].shape[1]
        constants = LossConstants(**{name: getattr(spec, name) for name in attrs.fields_dict(LossConstants)})
        order = np.stack([stream.permutation(size) + i * size for i, stream in enumerate(self.unit.streams)])
        samples = {name: tensor.flatten(0, 1) for name, tensor in rollout.items()}  # (e b) ...
        for part in torch.from_numpy(order).split(spec.batch_size, dim=1):
            rows = part.flatten()
            chosen = {name: tensor.index_select(0, rows) for name, tensor in samples.items()}
            batch = Minibatch(**{name: tensor.view(*part.shape, *tensor.shape[1:]) for name, tensor in chosen.items()})
            self.learners.update(batch, constants)


class Encoder:
    """Observations as network inputs, as Stable-Baselines3 has them: one-hot per discrete feature, raw for a box.

    Bytes of images are divided by 255.
    """

    def __init__(self, space: spaces.Space) -> None:
        leaves = [leaf for _, leaf in spaces.leaves(space)]
        own = [[1] * spaces.num_features(leaf) if leaf["kind"] == "box" else spaces.sizes(leaf) for leaf in leaves]
        sizes = [size for part in own for size in part]
        self.num_features = sum(sizes)
        self.offsets = np.cumsum([0, *sizes[:-1]])
        self.is_real = np.repeat([leaf["kind"] == "box" for leaf in leaves], [len(part) for part in own])
        scales = [255.0 if leaf.get("dtype") == "uint8" else 1.0 for leaf in leaves]
        self.scale = np.repeat(np.array(scales, np.float32), [len(part) for part in own])

    def __call__(self, observations: "Array | Tensor") -> "Tensor":
        """Encode observations, `... o -> ... f`."""
        import torch

        observations = torch.as_tensor(observations)
        if self.is_real.all():
            return observations.float() / torch.from_numpy(self.scale)
        inputs = torch.zeros(*observations.shape[:-1], self.num_features)
        offsets, is_real = torch.from_numpy(self.offsets), torch.from_numpy(self.is_real)
        places = torch.where(is_real, offsets, observations.long() + offsets)
        ones = torch.where(is_real, observations / torch.from_numpy(self.scale), 1.0)
        return inputs.scatter_(-1, places, ones.float())


def gae(rewards: Array, values: Array, ends: Array, *, gamma: float, gae_lambda: float) -> NDArray[np.float32]:
    """Return generalised advantage estimates (arXiv 1506.02438), `t ...`.

    *values* are `t+1 ...`, the last of what follows; *ends* says where an episode is over: nothing flows back there.
    """
    advantages = np.zeros_like(values)
    for now in reversed(range(len(rewards))):
        goes_on = 1.0 - ends[now]
        delta = rewards[now] + gamma * values[now + 1] * goes_on - values[now]  # temporal-difference error
        advantages[now] = delta + gamma * gae_lambda * goes_on * advantages[now + 1]
    return advantages[:-1].astype(np.float32)
