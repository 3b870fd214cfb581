"""A memory that is not ours, in one file, is checked, trained, played and released like ours, and says what it is."""

import json
from pathlib import Path

import pytest
from cccad_core.artefact import load_artefact
from cccad_core.registry import REGISTRY

PLUGIN = Path(__file__).resolve().parents[3] / "plugins" / "gru_memory.py"
pytestmark = pytest.mark.skipif(not PLUGIN.is_file(), reason="it lies in the whole repository")
SPEC = f"""
name = "recurrent"
imports = ["{PLUGIN}"]
[env]
kind = "darkroom"
size = 4
horizon = 8
[data.source]
kind = "noisy-oracle"
num_envs = 2
env_steps = 100
[policy]
width = 8
memory = {{ kind = "plain-gru", segment = 6 }}
[train]
num_updates = 4
num_writes = 2
targets_per_update = 200
[controls.compressed]
policy = {{ width = 8, memory = {{ kind = "compressed", window = 14, num_heads = 2 }} }}
train = {{ num_updates = 2, num_writes = 1, targets_per_update = 200 }}
[evaluate]
num_episodes = 3
num_replicas = 1
"""


@pytest.fixture(autouse=True)
def nobody_registered(monkeypatch):
    for name in ("_in_code", "_files"):
        monkeypatch.setattr(REGISTRY, name, {})


def test_a_recurrent_memory_goes_through_a_whole_run(cccad_run, tmp_path):
    spec = tmp_path / "recurrent.toml"
    spec.write_text(SPEC)
    done = cccad_run(spec, "--out", tmp_path / "runs")
    assert done.code == 0, done.err
    [folder] = (tmp_path / "runs").glob("recurrent-*")
    agents = json.loads((folder / "evaluation" / "results.json").read_text())["agents"]
    assert agents["cad"]["description"] == "memory by plain-gru; width 8"
    assert agents["cad"]["compressions_per_history"] == 0
    assert "cad-zeroed" not in agents  # there are no latents to take away
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {(row["stage"], row["writes"]) for row in rows} >= {("train-cad", 0.0), ("train-compressed", 1.0)}
    artefact = load_artefact(folder / "policy", trust_plugins=True)
    assert artefact.spec.policy.memory.segment == 6


def test_a_recurrent_memory_is_put_to_its_laws_by_name(cccad):
    done = cccad("check", "memory", "plain-gru", "--imports", PLUGIN)
    assert (done.code, done.out.count("keeps its laws")) == (0, 1), done.err
    assert "mlp_ratio: int = 4" in cccad("describe", "memory", "compressed").out
    assert "compressed" in cccad("list", "memory").out


def test_what_is_about_latents_is_refused_where_there_are_none(cccad_run, tmp_path):
    spec = tmp_path / "recurrent.toml"
    spec.write_text(SPEC)
    for setting in ("train.latent_noise=0.1", "pretrain={}", "evaluate.sliding=['cad']"):
        done = cccad_run(spec, "--out", tmp_path / "runs", "--set", setting)
        assert done.code == 2
        assert "memory has" in done.err or "plain window" in done.err
