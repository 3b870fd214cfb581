"""Every held-out task is lived by every agent and control, side by side; nothing here was seen in training."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from attrs import define, evolve, field
from cccad_core.agent import Agent
from cccad_core.errors import UnfitValueError
from cccad_core.memory.base import Memory
from cccad_core.memory.compressed import compressed
from cccad_core.memory.controls import SwappedLatents, ZeroedLatents
from cccad_core.play import Played, Player, play
from cccad_core.policy import Policy
from cccad_data import Histories, learning_curve
from cccad_data.families.scale import Scale, late_return
from cccad_data.family import (
    HasActionSpace,
    HasReferencePlayers,
    KnowsOptimalActions,
    Task,
    TaskFamily,
    VectorEnvironment,
    episodes_per_cycle,
)
from cccad_data.spaces import random_actions

from cccad_train.console import Meter
from cccad_train.experiment import EvaluateSpec
from cccad_train.files import Json
from cccad_train.report.statistics import NUM_LAST_EPISODES, summarise
from cccad_train.run.stages.contradictions import contradictions, unlearned

FORMAT = "cccad-results/1"


class Reference:
    """Plays by a rule where `play` expects an agent: *choose* acts in all rows, *learn* is told what that paid."""

    def __init__(self, choose: Callable[[], Any], learn: Callable[[Any, Any], object] | None = None) -> None:
        self.choose, self.learn = choose, learn

    def begin(self, num_envs: int) -> SimpleNamespace:
        """Return a state that never writes."""
        return SimpleNamespace(num_writes=torch.zeros(num_envs, dtype=torch.int64), actions=None)

    def act(self, state: SimpleNamespace, observations: object, **_: object) -> tuple[Any, SimpleNamespace]:
        """Return one action per row, in mappings and tuples where actions have parts."""
        state.actions = self.choose()
        return _as_tensors(state.actions), state

    def observe(self, state: SimpleNamespace, rewards: object, *_: object) -> SimpleNamespace:
        """Return the state, having learned."""
        if self.learn is not None:
            self.learn(state.actions, rewards)
        return state


def _as_tensors(actions: Any) -> Any:
    if isinstance(actions, Mapping):
        return {name: _as_tensors(part) for name, part in actions.items()}
    return tuple(map(_as_tensors, actions)) if isinstance(actions, tuple) else torch.as_tensor(actions)


@define
class Evaluation:
    """What is known so far: agents in the order in which they were played."""

    family: TaskFamily
    tasks: Sequence[Task]
    spec: EvaluateSpec
    meter: Meter
    measured: Scale | None = None
    agents: dict[str, Json] = field(factory=dict)
    num_lived: int = 0

    @property
    def scale(self) -> Scale:
        """What returns are measured by: what was measured, or else what the family declares."""
        return self.measured or Scale.of(self.family, self.tasks)

    def environments(self) -> VectorEnvironment:
        """Return the batched environments: every task, *replicas* times, task by task."""
        return self.family.make_vec([task for task in self.tasks for _ in range(self.spec.num_replicas)])

    def add(self, name: str, label: str, role: str, description: str, played: Played) -> None:
        """Keep what an agent did."""
        replicas = self.spec.num_replicas
        returns = played.returns.view(len(self.tasks), replicas, -1)
        writes = played.writes[::replicas]
        self.agents[name] = {
            "label": label,
            "role": role,
            "description": description,
            "returns": returns.tolist(),
            "compressions": writes,
            "compressions_per_history": float(np.mean([len(w) for w in played.writes])),
            "actions_per_s": played.actions_per_s,
        }

    def live(self, policy: Policy, memory: Memory[Any] | None = None) -> Played:
        """Play the policy on every held-out task, with another *memory* than its own if given."""
        return self._play(Agent(policy, memory), self.environments(), next(policy.parameters()).device)

    def live_sliding(self, name: str, description: str, policy: Policy) -> None:
        """Play the plain window of *policy* again, sliding: every decision sees the newest transitions that fit."""
        played = self.live(policy, compressed(policy.memory).sliding())
        written = evolve(played, writes=[[] for _ in played.writes])  # it forgets at every decision, and never writes
        self.add(f"{name}-sliding", f"{name}, sliding window", "control", description, written)

    def _play(self, agent: Player, environments: VectorEnvironment, device: torch.device | str) -> Played:
        before = self.num_lived * self.spec.num_episodes
        self.num_lived += 1
        try:
            return play(
                agent,
                environments,
                num_episodes=self.spec.num_episodes,
                generator=torch.Generator(device).manual_seed(self.spec.seed),
                greedy=self.spec.greedy,
                seed=self.spec.seed,
                progress=lambda finished: self.meter.show(before + finished),
            )
        except UnfitValueError as error:
            raise UnfitValueError(f"family {self.family.name!r}, played on held-out tasks: {error}") from error

    def live_without_memory(self, name: str, label: str, policy: Policy) -> None:
        """Play *policy* again with its latents zeroed, and with those of another task."""
        memory = compressed(policy.memory)
        played = self.live(policy, memory.with_compressor(ZeroedLatents(memory.compressor)))
        description = "the same weights, the backbone reads zeros for latents"
        self.add(f"{name}-zeroed", f"{label}, latents zeroed", "control", description, played)
        if len(self.tasks) > 1:
            swapped = SwappedLatents(memory.compressor, self.spec.num_replicas)
            played = self.live(policy, memory.with_compressor(swapped))
            description = "the same weights, the backbone reads the latents of a life on another task"
            self.add(f"{name}-swapped", f"{label}, latents swapped", "control", description, played)

    def rules(self, environments: VectorEnvironment) -> dict[str, tuple[str, Reference]]:
        """Return who plays *environments* by rule, one after the other, by name, with a word on each.

        Besides the optimal and the random policy it is what the family offers as `reference_players`: functions of
        environments and seed, which return what can `choose` and `learn`.
        """
        rules = {"random": ("acts uniformly at random", Reference(self._uniform(environments)))}
        if isinstance(environments, KnowsOptimalActions):
            rules = {
                "optimal": ("acts with full knowledge of the task", Reference(environments.optimal_actions)),
                **rules,
            }
        players = self.family.reference_players if isinstance(self.family, HasReferencePlayers) else {}
        for name, make in players.items():
            player = make(environments, self.spec.seed)
            rules[name] = (f"a known strategy for {self.family.name}", Reference(player.choose, player.learn))
        return rules

    def _uniform(self, environments: VectorEnvironment) -> Callable[[], Any]:
        """Return what draws uniformly random actions, from the environments' own space where they have one."""
        if isinstance(environments, HasActionSpace):
            environments.action_space.seed(self.spec.seed)
            return environments.action_space.sample
        return random_actions(self.family.spaces["action"], environments.num_envs, self.spec.seed)

    def references(self) -> None:
        """Play the optimal and the random policy, and the family's own strategies."""
        environments = self.environments()
        for name, (description, rule) in self.rules(environments).items():
            self.add(name, name, "control", description, self._play(rule, environments, "cpu"))
            self.agents[name]["actions_per_s"] = None

    def source(self, histories: Histories) -> None:
        """Keep the source algorithm's own learning curve, on its training tasks."""
        curves = learning_curve(histories)
        length = min(len(curve) for curve in curves.values())
        tasks = [self.family.task(task_id) for task_id in curves]
        scale = Scale.of(self.family, tasks, [] if self.scale.is_optimum else [late_return(task) for task in histories])
        lived = np.stack([curve[:length] for curve in curves.values()])
        scores = (lived - scale.random[:, None]) / (scale.best - scale.random)[:, None]
        self.agents["source"] = {
            "label": f"source ({histories.header['source']['kind']})",
            "role": "control",
            "description": "the algorithm whose histories were imitated, on its own training tasks",
            "normalized_curve": scores.mean(0).tolist(),
            "worst_task_normalized": float(scores[:, -NUM_LAST_EPISODES:].mean(1).min()),
        }

    def results(self, extra: Json) -> Json:
        """Return what `results.json` holds."""
        scale = self.scale
        summary = {
            name: summarise(agent["returns"], scale.best, scale.random)
            for name, agent in self.agents.items()
            if "returns" in agent
        }
        tasks = [
            {
                "task_id": task.task_id,
                "params": dict(task.params),
                "split": "held-out",
                "optimal_return": float(best),
                "random_return": float(chance),
                **({"optimal_error": float(best_error)} if best_error else {}),
                **({"random_error": float(random_error)} if random_error else {}),
            }
            for task, best, chance, best_error, random_error in zip(
                self.tasks, scale.best, scale.random, scale.best_errors, scale.random_errors, strict=True
            )
        ]
        return {
            "format": FORMAT,
            "horizon": self.family.horizon,
            **({} if scale.is_optimum else {"best_return": "reference"}),
            **extra,
            "warnings": [
                *contradictions(
                    self.agents,
                    [task.task_id for task in self.tasks],
                    scale,
                    episodes_per_cycle(self.family),
                ),
                *unlearned(scale),
            ],
            "tasks": tasks,
            "summary": summary,
            "agents": self.agents,
        }
