"""`single.py` and `registration.py`: single environments pass Gymnasium's own checker and can be rendered."""

import warnings
from typing import Any, cast

import cccad_envs
import gymnasium
import numpy as np
import pytest
from cccad_envs import ActionError, DarkKeyToDoorSpec, DarkroomSpec, NotResetError, SettingError
from cccad_envs.registration import ENVIRONMENTS, register_environments
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

IDS = list(ENVIRONMENTS)
DARKROOM = DarkroomSpec(size=3).build()
KEY_TO_DOOR = DarkKeyToDoorSpec(size=3).build()


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("render_mode", [None, "rgb_array", "ansi"])
def test_gymnasium_finds_nothing_wrong(name, render_mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(name, render_mode=render_mode, disable_env_checker=True).unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_stable_baselines3_finds_nothing_wrong(name):
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason="Stable-Baselines3 is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gymnasium.make(name).unwrapped)


def test_stable_baselines3_can_learn_in_it():
    sb3 = pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is not installed")
    env = DARKROOM.make(DARKROOM.place(goal=(2, 1)))
    model = sb3.PPO("MlpPolicy", env, n_steps=64, batch_size=32, n_epochs=1, device="cpu", seed=0).learn(128)
    action, _ = model.predict(env.reset()[0])
    assert env.action_space.contains(np.int64(action))


def test_gymnasium_makes_the_task_that_is_asked_for():
    env = gymnasium.make("cccad/DarkKeyToDoor-v0", size=5, horizon=7, key=(3, 2), door=(3, 3))
    env.reset(seed=0)
    outcomes = [env.step(action) for action in (0, 2, 4, 4, 4, 4, 4)]
    assert [reward for _, reward, *_ in outcomes] == [1, 1, 0, 0, 0, 0, 0]
    assert [truncated for *_, truncated, _ in outcomes] == [False] * 6 + [True]


def test_gymnasium_makes_the_batched_environment_under_the_same_name():
    rows = gymnasium.make_vec("cccad/Darkroom-v0", num_envs=3, goal=(4, 5), vectorization_mode="vector_entry_point")
    assert isinstance(rows.unwrapped, cccad_envs.RowsEnv)
    assert rows.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    rows.reset(seed=0)
    assert rows.step(np.array([2, 3, 4]))[1].tolist() == [1, 0, 0]


def test_wrong_settings_are_refused_through_gymnasium_too():
    with pytest.raises(SettingError, match=r"'goal' must be two whole numbers, a cell \(x, y\) of the 5x5 room"):
        gymnasium.make("cccad/Darkroom-v0", size=5, goal=(5, 5))
    with pytest.raises(SettingError, match=r"darkroom is placed by 'goal', got \['goal', 'gaol'\]|\['gaol', 'goal'\]"):
        gymnasium.make("cccad/Darkroom-v0", gaol=(5, 5))


def test_registering_again_is_harmless():
    before = dict(gymnasium.registry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_environments()
    assert dict(gymnasium.registry) == before


def test_a_single_environment_must_be_reset_before_and_after_an_episode():
    family = DarkroomSpec(horizon=1).build()
    env = family.make(family.tasks[0])
    with pytest.raises(NotResetError, match="never been reset"):
        env.step(0)
    env.reset()
    assert env.step(0)[3] is True
    with pytest.raises(NotResetError, match="episode is over"):
        env.step(0)


def test_a_single_environment_takes_any_whole_number_and_refuses_the_rest():
    env = DARKROOM.make(DARKROOM.tasks[0])
    for action in (2, np.int64(2), np.array(2)):
        env.reset()
        assert env.step(action)[0].tolist() == [1, 2]
    wrong: Any
    for wrong in (5, -1, 1.0, None, [1, 2]):
        with pytest.raises(ActionError):
            env.step(wrong)


def test_text_shows_x_to_the_right_and_y_upwards():
    env = DARKROOM.make(DARKROOM.place(goal=(2, 0)), render_mode="ansi")
    env.reset()
    assert env.render() == ". . .\n. @ .\n. . G\n"
    env.step(2)
    assert env.render() == ". @ .\n. . .\n. . G\n"
    for action in (3, 3, 0):
        env.step(action)
    assert env.render() == ". . .\n. . .\n. . *\n"


def test_a_key_that_is_taken_vanishes_from_the_picture():
    env = KEY_TO_DOOR.make(KEY_TO_DOOR.place(key=(2, 1), door=(0, 0)), render_mode="ansi")
    env.reset()
    assert env.render() == ". . .\n. @ K\nD . .\n"
    env.step(0)
    assert env.render() == ". . .\n. . @\nD . .\n"


def test_the_last_picture_of_an_episode_shows_how_it_ended():
    family = DarkroomSpec(size=3, horizon=1).build()
    env = family.make(family.place(goal=(2, 1)), render_mode="ansi")
    env.reset()
    assert env.step(0)[3] is True
    assert env.render() == ". . .\n. . *\n. . .\n"


def test_the_image_has_the_agent_where_the_text_has_it():
    env = DARKROOM.make(DARKROOM.place(goal=(2, 0)), render_mode="rgb_array")
    env.reset()
    env.step(2)
    image = cast("NDArray[np.uint8]", env.render())
    assert image.shape == (48, 48, 3)
    assert image.dtype == np.uint8
    assert image[8, 24].tolist() == [40, 90, 200]  # top row, middle column
    assert image[40, 40].tolist() == [60, 160, 75]  # bottom row, right column
    assert image[24, 24].tolist() == image[40, 8].tolist() == [245, 245, 240]


def test_a_batch_gives_one_picture_per_row_and_none_without_a_mode():
    rows = KEY_TO_DOOR.make_vec(KEY_TO_DOOR.tasks[:4], render_mode="rgb_array")
    rows.reset()
    frames = cast("tuple[NDArray[np.uint8], ...]", rows.render())
    assert [frame.shape for frame in frames] == [(48, 48, 3)] * 4
    assert KEY_TO_DOOR.make(KEY_TO_DOOR.tasks[0]).render() is None
