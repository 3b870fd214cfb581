"""Spaces travel through files as JSON has them, and an array lies inside or does not."""

import json
import math

import h5py
import numpy as np
import pytest
from cccad_data import Histories, InlineSpec, RandomSpec, collect, spaces, verify
from cccad_data.errors import HistoryFileError
from cccad_data.families.toys import CorridorSpec, TrackSpec
from cccad_data.histories.shards import write_json


def no_constant(name):
    raise AssertionError(f"not JSON: {name}")


def test_a_collection_with_infinite_bounds_writes_json_and_is_inside_them(tmp_path, monkeypatch):
    family = TrackSpec().build()
    unbounded = {"kind": "box", "shape": [1], "low": -math.inf, "high": [math.inf]}
    family.spaces = {**family.spaces, "observation": unbounded}
    source = RandomSpec(num_envs=2, env_steps=20).build()
    monkeypatch.setattr(type(family.spec), "build", lambda _: family)
    out = collect(family, source, InlineSpec().build(), out=tmp_path / "set", split={"seed": 0}, seed=0, max_tasks=1)
    manifest = json.loads((out / "manifest.json").read_text(), parse_constant=no_constant)
    with h5py.File(out / "shards" / "unit-0000.h5") as file:
        header = json.loads(bytes(file["header"][...]), parse_constant=no_constant)
    assert manifest["spaces"] == header["spaces"]
    assert header["spaces"]["observation"] == {"kind": "box", "shape": [1], "low": None, "high": [None]}
    assert spaces.all_alike(Histories.open(out).spaces, family.spaces)
    assert verify(out) == []


def test_what_json_has_not_is_refused_with_the_file(tmp_path):
    with pytest.raises(HistoryFileError, match=r"manifest.json: its header is not what JSON can hold"):
        write_json(tmp_path / "manifest.json", {"source": {"kind": "x", "learning_rate": math.nan}})
    assert not (tmp_path / "manifest.json").exists()


def test_bounds_of_more_digits_than_float32_has_are_rounded_outward():
    box = {"kind": "box", "shape": [2], "low": [-0.1, 0.3], "high": [0.1, 1e300]}
    low, high = spaces.bounds(box)
    assert (np.float32([-0.1, 0.3]) >= low).all()
    assert low.tolist() == [float(np.float32(-0.1)), float(np.nextafter(np.float32(0.3), np.float32(0)))]
    assert high.tolist() == [float(np.float32(0.1)), math.inf]
    values = np.array([[-0.1, 0.3], [0.1, 1e30], [0.11, 1.0], [0.0, 0.29]], np.float32)
    assert spaces.outside(box, values).tolist() == [False, False, True, True]


def test_numbers_that_are_not_whole_lie_outside_a_discrete_space():
    space = {"kind": "multi-discrete", "sizes": [3, 3]}
    values = np.array([[0.0, 2.0], [0.5, 1.0], [-1.0, 0.0], [np.nan, 0.0]])
    assert spaces.outside(space, values).tolist() == [False, True, True, True]
    assert not spaces.outside(space, values[:0]).any()


def test_the_bounds_of_an_older_file_are_read():
    box = json.loads('{"kind": "box", "shape": [2], "low": -Infinity, "high": [Infinity, 1]}')
    assert spaces.alike(box, spaces.plain(box))
    assert spaces.plain(box)["high"] == [None, 1]
    assert spaces.alike(CorridorSpec().build().spaces["action"], {"kind": "discrete", "n": 3})
    assert not spaces.alike(box, {"kind": "box", "shape": [2], "low": None, "high": None})
    assert not spaces.alike(box, {"kind": "discrete", "n": 2})
