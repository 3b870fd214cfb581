"""The specs of `experiments/` are sound, and run to the end when they are made small."""

import json
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from attrs import fields, has
from cccad_core.registry import lookup
from cccad_core.specs import load
from cccad_train.experiment import ExperimentSpec

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
PATHS = (path.relative_to(EXPERIMENTS) for path in EXPERIMENTS.rglob("*.toml"))  # none beside a lone package
NAMES = sorted(str(path.with_suffix("")) for path in PATHS)
SETTINGS = {
    "paper/ad_darkroom": ["73 training tasks, 8 held-out", 'kind = "window"', "n_steps = 80", "window = 240"],
    "paper/ad_key_to_door": ["1,024 training tasks, 64 held-out", "n_steps = 50", "batch_size = 100"],
    "paper/cad_darkroom": [
        "73 training tasks, 8 held-out",
        "num_latents = 40",
        "[train.objective.reconstruction]\nweight = 0.1",
    ],
    "paper/cad_key_to_door": ["1,024 training tasks, 64", "max_gradient_rounds = 2", 'kind = "transition"'],
}
SMALL = {
    "split.max_train_tasks": 4,
    "split.max_held_out_tasks": 2,
    "evaluate.num_episodes": 2,
    "evaluate.num_replicas": 1,
}
SMALL_PAPER = {  # their histories take long, and their stages begin with few writes
    "data.source": '{ kind = "noisy-oracle", num_envs = 2, env_steps = 1000, tasks_per_unit = 4 }',
    "data.executor": '{ kind = "inline" }',
    "train.curriculum": '{ kind = "none" }',
}


@pytest.mark.skipif(not NAMES, reason="the experiments are not beside the package")
def test_the_specs_whose_settings_are_known_are_there():
    assert set(SETTINGS) <= set(NAMES)


NEEDS = {"gymnasium/reacher": "mujoco", "gymnasium/metaworld_reach": "metaworld", "gymnasium/minigrid_goal": "minigrid"}
"""Packages that these specs ask for and the project does not; `make worlds` tests them where they are."""


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_passes_a_dry_run_with_its_settings(name, cccad_run, tmp_path):
    pytest.importorskip(NEEDS.get(name, "gymnasium"))
    ended = cccad_run(EXPERIMENTS / f"{name}.toml", "--out", tmp_path, "--dry-run")
    assert ended.code == 0, ended.err
    assert [word for word in SETTINGS.get(name, []) if word not in ended.out] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_spec_runs_when_it_is_made_small(name, cccad_run, tmp_path):
    pytest.importorskip(NEEDS.get(name, "gymnasium"))
    spec = load(EXPERIMENTS / f"{name}.toml", ExperimentSpec)
    small = SMALL | (SMALL_PAPER if name in SETTINGS else {"data.source.num_envs": 2})
    for agent, described in spec.described().items():
        for stage in ("train", "pretrain"):
            if getattr(described, stage) is not None:
                place = stage if agent == spec.agent else f"controls.{agent}.{stage}"
                small |= {f"{place}.num_updates": 3, f"{place}.targets_per_update": 1500}
    overrides = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    done = cccad_run(EXPERIMENTS / f"{name}.toml", "--out", tmp_path, *overrides)
    assert done.code == 0, done.err
    [measured] = tmp_path.glob("*-s0/evaluation/results.json")
    results = json.loads(measured.read_text(encoding="utf-8"))
    assert set(spec.agents()) <= set(results["summary"])
    assert list(results["worlds"]) == list(spec.evaluate.environments)
    assert len(results["tasks"]) == 2
    if name in SETTINGS:
        assert results["training"]["writes_per_history"] == (49 if spec.agent == "cad" else 0)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("", ["'env' missing; write [env] with", "'data' missing; write [data.source] with"]),
        (
            "[data]\nseed = 1\n",
            ["'env' missing", "'data' needs a source or a path; write [data."],
        ),
        ('[env]\nkind = "darkroom"\n', ["required field 'data' missing"]),
    ],
)
def test_a_spec_without_env_or_histories_is_told_what_to_write(text, missing, cccad_run, tmp_path):
    (tmp_path / "x.toml").write_text(f'name = "x"\n{text}', encoding="utf-8")
    refused = cccad_run(tmp_path / "x.toml", "--dry-run")
    assert refused.code == 2
    assert [words for words in missing if words not in refused.err] == [], refused.err


def spec_classes(cls=ExperimentSpec):
    """Return *cls* and every spec class of this package that one of its fields holds or may hold."""
    inner = {cls}
    for hint in get_type_hints(cls).values():
        for member in (hint, *get_args(hint)):
            if isinstance(member, type) and has(member) and member.__module__.startswith("cccad_train"):
                inner |= spec_classes(member)
    return inner


def test_every_field_of_every_spec_tells_what_it_is_for():
    curricula = [lookup("curriculum", name) for name in ("none", "staged", "linear")]
    classes = set().union(*map(spec_classes, [ExperimentSpec, *curricula]))
    assert len(classes) >= 12
    silent = [f"{cls.__name__}.{each.name}" for cls in classes for each in fields(cls) if not each.metadata.get("help")]
    assert silent == []
