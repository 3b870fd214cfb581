"""Every mistake in the settings of a Gymnasium family gets one clear sentence, and exit code 2 at the command line."""

import textwrap
from typing import Any

import pytest
from cccad_data.family import HasOptimum
from cccad_envs.errors import PlayError, SettingError
from cccad_envs.gym.spec import GymnasiumSpec
from cccad_train.cli import main
from click.testing import CliRunner

PENDULUM: dict[str, Any] = {"id": "Pendulum-v1", "vary": {"g": [5.0, 10.0]}}
FILE = """
    import gymnasium

    class Broken(gymnasium.Wrapper):
        def reset(self, **keywords):
            raise RuntimeError("no power")

    class Needs(gymnasium.Wrapper):
        def __init__(self, env, gain):
            import a_package_that_nobody_has

    def endless(speed=1):
        return gymnasium.make("CliffWalking-v1")

    def nothing(speed=1):
        return 3

    class Told(gymnasium.Env):
        observation_space = gymnasium.spaces.Text(9)
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self, gain=1):
            self.gain = gain

        def reset(self, seed=None, options=None):
            return "go", {}

    def planner(env, horizon):
        return env.unwrapped.g * horizon
"""
MISTAKES = [
    ({"id": "Pendulm-v1"}, "there is no environment 'Pendulm-v1'; did you mean 'Pendulum-v1'"),
    ({"id": "Pendulum-v9"}, "did you mean 'Pendulum-v1'?"),
    ({"id": ""}, "not both"),
    ({"vary": {}}, "'vary' is empty"),
    ({"vary": {"gg": [1.0, 2.0]}}, "'vary.gg' is not an argument or an attribute of Pendulum-v1"),
    ({"vary": {"max_torqu": [1.0, 2.0]}}, "did you mean 'max_torque'"),
    ({"vary": {"wrapper": {"g": [1.0, 2.0]}}}, "is not an argument of a wrapper of"),
    ({"vary": {"g": 3}}, "must be a list of values or a table"),
    ({"vary": {"g": []}}, "has no values"),
    ({"vary": {"g": [1.0, 1.0]}}, "has the value 1.0 twice"),
    ({"vary": {"g": [float("nan"), 1.0]}}, "a value is a text, a finite number"),
    ({"vary": {"g": {"from": 1.0, "to": 2.0}}}, "needs a 'count'"),
    ({"vary": {"g": {"low": 1.0, "high": 2.0}}}, "is a distribution; give it a 'count'"),
    ({"vary": {"g": {"low": 2.0, "high": 1.0}}}, "must be less than its 'high'"),
    ({"vary": {"g": {"lo": 2.0, "high": 1.0}}}, "must be a list of values or a table"),
    ({"num_tasks": 5}, "'num_tasks' is 5, but 'vary' makes 2"),
    ({"wrappers": ("FILE:Missing",)}, "has no 'Missing'; there are"),
    ({"wrappers": ("FILE:Broken",)}, "Pendulum-v1 fails on reset: RuntimeError: no power"),
    ({"wrappers": ({"path": "FILE:Needs", "gain": 2},)}, "pip install a_package_that_nobody_has"),
    ({"wrappers": ({"path": "FILE:Needs", "gian": 2},)}, "takes no 'gian'; did you mean 'gain'?"),
    ({"wrappers": ("nowhere",)}, "is no import path; write 'package.module:thing'"),
    ({"wrappers": ("no_such_module:Thing",)}, "pip install no_such_module"),
    ({"id": "", "make": "FILE:endless", "vary": {"speed": [1, 2]}}, "has no time limit of its own"),
    ({"id": "", "make": "FILE:nothing", "vary": {"speed": [1, 2]}}, "it gives no gymnasium.Env, but 3"),
    ({"id": "CliffWalking-v1", "vary": {"is_slippery": [True, False]}}, "has no time limit of its own"),
    ({"id": "", "make": "FILE:Told", "vary": {"gain": [1, 2]}, "horizon": 9}, "are a Text"),
    ({"id": "minigrid:MiniGrid-Empty-5x5-v0", "vary": {"seed": [1, 2]}}, "pip install minigrid"),
    ({"id": "Hopper-v5", "vary": {"seed": [1, 2]}}, "pip install"),
    ({"arguments": {"gravity": 3}}, "Pendulum-v1 cannot be made with gravity = 3"),
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mistaken_environments.py"
    path.write_text(textwrap.dedent(FILE))
    return str(path)


def with_file(value, file):
    if isinstance(value, str):
        return value.replace("FILE", file)
    if isinstance(value, dict):
        return {name: with_file(inner, file) for name, inner in value.items()}
    return tuple(with_file(inner, file) for inner in value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(("changes", "sentence"), MISTAKES, ids=lambda value: str(value)[:50])
def test_a_mistake_is_answered_in_a_sentence(changes, sentence, file):
    with pytest.raises((SettingError, PlayError)) as caught:
        GymnasiumSpec(**with_file({**PENDULUM, **changes}, file)).build()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_ends_a_command_with_2_and_one_line():
    result = CliRunner().invoke(
        main, ["check", "env", "gymnasium", "--set", 'id="Pendulm-v1"', "--set", "vary={g=[1]}"]
    )
    assert result.exit_code == 2
    assert "did you mean 'Pendulum-v1'" in result.output
    assert "Traceback" not in result.output


def test_a_family_is_checked_at_the_command_line():
    maps = 'vary={desc=[["SF", "FG"], ["SH", "FG"]]}'
    settings = ['id="FrozenLake-v1"', maps, "horizon=4", 'reference_return="transition table"']
    arguments = [part for setting in settings for part in ("--set", setting)]
    result = CliRunner().invoke(main, ["check", "env", "gymnasium", *arguments])
    assert result.exit_code == 0, result.output


def test_a_planner_by_import_path_says_the_optimum(file):
    family = GymnasiumSpec(**PENDULUM, horizon=7, reference_return=f"{file}:planner").build()
    assert isinstance(family, HasOptimum)
    assert family.optimal_returns(family.tasks).tolist() == [35.0, 70.0]


def test_a_table_by_task_says_the_optimum():
    table = {"g=5.0": 1.0, "gymnasium/Pendulum-v1/g=10.0": 2.0}
    family = GymnasiumSpec(**PENDULUM, reference_return=table).build()
    assert isinstance(family, HasOptimum)
    assert family.optimal_returns(family.tasks).tolist() == [1.0, 2.0]
    family = GymnasiumSpec(**PENDULUM, reference_return={"g=5.0": 1.0}).build()
    assert isinstance(family, HasOptimum)
    with pytest.raises(SettingError, match="has no number for"):
        family.optimal_returns(family.tasks)
