"""Images, dictionaries, tuples and several choices go from a spec to a report; crosses all packages."""

import json
from pathlib import Path

import numpy as np
import pytest
from cccad_core.spaces import Spaces, dtype_of
from cccad_data import Histories, Sampler, SamplerSpec
from cccad_data.families.laws import check_family
from cccad_data.histories.shards import write_shard
from cccad_data.sources.uniform import RandomSpec
from cccad_data.spaces import as_parts, as_rows, leaves
from cccad_envs.gym.spec import GymnasiumSpec
from cccad_train import cli
from click.testing import CliRunner

FILE = Path(__file__).parent / "structured_environments.py"
VARY = {
    "Beacon": "goal = [0, 1, 3, 4]",
    "Parts": "goal = [-0.9, -0.3, 0.4, 0.8]",
    "Dials": "first = [0, 1, 2]",
}
SPEC = """
name = "tiny"
[env]
kind = "gymnasium"
make = "{file}:{name}"
vary = {{ {vary} }}
horizon = 6
random_episodes = 4
reference_return = 6.0
[split]
held_out_frac = 0.25
[data.source]
kind = "random"
num_envs = 2
env_steps = 60
[policy]
width = 16
[policy.memory]
kind = "compressed"
window = 8
num_layers = 1
num_heads = 2
compressor = {{ kind = "gated-query", num_latents = 2, num_heads = 2 }}
[pretrain]
num_updates = 2
num_writes = 2
targets_per_update = 64
[train]
num_updates = 3
targets_per_update = 64
num_writes = 2
[evaluate]
num_episodes = 2
num_replicas = 1
"""


def family(name):
    key, values = VARY[name].split(" = ")
    return GymnasiumSpec(make=f"{FILE}:{name}", vary={key: json.loads(values)}, horizon=6, random_episodes=4)


@pytest.mark.parametrize("name", VARY)
def test_families_of_every_space_keep_the_laws(name):
    check_family(family(name))


@pytest.mark.parametrize("name", VARY)
def test_every_space_goes_from_a_spec_to_a_report(name, tmp_path):
    spec = tmp_path / "tiny.toml"
    spec.write_text(SPEC.format(file=FILE, name=name, vary=VARY[name]))
    result = CliRunner().invoke(cli.run, ["--device", "cpu", str(spec), "--out", str(tmp_path / "runs")])
    assert result.exit_code == 0, (result.output, result.exception)
    (report,) = (tmp_path / "runs").glob("*/report.html")
    assert report.stat().st_size
    (data,) = (tmp_path / "runs").rglob("manifest.json")
    histories = Histories.open(data.parent)
    batch = Sampler(SamplerSpec(), histories, seed=0).batch(0, 10, 4)
    spaces = Spaces.from_dict(histories.spaces)
    assert batch["observations"].shape == (4, 10, spaces.observation.num_features)
    if dtype_of(spaces.observation) != "int64":
        assert batch["observations"].dtype == dtype_of(spaces.observation)
    checked = CliRunner().invoke(cli.main, ["data", "verify", str(data.parent)])
    assert checked.exit_code == 0, checked.output


def test_frames_stay_bytes_and_are_small_on_the_disk(tmp_path):
    split = family("Beacon").build().split(seed=0, held_out_frac=0.25)
    (first,) = RandomSpec(num_envs=2, env_steps=60).build().collect(family("Beacon").build(), split.train[:1], seed=0)
    assert first.observations.dtype == first.final_observations.dtype == np.uint8
    header = {"spaces": family("Beacon").build().spaces}
    write_shard(tmp_path / "frames.h5", header, [first])
    assert (tmp_path / "frames.h5").stat().st_size < 0.3 * first.observations.nbytes


def test_parts_become_a_row_and_a_row_becomes_parts():
    tree = family("Parts").build().spaces["observation"]
    assert [path for path, _ in leaves(tree)] == ["pair/0", "pair/1", "place"]
    shown = {"place": np.zeros((2, 2), np.float32), "pair": (np.array([1, 3]), np.ones((2, 2), int)), "mission": "go"}
    rows = as_rows(tree, shown)
    assert rows.tolist() == [[1, 1, 1, 0, 0], [3, 1, 1, 0, 0]]
    again = as_parts(tree, rows)
    assert again["pair"][0].tolist() == [1, 3]
    assert again["place"].shape == (2, 2)
