"""The specs of `experiments/memory` are sound, and run from collection to report when they are made small."""

import json
from pathlib import Path

import pytest

MEMORY = Path(__file__).parents[3] / "experiments" / "memory"
CONTROLS = {
    "bandit": ["ad"],
    "darkroom_permuted": ["window", "ad"],
    "key_to_door": ["window", "full"],
    "recall": ["window", "full"],
    "switching_darkroom": ["window", "full"],
}
SMALL = {
    "split.max_train_tasks": 4,
    "split.max_held_out_tasks": 2,
    "data.source.num_envs": 2,
    "train.num_updates": 3,
    "train.targets_per_update": 1500,
    "evaluate.num_episodes": 2,
    "evaluate.num_replicas": 1,
}
NEEDS_EXPERIMENTS = pytest.mark.skipif(not MEMORY.is_dir(), reason="the experiments are not beside the package")


@NEEDS_EXPERIMENTS
def test_there_is_a_test_for_every_memory_spec():
    assert sorted(path.stem for path in MEMORY.glob("*.toml")) == sorted(CONTROLS)


@NEEDS_EXPERIMENTS
@pytest.mark.parametrize("name", CONTROLS)
def test_a_memory_spec_passes_a_dry_run(name, cccad_run, tmp_path):
    told = cccad_run(MEMORY / f"{name}.toml", "--out", tmp_path, "--dry-run")
    assert told.code == 0, told.err
    assert f'name = "{name}"' in told.out


@NEEDS_EXPERIMENTS
@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS)
def test_a_memory_spec_runs_when_it_is_made_small(name, cccad_run, tmp_path):
    small = dict(SMALL)
    for control in CONTROLS[name]:
        small |= {f"controls.{control}.train.num_updates": 3, f"controls.{control}.train.targets_per_update": 1500}
    overrides = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    done = cccad_run(MEMORY / f"{name}.toml", "--out", tmp_path, *overrides)
    assert done.code == 0, done.err
    [folder] = tmp_path.glob(f"{name}-*")
    results = json.loads((folder / "evaluation" / "results.json").read_text())
    assert {"cad", *CONTROLS[name], "cad-zeroed"} <= set(results["summary"])
    assert list(results["worlds"]) == (["x3", "x10"] if name == "recall" else [])
