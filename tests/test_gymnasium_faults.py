"""Faults that environments of strangers have, planted one at a time: each is caught, and named."""

import itertools
import textwrap
from typing import Any

import gymnasium
import numpy as np
import pytest
from attrs import evolve
from cccad_data.errors import SourceError, UnfitValueError
from cccad_data.families.laws import check_family
from cccad_data.laws import LawBrokenError
from cccad_envs.errors import PlayError, SettingError
from cccad_envs.gym.family import GymnasiumFamily
from cccad_envs.gym.rows import GymRows
from cccad_envs.gym.spec import GymnasiumSpec
from gymnasium.vector import AutoresetMode

CAUGHT = (LawBrokenError, UnfitValueError, SourceError, SettingError, PlayError)
SPEC = GymnasiumSpec(
    id="CartPole-v1", vary={"force_mag": [10.0, -10.0]}, horizon=40, reference_return=40.0, random_episodes=5
)


def planted(monkeypatch, name, method, owner=GymRows):
    monkeypatch.setattr(owner, name, method)


def breach(spec=SPEC):
    with pytest.raises(CAUGHT) as caught:
        check_family(spec, is_quick=True)
    return str(caught.value)


def test_the_family_without_a_fault_keeps_the_laws():
    check_family(SPEC, is_quick=True)


def test_rows_that_are_not_reset_at_once(monkeypatch):
    honest = GymRows.__init__

    def init(self, *args, **kwargs):
        honest(self, *args, **kwargs)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    planted(monkeypatch, "__init__", init)
    assert "NEXT_STEP" in breach()


def test_an_episode_that_goes_on_after_its_end(monkeypatch):
    honest = GymRows.step

    def step(self, actions):
        self._age[:] = 0  # the clock is never looked at
        return honest(self, actions)

    planted(monkeypatch, "step", step)
    lazy = evolve(SPEC, id="MountainCar-v0", vary={"gravity": [0.002, 0.0025]}, horizon=12, reference_return=0.0)
    monkeypatch.setattr(GymnasiumSpec, "build", _without_time_limit(GymnasiumSpec.build))
    assert "goes on after its horizon of 12" in breach(lazy)


def _without_time_limit(build):
    def unlimited(self):
        family = build(self)
        make = family.recipe.make
        limited = lambda **arguments: make(**arguments).unwrapped  # noqa: E731
        family.recipe = evolve(family.recipe, make=limited)
        return family

    return unlimited


def test_last_observations_that_are_missing(monkeypatch):
    honest = GymRows.step

    def step(self, actions):
        *outcome, infos = honest(self, actions)
        if not infos["_final_obs"].any():
            return *outcome, {}
        ragged = np.full(self.num_envs, None, object)
        for row in np.flatnonzero(infos["_final_obs"])[:-1]:
            ragged[row] = infos["final_obs"][row]
        return *outcome, {"final_obs": ragged, "_final_obs": infos["_final_obs"]}

    planted(monkeypatch, "step", step)
    assert "does not hold its last observation" in breach()


def test_seeding_that_drifts(monkeypatch):
    honest, number = GymRows.reset, itertools.count()

    def reset(self, *, seed=None, options=None):
        return honest(self, seed=None if seed is None else seed + next(number), options=options)

    planted(monkeypatch, "reset", reset)
    assert "the same seed gives the same episodes" in breach()


def test_rows_that_mix(monkeypatch):
    honest = GymRows.step

    def step(self, actions):
        return honest(self, np.roll(actions, 1))

    planted(monkeypatch, "step", step)
    assert "rows do not mix" in breach()


def test_an_optimum_that_is_wrong():
    with pytest.raises(LawBrokenError, match="the optimum must lie above the random policy"):
        check_family(evolve(SPEC, reference_return=2.0), is_quick=True)


def test_a_planned_optimum_that_is_wrong():
    maps = {"call": "gymnasium.envs.toy_text.frozen_lake:generate_random_map", "size": 4, "seed": {"from": 0, "to": 4}}
    spec = GymnasiumSpec(
        id="FrozenLake-v1",
        arguments={"is_slippery": False},
        vary={"desc": maps},
        wrappers=("gymnasium.wrappers:TransformReward",),
        horizon=10,
        reference_return="transition table",
    )
    with pytest.raises(SettingError, match="TransformReward"):
        spec.build()  # it needs a function, and says so


def test_ids_that_move(monkeypatch):
    honest, number = GymnasiumFamily.__init__, itertools.count()

    def init(self, spec, recipe, *rest):
        honest(self, spec, evolve(recipe, name=f"{recipe.name}-{next(number)}"), *rest)

    planted(monkeypatch, "__init__", init, GymnasiumFamily)
    assert "ids are stable" in breach()


def test_equal_tasks_under_two_ids():
    twins = {"length": [0.5, 0.6], "x_threshold": [2.4, 2.4000001]}
    assert "cannot be told apart" in breach(evolve(SPEC, vary=twins))
    merged = evolve(SPEC, vary=twins, equal_tasks="merge").build()
    assert [task.params["x_threshold"] for task in merged.tasks] == [2.4, 2.4]


WRAPPERS = """
    import gymnasium

    class Swallows(gymnasium.Wrapper):
        def reset(self, **keywords):
            self.unwrapped.length = 0.5
            return self.env.reset(**keywords)

    class NotANumber(gymnasium.Wrapper):
        def step(self, action):
            observation, *rest = self.env.step(action)
            return observation * float("nan"), *rest

    class NoReward(gymnasium.Wrapper):
        def step(self, action):
            observation, _, *rest = self.env.step(action)
            return observation, float("nan"), *rest

    class Starts(gymnasium.Wrapper):
        def __init__(self, env):
            super().__init__(gymnasium.wrappers.Autoreset(env))
"""


@pytest.fixture
def wrapped(tmp_path):
    file = tmp_path / "strange_wrappers.py"
    file.write_text(textwrap.dedent(WRAPPERS))
    return lambda name, spec=SPEC: evolve(spec, wrappers=(f"{file}:{name}",))


def test_a_wrapper_that_swallows_an_attribute(wrapped):
    assert "'length' of CartPole-v1 is 0.5 after a reset, not 0.8" in breach(
        wrapped("Swallows", evolve(SPEC, vary={"length": [0.8, 1.1]}))
    )


def test_a_popped_mask(monkeypatch):
    honest = GymRows.reset

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).pop("reset_mask", None)  # and so it is not there the second time
        return honest(self, seed=seed, options=None if mask is None else {"reset_mask": mask})

    planted(monkeypatch, "reset", reset)
    options = {"reset_mask": np.array([True, False])}
    family = SPEC.build()
    family.make_vec(family.tasks[:2]).reset(seed=0, options=options)
    assert "reset_mask" not in options
    assert "options are only read" in breach()


def test_a_reset_that_takes_every_row(monkeypatch):
    honest = GymRows.reset
    planted(monkeypatch, "reset", lambda self, *, seed=None, options=None: honest(self, seed=seed))  # noqa: ARG005
    assert "rows are reset apart" in breach()


@pytest.mark.parametrize(("name", "said"), [("NotANumber", "finite"), ("NoReward", "finite")])
def test_what_is_not_a_number(wrapped, name, said):
    assert said in breach(wrapped(name))


def test_a_wrapper_that_resets_by_itself(wrapped):
    assert "Autoreset" in breach(wrapped("Starts"))


def test_an_environment_is_gymnasiums_own_in_every_step():
    spec = evolve(SPEC, vary={"length": [0.5, 0.8]})
    family = spec.build()
    rows, alone = family.make_vec(family.tasks), gymnasium.make("CartPole-v1", max_episode_steps=40)
    inner: Any = alone.unwrapped
    inner.length = 0.8
    observed, single = rows.reset(seed=3)[0], alone.reset(seed=4)[0]
    for now in range(60):
        assert np.array_equal(observed[1], single)
        observed, _, terminations, truncations, infos = rows.step(np.full(2, now % 2))
        single, _, is_over, is_cut, _ = alone.step(now % 2)
        assert np.array_equal(infos["final_obs"][1], single)
        assert (terminations[1], truncations[1]) == (is_over, is_cut and not is_over)
        if is_over or is_cut:
            single = alone.reset()[0]
