"""A released policy is a folder that loads where it is, and says what is wrong where it does not."""

import numpy as np
import pytest
import torch
from attrs import evolve
from cccad_core.agent import Agent
from cccad_core.artefact import load_artefact_spec, load_policy, save_policy
from cccad_core.batch import HistoryBatch
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.context import ContextSpec
from cccad_core.errors import SpecError
from cccad_core.policy import PolicySpec
from cccad_core.registry import REGISTRY, lookup
from cccad_core.specs import load
from cccad_core.testing import SPACES, random_batch

SPEC = PolicySpec(context=ContextSpec(window=12), compressor=GatedQuerySpec(num_latents=3), num_layers=1)
PLUGIN = '''
"""A compressor of somebody else's."""

from attrs import frozen
from cccad_core.compressors.gated_query import GatedQuery, GatedQuerySpec
from cccad_core.registry import register


@register("compressor", "somebody-elses")
@frozen(kw_only=True)
class SomebodyElsesSpec:
    num_latents: int = 2

    def build(self, width):
        return GatedQuery(GatedQuerySpec(num_latents=self.num_latents), width)
'''


@pytest.fixture
def released(tmp_path):
    """A policy, and the folder that it was saved in."""
    policy = SPEC.build(SPACES, seed=3)
    return policy, save_policy(tmp_path / "policy", policy, train_task_ids=("room/1", "room/2"), card="# A card\n")


def test_a_policy_comes_back_with_its_spec_its_weights_and_its_training_tasks(released):
    policy, folder = released
    loaded, batch = load_policy(folder), random_batch(SPACES, size=2, length=30, seed=0)
    assert loaded.spec == policy.spec
    assert torch.equal(loaded(batch).parameters, policy(batch).parameters)
    assert load_artefact_spec(folder).train_task_ids == ("room/1", "room/2")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "model.safetensors", "spec.toml"]
    assert (folder / "README.md").read_text() == "# A card\n"


def test_an_agent_is_loaded_by_its_folders_name(released):
    agent = Agent.load(str(released[1]))
    actions, state = agent.act(agent.begin(3), np.array([[0, 1], [4, 3], [2, 2]]), greedy=True)
    assert actions.shape == (3,)
    assert state.num_decisions.tolist() == [1, 1, 1]


def test_a_folder_without_a_policy_is_told_so(tmp_path):
    with pytest.raises(SpecError, match=r"no policy here: there is no file .*nowhere/spec.toml"):
        load_policy(tmp_path / "nowhere")


def test_an_unknown_format_is_told_with_the_one_that_is_known(released):
    spec = released[1] / "spec.toml"
    spec.write_text(spec.read_text().replace("cccad-policy/1", "cccad-policy/9"))
    with pytest.raises(SpecError, match=r"'format' must be .*cccad-policy/1.*cccad-policy/9"):
        load_policy(released[1])


def test_missing_weights_are_told(released):
    (released[1] / "model.safetensors").unlink()
    with pytest.raises(SpecError, match=r"no weights here: there is no file .*model.safetensors"):
        load_policy(released[1])


def test_weights_of_another_policy_and_weights_cut_short_are_told(released, tmp_path):
    other = evolve(SPEC, width=16).build(SPACES, seed=0)
    save_policy(tmp_path / "other", other, train_task_ids=(), card="")
    weights = released[1] / "model.safetensors"
    whole = (tmp_path / "other" / "model.safetensors").read_bytes()
    for content in (whole, whole[:100]):
        weights.write_bytes(content)
        with pytest.raises(SpecError, match=r"do not fit the policy in the spec\.toml beside them"):
            load_policy(released[1])


def test_a_plugin_file_travels_with_the_policy_that_needs_it(tmp_path, monkeypatch):
    for name in ("_in_code", "_files"):
        monkeypatch.setattr(REGISTRY, name, {})
    plugin, file = tmp_path / "mine.py", tmp_path / "x.toml"
    plugin.write_text(PLUGIN)
    file.write_text('imports = ["mine.py"]\n[compressor]\nkind = "somebody-elses"\n')
    policy = load(file, PolicySpec).build(SPACES, seed=0)
    folder = save_policy(tmp_path / "policy", policy, train_task_ids=(), card="", plugins=[plugin])
    assert load_policy(folder).spec == policy.spec  # in the process that has the original
    plugin.unlink()
    REGISTRY._in_code.clear()
    REGISTRY._files.clear()
    loaded = load_policy(folder)  # in one that has not
    assert type(loaded.spec.compressor) is lookup("compressor", "somebody-elses")
    batch = random_batch(SPACES, size=2, length=80, seed=0)
    assert torch.equal(loaded(batch).parameters, policy(batch).parameters)


def test_a_batch_of_numpy_arrays_becomes_tensors_of_the_models_types():
    arrays = {
        "observations": np.zeros((1, 2, 2), dtype=np.uint8),
        "actions": np.zeros((1, 2), dtype=np.uint8),
        "rewards": np.zeros((1, 2), dtype=np.float64),
        "terminations": np.zeros((1, 2), dtype=bool),
        "truncations": np.zeros((1, 2), dtype=bool),
        "next_observations": np.zeros((1, 2, 2), dtype=np.uint8),
        "mask": np.ones((1, 2), dtype=bool),
        "task_index": np.zeros(1),
    }
    batch = HistoryBatch.from_arrays(arrays)
    assert (batch.observations.dtype, batch.rewards.dtype, batch.mask.dtype) == (torch.int64, torch.float32, torch.bool)
    assert (batch.size, batch.length) == (1, 2)
