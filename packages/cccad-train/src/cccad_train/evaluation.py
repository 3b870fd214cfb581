"""Every held-out task is lived by every agent and control, side by side; nothing here was seen in training."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from attrs import define, field
from cccad_core.agent import Agent
from cccad_core.controls import SwappedLatents, ZeroedLatents
from cccad_core.play import Played, play
from cccad_core.policy import Policy
from cccad_data import Histories, learning_curve

from cccad_train.experiment import EvaluateSpec
from cccad_train.statistics import summarise

FORMAT = "cccad-results/1"


class LeakError(ValueError):
    """A task that is to be called held out was trained on."""


def refuse_leaks(held_out: Sequence[Any], trained_ids: Sequence[str], where: str) -> None:
    """Raise LeakError when a held-out task is among the ids that *where* (data or policy) was made from."""
    leaked = sorted({task.task_id for task in held_out} & set(trained_ids))
    if leaked:
        more = f" and {len(leaked) - 1} more" if len(leaked) > 1 else ""
        raise LeakError(
            f"task '{leaked[0]}'{more} is to be held out, but {where} holds it; collect again with this spec's split"
        )


@define
class Evaluation:
    """What is known so far: agents in the order in which they were played."""

    family: Any
    tasks: Sequence[Any]
    spec: EvaluateSpec
    agents: dict[str, dict[str, Any]] = field(factory=dict)

    def worlds(self) -> Any:
        """Return the batched worlds: every task, *replicas* times, task by task."""
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
            "returns": [[[round(float(x), 4) for x in life] for life in task] for task in returns.tolist()],
            "compressions": writes,
            "compressions_per_history": float(np.mean([len(w) for w in played.writes])),
            "actions_per_s": round(played.actions_per_s, 1),
        }

    def live(self, policy: Policy, progress: Callable[[int], None] | None = None) -> Played:
        """Play the policy on every held-out task."""
        generator = torch.Generator(next(policy.parameters()).device).manual_seed(self.spec.seed)
        return play(
            Agent(policy),
            self.worlds(),
            num_episodes=self.spec.num_episodes,
            generator=generator,
            greedy=self.spec.greedy,
            seed=self.spec.seed,
            progress=progress,
        )

    def live_without_memory(self, name: str, label: str, policy: Policy) -> None:
        """Play *policy* again with its latents zeroed, and with those of another task."""
        inner = policy.compressor
        policy.compressor = ZeroedLatents(inner)
        told = "the same weights, the backbone reads zeros for latents"
        self.add(f"{name}-zeroed", f"{label}, latents zeroed", "control", told, self.live(policy))
        if len(self.tasks) > 1:
            policy.compressor = SwappedLatents(inner, self.spec.num_replicas)
            told = "the same weights, the backbone reads the latents of a life on another task"
            self.add(f"{name}-swapped", f"{label}, latents swapped", "control", told, self.live(policy))
        policy.compressor = inner

    def references(self) -> None:
        """Play the optimal and the random policy."""
        rng = np.random.default_rng(self.spec.seed)
        for name, told in (("optimal", "acts with full knowledge of the task"), ("random", "acts uniformly at random")):
            worlds = self.worlds()
            worlds.reset(seed=self.spec.seed)
            returns = np.zeros((worlds.num_envs, self.spec.num_episodes), np.float32)
            finished = np.zeros(worlds.num_envs, int)
            running = np.zeros(worlds.num_envs, np.float32)
            num_actions = self.family.spaces["action"]["n"]
            while finished.min() < self.spec.num_episodes:
                actions = worlds.optimal_actions() if name == "optimal" else rng.integers(num_actions, size=len(finished))
                _, rewards, terminations, truncations, _ = worlds.step(actions)
                running += rewards
                ended = (terminations | truncations) & (finished < self.spec.num_episodes)
                returns[ended, finished[ended]] = running[ended]
                running[terminations | truncations] = 0.0
                finished += ended
            played = Played(returns=torch.from_numpy(returns), writes=[[] for _ in finished], num_env_steps=0, duration_s=1.0)
            self.add(name, name, "control", told, played)
            self.agents[name]["actions_per_s"] = None

    def source(self, histories: Histories) -> None:
        """Keep the source algorithm's own learning curve, on its training tasks."""
        curves = learning_curve(histories)
        length = min(len(curve) for curve in curves.values())
        tasks = [self.family.task(task_id) for task_id in curves]
        optimal, random = self.family.optimal_returns(tasks), self.family.random_returns(tasks)
        scores = (np.stack([c[:length] for c in curves.values()]) - random[:, None]) / (optimal - random)[:, None]
        self.agents["source"] = {
            "label": f"source ({histories.header['source']['kind']})",
            "role": "control",
            "description": "the algorithm whose histories were imitated, on its own training tasks",
            "normalized_curve": [round(float(x), 4) for x in scores.mean(0)],
            "worst_task_normalized": round(float(scores[:, -10:].mean(1).min()), 4),
        }

    def results(self, extra: dict[str, Any]) -> dict[str, Any]:
        """Return what `results.json` holds."""
        optimal, random = self.family.optimal_returns(self.tasks), self.family.random_returns(self.tasks)
        summary = {
            name: summarise(agent["returns"], optimal, random)
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
            }
            for task, best, chance in zip(self.tasks, optimal, random, strict=True)
        ]
        return {
            "format": FORMAT,
            "horizon": self.family.horizon,
            **extra,
            "tasks": tasks,
            "summary": summary,
            "agents": self.agents,
        }
