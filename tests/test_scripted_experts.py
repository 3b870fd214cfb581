"""Experts of one's own play any Gymnasium environment: with the tasks' parameters, or looking into the environment."""

import sys
import textwrap
from typing import Any

import numpy as np
import pytest
from cccad_data import ExpertSpec
from cccad_envs.gym.spec import GymnasiumSpec

EXPERTS = """
    import numpy as np

    def knowing(observations, params):
        cos, sin, speed = observations.T
        return (params["max_torque"] * np.sign(speed))[:, None]

    class Looking:
        def __init__(self, environment):
            self.pendulum = environment.unwrapped

        def __call__(self, observation):
            return [self.pendulum.max_torque * np.sign(observation[2])]
"""


@pytest.fixture
def experts(tmp_path):
    path = tmp_path / "pendulum_experts.py"
    path.write_text(textwrap.dedent(EXPERTS))
    yield str(path)
    sys.modules.pop("pendulum_experts", None)


def test_both_kinds_of_expert_act_alike_where_they_know_alike(experts):
    family = GymnasiumSpec(id="Pendulum-v1", vary={"max_torque": [0.5, 1.0]}, horizon=20).build()
    life: dict[str, Any] = {"num_envs": 2, "env_steps": 60, "noise_start": 0.5}
    knowing = ExpertSpec(expert=f"{experts}:knowing", **life).build()
    looking = ExpertSpec(expert=f"{experts}:Looking", per_environment=True, **life).build()
    both = [source.collect(family, family.tasks, seed=0) for source in (knowing, looking)]
    for task, one, other in zip(family.tasks, *both, strict=True):
        assert np.array_equal(one.actions, other.actions)
        steady = np.isclose(np.abs(one.actions), task.params["max_torque"]).mean()
        assert 0.6 < steady < 0.9  # the others are noise
