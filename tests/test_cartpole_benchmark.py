"""The CartPole that the benchmarks learn is Gymnasium's."""

import runpy
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

CartPole = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "cartpole.py"))["CartPole"]


def test_every_frame_is_that_of_cartpole_v1():
    family = CartPole([100, 60], horizon=40)
    rows = family.make_vec(family.tasks[:1] * 8)
    reference: Any = gymnasium.make("CartPole-v1").unwrapped
    pushes = np.random.Generator(np.random.PCG64(0))
    observations, _ = rows.reset(seed=3)
    endings = set()
    for _ in range(200):
        states, ages, actions = rows.states.copy(), rows.ages.copy(), pushes.integers(0, 2, 8)
        if pushes.random() < 0.5:  # now and then lean against the fall, to live until the horizon
            actions = (states[:, 2] + states[:, 3] > 0).astype(int)
        assert (observations == states.astype(np.float32)).all()
        observations, rewards, terminations, truncations, infos = rows.step(actions)
        endings |= set(zip(terminations.tolist(), truncations.tolist(), strict=True))
        for row in range(8):
            reference.reset()
            reference.state = states[row]
            following, reward, has_fallen, _, _ = reference.step(int(actions[row]))
            assert np.allclose(infos["final_obs"][row], following, rtol=1e-6, atol=1e-7)
            assert (reward, has_fallen) == (rewards[row], terminations[row])
            assert truncations[row] == (ages[row] == 39 and not has_fallen)
    assert endings == {(False, False), (True, False), (False, True)}


def test_a_shorter_pole_falls_faster():
    family = CartPole([200, 50])
    rows = family.make_vec(family.tasks)
    rows.reset(seed=0)
    rows.states[:] = [0.0, 0.0, 0.05, 0.0]
    for _ in range(10):
        rows.step(np.ones(2, int) * (rows.ages % 2))  # pushes that cancel
    assert rows.states[1, 2] > rows.states[0, 2] > 0.05


def test_rows_are_reset_on_their_own_and_draw_on_their_own():
    family = CartPole([100])
    together, alone = family.make_vec(family.tasks * 3), family.make_vec(family.tasks)
    together.reset(seed=5)
    observations, _ = together.reset(seed=9, options={"reset_mask": np.array([False, True, False])})
    assert (observations[1] == alone.reset(seed=10)[0][0]).all()
    assert (observations[[0, 2]] == family.make_vec(family.tasks * 3).reset(seed=5)[0][[0, 2]]).all()
    assert np.abs(observations).max() <= 0.05
