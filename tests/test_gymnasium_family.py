"""Gymnasium's own environments as families of tasks keep all laws; crosses cccad-envs and cccad-data."""

from typing import Any

import numpy as np
import pytest
from cccad_data.families.laws import check_family
from cccad_data.family import HasOptimum
from cccad_envs.gym.spec import GymnasiumSpec

MAPS = {
    "call": "gymnasium.envs.toy_text.frozen_lake:generate_random_map",
    "size": 4,
    "p": 0.7,
    "seed": {"from": 0, "to": 11},
}
FROZEN_LAKE = GymnasiumSpec(
    id="FrozenLake-v1",
    arguments={"is_slippery": False},
    vary={"desc": MAPS},
    horizon=15,
    reference_return="transition table",
)
FAMILIES = {
    "frozen-lake": FROZEN_LAKE,
    "slippery": GymnasiumSpec(id="FrozenLake-v1", vary={"desc": MAPS}, horizon=20, reference_return="transition table"),
    "cart-pole": GymnasiumSpec(
        id="CartPole-v1",
        vary={"order": [[0, 1], [1, 0]], "length": [0.5, 1.0]},
        wrappers=("cccad_envs.gym.wrappers:PermutedActions",),
        horizon=40,
    ),
    "pendulum": GymnasiumSpec(
        id="Pendulum-v1",
        vary={"gain": [-1.0, 1.0], "m": {"from": 0.8, "to": 1.2, "count": 3}},
        wrappers=("cccad_envs.gym.wrappers:ScaledActions",),
        horizon=30,
        random_episodes=100,
        reference_return=0.0,
    ),
    "acrobot": GymnasiumSpec(
        id="Acrobot-v1", vary={"LINK_LENGTH_1": [0.8, 1.0], "LINK_MASS_2": [1.0, 1.5]}, horizon=30
    ),
    "mountain-car": GymnasiumSpec(id="MountainCar-v0", vary={"force": [-0.001, 0.001], "gravity": [0.002, 0.0025]}),
    "taxi": GymnasiumSpec(
        id="Taxi-v4", vary={"is_rainy": [False, True]}, horizon=20, reference_return="transition table"
    ),
    "layouts": GymnasiumSpec(id="CartPole-v1", vary={"seed": {"from": 0, "to": 4}}, horizon=20, reference_return=20),
    "drawn": GymnasiumSpec(
        id="Pendulum-v1",
        vary={"g": {"low": 5.0, "high": 12.0}, "attribute": {"l": {"low": 0.5, "high": 2.0, "scale": "log"}}},
        num_tasks=6,
        horizon=20,
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_gymnasium_keeps_all_laws(name):
    check_family(FAMILIES[name])


def test_tasks_have_readable_ids_and_plain_parameters():
    ids = [task.task_id for task in FAMILIES["pendulum"].build().tasks]
    assert ids[:2] == ["gymnasium/Pendulum-v1/gain=-1.0,m=0.8", "gymnasium/Pendulum-v1/gain=-1.0,m=1.0"]
    assert FROZEN_LAKE.build().tasks[0].task_id.startswith("gymnasium/FrozenLake-v1/desc=SF")


def test_what_is_varied_reaches_the_environment_itself():
    family = FAMILIES["drawn"].build()
    rows = family.make_vec(family.tasks)
    for row, task in zip(rows.rows, family.tasks, strict=True):
        inner: Any = row.env.unwrapped
        assert (inner.g, inner.l) == (task.params["g"], task.params["l"])


def test_the_exact_optimum_of_a_deterministic_map_is_to_arrive():
    family = FROZEN_LAKE.build()
    assert isinstance(family, HasOptimum)
    assert (family.optimal_returns(family.tasks) == 1.0).all()
    assert (family.random_returns(family.tasks) < 0.3).all()


def test_a_row_plays_as_the_environment_does_alone():
    family = FAMILIES["acrobot"].build()
    rows, alone = family.make_vec(family.tasks), family.recipe.build(family.tasks[2].params)
    observations, single = rows.reset(seed=5)[0], alone.reset(seed=7)[0]
    for action in np.random.default_rng(0).integers(0, 3, 30):
        assert np.array_equal(observations[2], np.asarray(single))
        observations, single = rows.step(np.full(4, action))[0], alone.step(action)[0]
