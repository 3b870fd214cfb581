"""PPO (arXiv 1707.06347), one independent learner per task, all of them trained at once in one batched network.

Losses and networks are Stable-Baselines3's; each of the ``num_envs`` environments of a learner is one history.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray

from cccad_data import chance, spaces
from cccad_data.errors import SourceError
from cccad_data.history import Array, TaskHistories
from cccad_data.recorder import Recorder

if TYPE_CHECKING:
    from torch import Tensor


Progress = Callable[[int], None]
_FRACTION = [validators.ge(0.0), validators.le(1.0)]


@frozen(kw_only=True)
class PPOSpec:
    """The settings of every learner."""

    num_envs: int = field(default=20, validator=validators.ge(1))
    "Environments of a learner, and so histories per task."
    env_steps: int = field(default=1000, validator=validators.ge(1))
    "Length of each history: env steps in each environment."
    n_steps: int = field(default=80, validator=validators.ge(1))
    "Env steps in each environment between two rounds of learning."
    batch_size: int = field(default=40, validator=validators.ge(2))
    n_epochs: int = field(default=20, validator=validators.ge(1))
    learning_rate: float = field(default=3e-4, validator=validators.gt(0.0))
    gamma: float = field(default=0.99, validator=_FRACTION)
    gae_lambda: float = field(default=0.95, validator=_FRACTION)
    normalize_advantage: bool = True
    "Whether the advantages of each minibatch are brought to mean 0 and deviation 1."
    clip_range: float = field(default=0.2, validator=validators.gt(0.0))
    ent_coef: float = field(default=0.0, validator=validators.ge(0.0))
    vf_coef: float = field(default=0.5, validator=validators.ge(0.0))
    max_grad_norm: float = field(default=0.5, validator=validators.gt(0.0))
    tasks_per_unit: int = field(default=37, validator=validators.ge(1))
    "Tasks that learn, and are written, together."

    def build(self) -> "PPO":
        """Return the source."""
        return PPO(self)


class PPO:
    """Histories of policies that learn by trial and error."""

    name = "ppo"

    def __init__(self, spec: PPOSpec) -> None:
        self.spec = spec

    def collect(
        self, family: Any, tasks: Sequence[Any], *, seed: int, progress: Progress | None = None
    ) -> list[TaskHistories]:
        """Return ``num_envs`` histories of every task. *progress* gets the env steps done so far.

        Uses one thread: units in several processes use more cores better, and give the same arrays.
        Raises SourceError when torch is missing or the action space is not discrete.
        """
        if family.spaces["action"]["kind"] != "discrete":
            raise SourceError(
                f"ppo needs discrete actions; family {family.name!r} has {family.spaces['action']['kind']}"
            )
        try:
            import torch
        except ImportError as error:
            raise SourceError("the ppo source needs torch; install cccad-data[rl]") from error
        with _one_thread(), torch.no_grad():
            return _Run(self.spec, family, tasks, seed).play(progress or _silent)


class _Run:
    """The learners of one unit, their environments, and what they have seen since they last learned."""

    def __init__(self, spec: PPOSpec, family: Any, tasks: Sequence[Any], seed: int) -> None:
        from cccad_data.sources.learners import Learners

        self.spec, self.num_tasks = spec, len(tasks)
        self.recorder = Recorder(family, tasks, num_envs=spec.num_envs, env_steps=spec.env_steps)
        self.streams = [chance.generator(seed, PPO.name, task.task_id) for task in tasks]
        self.encode = Encoder(family.spaces["observation"])
        (num_actions,) = spaces.sizes(family.spaces["action"])
        self.learners = Learners(self.encode.num_features, num_actions, self.streams, spec.learning_rate)
        self.env = family.make_vec([task for task in tasks for _ in range(spec.num_envs)])
        self.observations, _ = self.env.reset(seed=chance.seed_of(seed, PPO.name, tasks[0].task_id))

    def play(self, progress: Progress) -> list[TaskHistories]:
        """Act and learn in turns until every history is long enough; the last turn only acts."""
        per_env_step = self.num_tasks * self.spec.num_envs
        while self.recorder.length < self.spec.env_steps:
            done = self.recorder.length
            rollout = self._act(min(self.spec.n_steps, self.spec.env_steps - done))
            gained = self.recorder.length - done
            if self.recorder.length < self.spec.env_steps:
                for epoch in range(self.spec.n_epochs):
                    self._learn(rollout)
                    progress(int((done + gained * (epoch + 1) / self.spec.n_epochs) * per_env_step))
        progress(self.recorder.length * per_env_step)
        return self.recorder.histories()

    def _act(self, length: int) -> dict[str, "Tensor"]:
        """Play *length* env steps and return what to learn from, ``e b ...`` with b = length * num_envs."""
        import torch

        shape = (length, self.num_tasks, self.spec.num_envs)
        actions, log_probs = np.empty(shape, np.int64), np.empty(shape, np.float32)
        uniform = np.stack([stream.random(shape[::2], np.float32) for stream in self.streams], axis=1)
        seen, final, rewards, terminations, truncations = [], [], [], [], []
        for now in range(length):
            seen.append(np.array(self.observations))
            log_policy = self.learners.logits(self.encode(self._grouped(seen[-1]))).log_softmax(1).mT.numpy()  # e b a
            actions[now] = choose(np.exp(log_policy), uniform[now])
            log_probs[now] = np.take_along_axis(log_policy, actions[now][:, :, None], 2)[:, :, 0]
            outcome = self.env.step(actions[now].reshape(-1))
            self.recorder.add(seen[-1], actions[now].reshape(-1), outcome)
            self.observations = outcome[0]
            rewards.append(outcome[1])
            terminations.append(outcome[2])
            truncations.append(outcome[3])
            final.append(np.array(outcome[4]["final_obs"]) if outcome[3].any() else None)
        returns, advantages = self._targets(
            seen, final, np.stack(rewards), np.stack(terminations), np.stack(truncations)
        )

        def by_task(array: Array) -> "Tensor":  # t e b -> e (t b)
            return torch.from_numpy(
                np.ascontiguousarray(array.swapaxes(0, 1).reshape(self.num_tasks, -1, *array.shape[3:]))
            )

        observations = np.stack([self._grouped(observation) for observation in seen])
        return {
            "inputs": self.encode(by_task(observations)),
            "actions": by_task(actions),
            "log_probs": by_task(log_probs),
            "advantages": by_task(advantages),
            "returns": by_task(returns),
        }

    def _targets(
        self, seen: list[Array], final: list[Array | None], rewards: Array, terminations: Array, truncations: Array
    ) -> tuple[Array, Array]:
        """Return returns and advantages, ``t e b``; the value of what a truncation cut off is added to its reward."""
        shape = (len(seen), self.num_tasks, self.spec.num_envs)
        values = np.stack([self._values(observations) for observations in [*seen, self.observations]])
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
        return observations.reshape(self.num_tasks, self.spec.num_envs, -1)

    def _learn(self, rollout: dict[str, "Tensor"]) -> None:
        """Go once through *rollout* in minibatches, in an order of each learner's own."""
        import torch

        from cccad_data.sources.learners import Minibatch, Objective

        spec, size = self.spec, rollout["actions"].shape[1]
        constants = {name: getattr(spec, name) for name in attrs.fields_dict(Objective)}
        objective = Objective(**constants)
        order = torch.from_numpy(np.stack([stream.permutation(size) for stream in self.streams]))
        rows = torch.arange(self.num_tasks)[:, None]
        shuffled = {name: tensor[rows, order] for name, tensor in rollout.items()}
        for first in range(0, size, spec.batch_size):
            part = slice(first, first + spec.batch_size)
            batch = Minibatch(**{name: tensor[:, part] for name, tensor in shuffled.items()})
            self.learners.update(batch, objective)


class Encoder:
    """Observations as network inputs, as Stable-Baselines3 has them: one-hot per discrete feature, raw for a box."""

    def __init__(self, space: spaces.Space) -> None:
        self.is_box = space["kind"] == "box"
        sizes = (1,) * spaces.num_features(space) if self.is_box else spaces.sizes(space)
        self.num_features = sum(sizes)
        self.offsets = np.cumsum([0, *sizes[:-1]])

    def __call__(self, observations: "Array | Tensor") -> "Tensor":
        """Encode observations, ``... o -> ... f``."""
        import torch

        observations = torch.as_tensor(observations)
        if self.is_box:
            return observations.float()
        inputs = torch.zeros(*observations.shape[:-1], self.num_features)
        return inputs.scatter_(-1, observations.long() + torch.from_numpy(self.offsets), 1.0)


def gae(rewards: Array, values: Array, ends: Array, *, gamma: float, gae_lambda: float) -> NDArray[np.float32]:
    """Return generalised advantage estimates (arXiv 1506.02438), ``t ...``.

    *values* are ``t+1 ...``, the last of what follows; *ends* says where an episode is over: nothing flows back there.
    """
    advantages = np.zeros_like(values)
    for now in reversed(range(len(rewards))):
        goes_on = 1.0 - ends[now]
        surprise = rewards[now] + gamma * values[now + 1] * goes_on - values[now]
        advantages[now] = surprise + gamma * gae_lambda * goes_on * advantages[now + 1]
    return advantages[:-1].astype(np.float32)


def choose(probs: Array, uniform: Array) -> NDArray[np.int64]:
    """Return one action per row of *probs* ``... a``, by its cumulative distribution at *uniform* ``...`` in [0, 1)."""
    cumulative = probs.cumsum(-1)
    chosen: NDArray[np.int64] = (cumulative[..., :-1] <= uniform[..., None] * cumulative[..., -1:]).sum(-1)
    return chosen


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _silent(done_env_steps: int) -> None:
    """Report nothing."""
