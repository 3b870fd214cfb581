"""Let an agent live in a batch of environments, and keep what evaluation needs of it."""

import time
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Protocol

import torch
from attrs import frozen
from torch import Tensor

from cccad_core.border import refuse
from cccad_core.errors import UnplayableError


class Life(Protocol):
    """What a player carries from decision to decision."""

    num_writes: Tensor


class Player(Protocol):
    """What `play` asks of whoever plays: an `Agent`, or a rule without memory. Signatures are those of `Agent`."""

    def begin(self, num_envs: int) -> Any:
        """Return a `Life` for every environment."""

    def act(
        self, state: Any, observations: Any, *, generator: torch.Generator | None = None, greedy: bool = False
    ) -> tuple[Any, Any]:
        """Return one action per row, and the state."""

    def observe(self, state: Any, rewards: Any, terminations: Any, truncations: Any, next_observations: Any) -> Any:
        """Take in what the actions led to."""


@frozen(kw_only=True)
class Played:
    """Whole lives: `returns`, `e episode`; `writes`, the env steps before which each environment wrote; the rate."""

    returns: Tensor
    writes: list[list[int]]
    num_env_steps: int
    duration_s: float

    @property
    def actions_per_s(self) -> float:
        """Decisions of all environments together, per second of wall time, environment included."""
        return self.num_env_steps * len(self.returns) / self.duration_s


def play(
    agent: Player,
    environments: Any,
    *,
    num_episodes: int,
    generator: torch.Generator | None = None,
    greedy: bool = False,
    seed: int = 0,
    progress: Any = None,
) -> Played:
    """Live *num_episodes* episodes in every row of *environments*.

    These are a `gymnasium.vector.VectorEnv` with SAME_STEP autoreset.
    Memory is kept across episodes: that is where the agent learns. Environments that finish early live on until all
    have. *progress*, where there is one, is called with the number of episodes that every row has finished.

    Raises UnplayableError where rows are not reset in the env step that ends their episode, and UnfitValueError where
    an observation is not in its space or a reward is not finite.
    """
    _refuse_other_autoresets(environments)
    num_envs = environments.num_envs
    observations, _ = environments.reset(seed=seed)
    state = agent.begin(num_envs)
    returns = torch.zeros(num_envs, num_episodes, dtype=torch.float64)
    running = torch.zeros(num_envs, dtype=torch.float64)
    finished = torch.zeros(num_envs, dtype=torch.int64)
    writes: list[list[int]] = [[] for _ in range(num_envs)]
    began, env_steps = time.perf_counter(), 0
    while int(finished.min()) < num_episodes:
        before = state.num_writes.clone()
        actions, state = agent.act(state, observations, generator=generator, greedy=greedy)
        for row in torch.nonzero(state.num_writes > before)[:, 0].tolist():
            writes[row].append(env_steps)
        observations, rewards, terminations, truncations, infos = environments.step(_as_arrays(actions))
        env_steps += 1
        ended = torch.as_tensor(terminations | truncations)
        true_next = _true_next(observations, ended, infos) if bool(ended.any()) else observations
        agent.observe(state, rewards, terminations, truncations, true_next)
        running += torch.as_tensor(rewards, dtype=torch.float64)
        if bool(ended.any()):
            rows = torch.nonzero(ended & (finished < num_episodes))[:, 0]
            returns[rows, finished[rows]] = running[rows]
            running[ended] = 0.0
            finished += ended
            if progress is not None:
                progress(min(int(finished.min()), num_episodes))
    if not bool(returns.isfinite().all()):
        refuse(returns, ~returns.isfinite(), "the returns")
    return Played(returns=returns, writes=writes, num_env_steps=env_steps, duration_s=time.perf_counter() - began)


def _refuse_other_autoresets(environments: Any) -> None:
    mode = (getattr(environments, "metadata", None) or {}).get("autoreset_mode", "SAME_STEP")
    name = getattr(mode, "name", mode)
    if name != "SAME_STEP":
        wanted = "autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP"
        raise UnplayableError(f"this environment has the autoreset mode {name}; make it with {wanted}")


def _true_next(observations: Any, ended: Tensor, infos: Any) -> Any:
    """Return *observations* with the last ones of the episodes that *ended*, `b`; gymnasium keeps them as objects."""
    last, true_next = infos.get("final_obs"), deepcopy(observations)
    for row in torch.nonzero(ended)[:, 0].tolist():
        if last is None or last[row] is None:
            raise UnplayableError("an episode ended, but infos['final_obs'] does not hold its last observation")
        true_next = _with_row(true_next, row, last[row])
    return true_next


def _as_arrays(actions: Any) -> Any:
    """Return *actions*, part by part, as arrays."""
    if isinstance(actions, Mapping):
        return {name: _as_arrays(part) for name, part in actions.items()}
    if isinstance(actions, tuple):
        return tuple(map(_as_arrays, actions))
    return actions.cpu().numpy()


def _with_row(observations: Any, row: int, value: Any) -> Any:
    """Return batched *observations*, part by part, with *value* in one row; arrays are changed in place."""
    if isinstance(observations, Mapping):
        return {name: _with_row(part, row, value[name]) for name, part in observations.items()}
    if isinstance(observations, tuple) and isinstance(observations[0], str):  # texts, which no policy reads
        return observations
    if isinstance(observations, tuple):
        return tuple(_with_row(part, row, inner) for part, inner in zip(observations, value, strict=True))
    observations[row] = value
    return observations
