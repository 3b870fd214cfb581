"""Parts that are not ours join by file and by entry point, and obey the same laws."""

import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from cccad_core.artefact import load_policy, save_policy
from cccad_core.laws.compressor import check_compressor
from cccad_core.laws.encoder import check_encoder
from cccad_core.laws.head import check_head
from cccad_core.laws.noise import SPACES, random_batch
from cccad_core.laws.objective import check_objective
from cccad_core.laws.policy import check_policy
from cccad_core.laws.trigger import check_trigger
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.objectives.imitation import ImitationSpec
from cccad_core.policy import PolicySpec
from cccad_core.registry import REGISTRY, distributions, lookup, name_of
from cccad_core.spaces import Box, Discrete, Spaces
from cccad_core.specs import load
from cccad_train.cli import EXAMPLES
from cccad_train.fit.optimization import OptimizerSpec
from cccad_train.fit.spec import TrainSpec

PLUGINS = Path(__file__).resolve().parent.parent / "plugins"


@pytest.fixture
def ema_policy(tmp_path, monkeypatch):
    """The policy spec of a TOML file that brings in the single-file plugin by relative path."""
    for name in ("_in_code", "_files"):
        monkeypatch.setattr(REGISTRY, name, {})
    (tmp_path / "plugins").mkdir()
    (tmp_path / "experiments").mkdir()
    (tmp_path / "plugins" / "ema_compressor.py").write_bytes((PLUGINS / "ema_compressor.py").read_bytes())
    file = tmp_path / "experiments" / "x.toml"
    memory = '[memory]\nkind = "compressed"\ncompressor = { kind = "ema", keep_fracs = [0.0, 0.9] }\n'
    text = f'imports = ["../plugins/ema_compressor.py"]\n{memory}'
    file.write_text(text)
    return load(file, PolicySpec)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The packaged plugin, installed by pip into a folder of its own that is on the path."""
    folder = PLUGINS / "cccad-plugin-gru"
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(tmp_path), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(REGISTRY, "_installed", None)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("cccad_plugin_gru"):
            del sys.modules[name]


def test_the_single_file_plugin_joins_by_import_and_obeys_the_laws(ema_policy):
    assert name_of(type(ema_policy.memory.compressor)) == ("compressor", "ema")
    assert ema_policy.memory.compressor.num_latents == 2
    check_compressor(ema_policy.memory.compressor)


def test_a_policy_with_a_plugin_is_released_with_it_and_loads_in_the_same_process(ema_policy, tmp_path):
    folder = tmp_path / "policy"
    file = tmp_path / "plugins" / "ema_compressor.py"
    save_policy(folder, ema_policy.build(SPACES, seed=0), train_task_ids=("room/1",), card="", plugins=[file])
    assert load_policy(folder).spec == ema_policy


def test_a_policy_with_a_plugin_loads_in_a_process_that_never_saw_the_file(ema_policy, tmp_path):
    folder, file = tmp_path / "policy", tmp_path / "plugins" / "ema_compressor.py"
    save_policy(folder, ema_policy.build(SPACES, seed=0), train_task_ids=("room/1",), card="", plugins=[file])
    file.unlink()
    loading = f"agent = Agent.load({str(folder)!r}, trust_plugins=True)"
    code = f"from cccad_core.agent import Agent; {loading}; print(agent.policy.spec.memory.compressor.keep_fracs)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(0.0, 0.9)", done.stderr


def test_the_packaged_plugin_joins_by_installation_and_obeys_the_laws(installed):
    spec = lookup("compressor", "conv-gru")(num_latents=2)
    assert Path(str(sys.modules[type(spec).__module__].__file__)).is_relative_to(installed)
    assert distributions([("compressor", "conv-gru")]) == {"cccad-plugin-gru": "0.1.0"}
    check_compressor(spec)


def falls(objective, batch):
    """Say whether ten updates lower the loss of an objective of one term."""
    optimizer, weights = OptimizerSpec(learning_rate=1e-2).build(objective.policy), {"auxiliary": 1.0}
    losses = []
    for _ in range(11):
        loss = objective(batch, 240.0, weights)["loss"]
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses[-1] < losses[0]


@pytest.mark.parametrize("kind", ["smoothed", "paid"])
def test_an_objective_in_one_file_joins_by_import_obeys_the_laws_and_trains(kind, tmp_path, monkeypatch):
    for name in ("_in_code", "_files"):
        monkeypatch.setattr(REGISTRY, name, {})
    file = tmp_path / "x.toml"
    file.write_text(f'imports = ["{PLUGINS}/{kind}_objective.py"]\n[objective]\nkind = "{kind}"\n')
    spec = load(file, TrainSpec).objective
    assert name_of(type(spec)) == ("objective", kind)
    check_objective(spec)
    policy = PolicySpec(memory=CompressedSpec(num_heads=2), width=16).build(SPACES, seed=0)
    assert falls(spec.build(policy), random_batch(SPACES, size=8, length=30, seed=0))


def test_a_trigger_in_one_file_joins_by_import_and_obeys_the_laws(tmp_path, monkeypatch):
    for name in ("_in_code", "_files"):
        monkeypatch.setattr(REGISTRY, name, {})
    file = tmp_path / "x.toml"
    memory = '[memory]\nkind = "compressed"\ntrigger = { kind = "long-episode" }\n'
    file.write_text(f'imports = ["{PLUGINS}/reset_trigger.py"]\n{memory}')
    spec = load(file, PolicySpec)
    assert name_of(type(spec.memory.trigger)) == ("trigger", "long-episode")
    check_trigger(spec.memory.trigger)
    check_policy(PolicySpec(memory=evolve(spec.memory, window=14, num_heads=2), width=16))


def test_an_encoder_and_a_head_in_one_file_each_join_by_import_obey_the_laws_and_train(tmp_path, monkeypatch):
    for name in ("_in_code", "_files"):
        monkeypatch.setattr(REGISTRY, name, {})
    files = ", ".join(f'"{PLUGINS / name}"' for name in ("bucket_encoder.py", "smoothed_head.py"))
    (tmp_path / "x.toml").write_text(
        f'imports = [{files}]\nencoder = {{ kind = "buckets" }}\nhead = {{ kind = "smoothed" }}\n'
    )
    spec = load(tmp_path / "x.toml", PolicySpec)
    assert name_of(type(spec.encoder)) == ("encoder", "buckets")
    assert name_of(type(spec.head)) == ("head", "smoothed")
    assert spec.encoder is not None
    assert spec.head is not None
    check_encoder(spec.encoder)
    check_head(spec.head)
    spaces = Spaces(observation=Box(shape=(2,), low=(-1.0, float("-inf")), high=1.0), action=Discrete(3))
    policy = evolve(spec, width=16, memory=CompressedSpec(num_heads=2)).build(spaces, seed=0)
    assert falls(ImitationSpec().build(policy), random_batch(spaces, size=8, length=30, seed=0))


def test_describe_names_an_example_for_every_kind_that_has_one():
    assert {PLUGINS / name for name in EXAMPLES.values()} <= set(PLUGINS.glob("*.py"))
