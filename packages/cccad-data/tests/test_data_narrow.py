"""Whatever is stored is what was measured, or it is refused with its place and its value."""

from types import SimpleNamespace

import numpy as np
import pytest
from cccad_data.collecting.recorder import Recorder
from cccad_data.errors import UnfitValueError
from cccad_data.families.toys import TrackSpec
from cccad_data.narrow import Border, narrow
from cccad_data.sources.unit import Unit

LARGE = np.arange(16_777_216, 16_777_220)


@pytest.mark.parametrize(
    ("values", "dtype", "words"),
    [
        ([0, -1], np.uint8, r"here, env step 1: -1, which uint8 cannot hold"),
        ([0, 300], np.uint8, r"env step 1: 300, which uint8 cannot hold"),
        ([0.0, 1.5], np.int64, r"env step 1: 1\.5, which int64 cannot hold"),
        ([1, 2], bool, r"env step 1: 2, which bool cannot hold"),
        ([0.0, np.nan], np.float32, r"env step 1: nan, which is not finite"),
        ([0.0, 1e300], np.float32, r"env step 1: 1e\+300, which float32 cannot hold"),
        (LARGE, np.float32, r"env step 1: 16777217, which float32 cannot hold"),
        ([2**63 - 1], np.float32, r"9223372036854775807, which float32 cannot hold"),
        (1e9 + np.arange(4.0), np.float32, r"would be stored as 1000000000\.0, too far off where all lie from"),
        (LARGE.astype(float), np.float32, r"16777217\.0 would be stored as 16777216\.0"),
        (["a"], np.float32, r"no array of numbers"),
        ([None], np.float32, r"no array of numbers"),
    ],
)
def test_what_a_dtype_cannot_hold_is_refused_with_place_and_value(values, dtype, words):
    with pytest.raises(UnfitValueError, match=words):
        narrow(np.asarray(values), dtype, "here")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 255], np.uint8),
        ([0.0, 3.0], np.uint8),
        ([True, False], np.float32),
        ([0, 1], bool),
        ([0.1] * 4, np.float32),  # never changes
        (0.1 + 1e-17 * np.arange(4), np.float32),
        (np.linspace(0.0, 1.0, 7), np.float32),
        (300.0 + np.linspace(-2.0, 2.0, 7), np.float32),
    ],
)
def test_what_a_dtype_can_hold_is_kept(values, dtype):
    kept = narrow(np.asarray(values), dtype, "here")
    assert kept.dtype == dtype
    assert np.allclose(kept, values, rtol=1e-7)


def test_a_feature_loses_by_its_own_spread_not_by_that_of_others():
    small_and_far = np.stack([np.linspace(-1e6, 1e6, 5), 1e5 + np.linspace(0.0, 0.1, 5)], axis=1)
    with pytest.raises(UnfitValueError, match="in feature 1 would be stored as"):
        narrow(small_and_far, np.float32, "here")


@pytest.mark.parametrize(
    ("space", "values", "words"),
    [
        ({"kind": "multi-discrete", "sizes": [3, 9]}, [[0, 0], [2, -1]], "env step 1: -1 in feature 1, which is not"),
        ({"kind": "multi-discrete", "sizes": [3, 9]}, [[3, 0]], "3 in feature 0, which is not in the space"),
        ({"kind": "multi-discrete", "sizes": [7]}, [[3.9]], r"3\.9, which is not in the space"),
        ({"kind": "multi-discrete", "sizes": [300]}, np.array([[-1]], np.int8), "-1, which is not in the space"),
        ({"kind": "discrete", "n": 3}, [0, 3], "env step 1: 3, which is not in the space"),
        ({"kind": "discrete", "n": 3}, [[0, 1]], r"values of shape \[2\] are none of the space"),
        ({"kind": "box", "shape": [2], "low": -1.0, "high": 1.0}, [[0.0, 1.1]], r"1\.1 in feature 1, which is not in"),
        ({"kind": "box", "shape": [1], "low": -1.0, "high": 1.0}, [[np.nan]], "nan, which is not in the space"),
        ({"kind": "box", "shape": [1], "low": -np.inf, "high": np.inf}, [[np.inf]], "inf, which is not in the space"),
        ({"kind": "box", "shape": [1], "low": -np.inf, "high": np.inf}, [[1e39]], "which is not in the space"),
        ({"kind": "box", "shape": [1], "low": 0, "high": 2**30}, LARGE[:, None], "16777217, which is not in the space"),
    ],
)
def test_what_lies_outside_a_space_is_refused_with_place_and_value(space, values, words):
    with pytest.raises(UnfitValueError, match=words):
        Border(space)(np.asarray(values), "here")


@pytest.mark.parametrize(
    ("space", "values"),
    [
        ({"kind": "multi-discrete", "sizes": [256]}, np.array([[255], [0]], np.uint8)),
        ({"kind": "multi-discrete", "sizes": [300]}, np.array([[100], [0]], np.int8)),
        ({"kind": "multi-discrete", "sizes": [2, 9]}, [[1.0, 8.0]]),
        ({"kind": "discrete", "n": 2}, [True, False]),
        ({"kind": "box", "shape": [2], "low": -0.1, "high": [0.7, 0.1]}, np.float32([[0.7, 0.1], [-0.1, -0.1]])),
        ({"kind": "box", "shape": [2], "low": -0.1, "high": [0.7, 0.1]}, [[0.7, 0.1], [-0.1, -0.1]]),
    ],
)
def test_elements_of_a_space_pass_in_its_dtype_bounds_included(space, values):
    border = Border(space)
    kept = border(np.asarray(values), "here")
    assert kept.dtype == border.dtype
    assert np.allclose(kept, values, rtol=1e-7)


class Environment:
    """Two rows that show what a test gives them, and end every second env step."""

    horizon, name = 2, "x"

    def __init__(self, space):
        self.spaces = {"observation": space, "action": {"kind": "discrete", "n": 2}}

    def record(self, *, shown, actions=0, rewards=0.0, final=None, env_steps=4):
        tasks = [SimpleNamespace(task_id=f"x/{i}", params={}) for i in range(2)]
        recorder = Recorder(self, tasks, num_envs=1, env_steps=env_steps)
        for now in range(env_steps):
            row = [np.asarray(part(now) if callable(part) else part) for part in (shown, actions, rewards)]
            both = [np.stack([part, part]) for part in row]
            last = both[0] if final is None else np.asarray(final)
            ended = np.full(2, now % 2 == 1)
            outcome = (both[0], both[2], np.zeros(2, bool), ended, {"final_obs": last, "_final_obs": ended})
            recorder.add(both[0], both[1], outcome)
        return recorder.histories()


BOX = {"kind": "box", "shape": [1], "low": -np.inf, "high": np.inf}
CELLS = {"kind": "multi-discrete", "sizes": [7]}
STEP_2 = "family 'x', task 'x/0', history 0, env step 2, the "


@pytest.mark.parametrize(
    ("space", "change", "words"),
    [
        (CELLS, {"shown": lambda now: [-1 if now == 2 else 0]}, "observation: -1, which"),
        (CELLS, {"shown": lambda now: [300 if now == 2 else 0]}, "observation: 300, which"),
        (CELLS, {"shown": lambda now: [0.9 if now == 2 else 0.0]}, "observation: 0.9, which"),
        (BOX, {"shown": lambda now: [np.nan if now == 2 else 0.0]}, "observation: nan, which"),
        (CELLS, {"shown": [0], "actions": lambda now: 2 if now == 2 else 0}, "action: 2, which"),
        (
            CELLS,
            {"shown": [0], "rewards": lambda now: np.nan if now == 2 else 0.0},
            "reward: nan, which is not finite",
        ),
        (
            CELLS,
            {"shown": [0], "rewards": lambda now: 2**24 + now - 1},
            "reward: 16777217, which float32 cannot hold",
        ),
        (
            CELLS,
            {"shown": [0], "rewards": lambda now: 1e8 + (now > 1)},
            "reward: 100000001.0 would be stored as",
        ),
        (
            BOX,
            {"shown": lambda now: [1e8 + (now > 1)]},
            "observation: 100000001.0 would be stored as 100000000.0",
        ),
    ],
)
def test_what_cannot_be_stored_is_refused_where_it_is_recorded(space, change, words):
    with pytest.raises(UnfitValueError) as refusal:
        Environment(space).record(**change)
    assert str(refusal.value).startswith(STEP_2 + words)


def test_a_last_observation_outside_its_space_is_refused():
    with pytest.raises(UnfitValueError, match="task 'x/1', history 0, env step 1, the final observation: 7, which"):
        Environment(CELLS).record(shown=[0], final=[[6], [7]])


def test_values_for_another_number_of_environments_are_refused():
    recorder = Recorder(Environment(CELLS), [SimpleNamespace(task_id="x/0", params={})], num_envs=2, env_steps=2)
    flags, observations = np.zeros(2, bool), np.zeros((2, 1))
    with pytest.raises(UnfitValueError, match=r"the reward has shape \[2, 1\] for all environments, not \[2\]"):
        recorder.add(observations, np.zeros(2, int), (observations, np.zeros((2, 1)), flags, flags, {}))
    with pytest.raises(UnfitValueError, match="the observation comes 1 times for 2 environments"):
        recorder.add(observations[:1], np.zeros(2, int), (observations, np.zeros(2), flags, flags, {}))


def test_a_unit_refuses_what_its_environments_show_and_says_where():
    family = TrackSpec().build()
    family.spaces = {**family.spaces, "observation": {"kind": "box", "shape": [1], "low": -0.4, "high": 0.4}}
    source = SimpleNamespace(name="x", spec=SimpleNamespace(num_envs=1, env_steps=8, store_optimal_actions=False))
    unit = Unit(source, family, family.tasks[:1], 0)
    unit.step(np.ones((1, 1)))  # to 0.25
    unit.step(np.ones((1, 1)))  # to 0.5
    with pytest.raises(UnfitValueError, match="family 'track', task 'track/-75', history 0, env step 2, the observ"):
        unit.step(np.ones((1, 1)))
