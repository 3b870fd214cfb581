"""Gymnasium's own vector environments are recorded, learned from and played like ours."""

from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from attrs import evolve
from cccad_core.agent import Agent
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.errors import UnplayableError
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.play import play
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Box, Dict, Discrete, Spaces, Tuple
from cccad_data import PPOSpec, QLearningSpec, RandomSpec, SB3Spec, SourceError
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

SIZE, HORIZON = 7, 6
GOALS = (1, 4)
REFUSAL = "this environment has the autoreset mode {}; make it with autoreset_mode=gymnasium.vector.AutoresetMode"


class Corridor(gym.Env):
    """A walk to a goal, which pays on it and ends there."""

    observation_space = gym.spaces.MultiDiscrete([SIZE])
    action_space = gym.spaces.Discrete(3)

    def __init__(self, goal):
        self.goal = goal

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.age = SIZE // 2, 0
        return np.array([self.place]), {}

    def step(self, action):
        self.place = int(np.clip(self.place + (1, -1, 0)[int(action)], 0, SIZE - 1))
        self.age += 1
        is_there = self.place == self.goal
        return np.array([self.place]), float(is_there), is_there, self.age >= HORIZON and not is_there, {}


class Family:
    name, horizon = "walk", HORIZON
    spaces: ClassVar = {
        "observation": {"kind": "multi-discrete", "sizes": [SIZE]},
        "action": {"kind": "discrete", "n": 3},
    }
    tasks = tuple(SimpleNamespace(task_id=f"walk/{goal}", params={"goal": goal}) for goal in GOALS)

    def __init__(self, vector_class=SyncVectorEnv, mode=AutoresetMode.SAME_STEP):
        self.vector_class, self.mode = vector_class, mode

    def make_vec(self, tasks):
        makers = [lambda goal=task.params["goal"]: Corridor(goal) for task in tasks]
        return self.vector_class(makers, autoreset_mode=self.mode)


LIFE: dict[str, Any] = {"num_envs": 3, "env_steps": 60}
SOURCES: dict[str, Any] = {
    "random": RandomSpec(**LIFE),
    "q-learning": QLearningSpec(**LIFE),
    "ppo": PPOSpec(n_steps=20, batch_size=20, n_epochs=1, **LIFE),
    "sb3": SB3Spec(algorithm="A2C", **LIFE),
}


def agent():
    policy = PolicySpec(
        memory=CompressedSpec(
            window=9, compressor=GatedQuerySpec(num_latents=2, num_heads=2), num_layers=1, num_heads=2
        ),
        width=8,
    )
    return Agent(policy.build(Spaces.from_dict(Family.spaces), 0))


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_records_true_last_observations_of_gymnasiums_vector_envs(name):
    if name == "sb3":
        pytest.importorskip("stable_baselines3", reason="the sb3 source needs stable-baselines3 (extra 'rl')")
    family = Family()
    for task, goal in zip(SOURCES[name].build().collect(family, family.tasks, seed=0), GOALS, strict=True):
        led_to = np.clip(task.observations[:, 0] + np.array([1, -1, 0])[task.actions], 0, SIZE - 1)
        assert (task.next_observations()[:, 0] == led_to).all()
        assert (task.rewards == (led_to == goal)).all()
        assert (task.terminations == (led_to == goal)).all()
        assert task.terminations.any()


@pytest.mark.parametrize("vector_class", [SyncVectorEnv, AsyncVectorEnv])
def test_play_tells_the_agent_the_true_last_observations_of_gymnasiums_vector_envs(vector_class):
    class Listening(Agent):
        """Keeps what it hears."""

        heard: tuple[tuple[object, ...], ...] = ()

        def observe(self, state, rewards, terminations, truncations, next_observations):
            self.heard = (*self.heard, (rewards, terminations, np.array(next_observations)))
            return super().observe(state, rewards, terminations, truncations, next_observations)

    listener, family = Listening(agent().policy), Family(vector_class)
    environments = family.make_vec(family.tasks)
    played = play(listener, environments, num_episodes=4, generator=torch.Generator().manual_seed(0))
    environments.close()
    rewards, terminations, reached = (np.stack(part) for part in zip(*listener.heard, strict=True))
    assert (rewards == (reached[:, :, 0] == GOALS)).all()
    assert (terminations == (reached[:, :, 0] == GOALS)).all()
    assert played.returns.sum() > 0


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused_in_one_sentence(mode):
    family = Family(mode=mode)
    with pytest.raises(UnplayableError, match=REFUSAL.format(mode.name)):
        play(agent(), family.make_vec(family.tasks), num_episodes=1)
    for name, spec in SOURCES.items():
        if name != "sb3" or pytest.importorskip("stable_baselines3"):
            with pytest.raises(SourceError, match=REFUSAL.format(mode.name)):
                spec.build().collect(family, family.tasks, seed=0)


class Rooms(Corridor):
    """The same walk, shown as parts, one of which the agent does not know."""

    action_space: Any = gym.spaces.Dict(move=gym.spaces.Discrete(3), push=gym.spaces.Box(-1.0, 1.0, (2,)))
    observation_space: Any = gym.spaces.Dict(
        image=gym.spaces.Box(0, 255, (2, 2), np.uint8),
        place=gym.spaces.Tuple((gym.spaces.Discrete(SIZE),)),
        mission=gym.spaces.Text(5),
    )

    def shown(self):
        return {"image": np.full((2, 2), self.place, np.uint8), "place": (self.place,), "mission": "walk"}

    def reset(self, *, seed=None, options=None):
        _, infos = super().reset(seed=seed, options=options)
        return self.shown(), infos

    def step(self, action):
        assert self.action_space.contains({"move": action["move"], "push": action["push"]})
        _, *others = super().step(action["move"])
        return self.shown(), *others


def test_parts_are_observed_with_the_true_last_ones_and_acted_in_by_gymnasiums_vector_envs():
    observation = Dict({"image": Box((2, 2), 0, 255, dtype="uint8"), "place": Tuple((Discrete(SIZE),))})
    reached = []

    class Listening(Agent):
        """Keeps where it is led."""

        def observe(self, state, rewards, terminations, truncations, next_observations):
            super().observe(state, rewards, terminations, truncations, next_observations)
            reached.append((state.last.next_observations[:, 0].clone(), np.array(terminations)))
            return state

    spaces = Spaces(observation=observation, action=Dict({"move": Discrete(3), "push": Box((2,), -1.0, 1.0)}))
    listener = Listening(evolve(agent().policy.spec).build(spaces, 0))
    makers = [lambda goal=goal: Rooms(goal) for goal in GOALS]
    environments = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    played = play(listener, environments, num_episodes=4, generator=torch.Generator().manual_seed(0))
    rows, terminations = torch.stack([row for row, _ in reached]), np.stack([ended for _, ended in reached])
    assert rows.dtype == torch.uint8
    assert (rows == rows[..., :1]).all()
    assert ((rows[..., -1].numpy() == GOALS) == terminations).all()
    assert played.returns.sum() > 0
