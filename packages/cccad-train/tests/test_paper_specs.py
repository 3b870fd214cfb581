"""The specs of `experiments/paper` are sound, and train when they are made small."""

import json
from pathlib import Path

import pytest

PAPER = Path(__file__).parents[3] / "experiments" / "paper"
NAMES = ("ad_darkroom", "ad_key_to_door", "cad_darkroom", "cad_key_to_door")
SMALL = {
    "data.source": '{ kind = "noisy-oracle", num_envs = 2, env_steps = 1000, tasks_per_unit = 4 }',
    "data.executor": '{ kind = "inline" }',
    "split.max_train_tasks": 4,
    "split.max_held_out_tasks": 2,
    "train.num_updates": 3,
    "train.targets_per_update": 2000,
    "train.curriculum": '{ kind = "none" }',
    "evaluate.num_episodes": 10,
    "evaluate.num_replicas": 1,
}
NEEDS_EXPERIMENTS = pytest.mark.skipif(not PAPER.is_dir(), reason="the experiments are not beside the package")


@NEEDS_EXPERIMENTS
def test_there_is_a_test_for_every_paper_spec():
    assert sorted(path.stem for path in PAPER.glob("*.toml")) == sorted(NAMES)


@NEEDS_EXPERIMENTS
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ad_darkroom", ["73 training tasks, 8 held-out", 'kind = "window"', "n_steps = 80", "window = 240"]),
        ("ad_key_to_door", ["1,024 training tasks, 64 held-out", "n_steps = 50", "batch_size = 100"]),
        ("cad_darkroom", ["73 training tasks, 8 held-out", "num_latents = 40", "[train.reconstruction]\nweight = 0.1"]),
        ("cad_key_to_door", ["1,024 training tasks, 64 held-out", "max_gradient_rounds = 2", 'kind = "transition"']),
    ],
)
def test_a_paper_spec_passes_a_dry_run_with_its_settings(name, words, cccad_run, tmp_path):
    told = cccad_run(PAPER / f"{name}.toml", "--out", tmp_path, "--dry-run")
    assert told.code == 0, told.err
    assert [word for word in words if word not in told.out] == []


@NEEDS_EXPERIMENTS
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_paper_spec_trains_when_it_is_made_small(name, cccad_run, tmp_path):
    small = dict(SMALL)
    if name.startswith("cad"):
        small |= {"pretrain.num_updates": 2, "pretrain.targets_per_update": 2000}
    overrides = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    done = cccad_run(PAPER / f"{name}.toml", "--out", tmp_path, *overrides)
    assert done.code == 0, done.err
    [folder] = tmp_path.glob("paper-*")
    results = json.loads((folder / "evaluation" / "results.json").read_text())
    assert results["training"]["writes_per_history"] == (49 if name.startswith("cad") else 0)
    assert len(results["tasks"]) == 2
