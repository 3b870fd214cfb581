"""A released policy is a folder that loads where it is, and says what is wrong where it does not."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from cccad_core.agent import Agent
from cccad_core.artefact import load_artefact_spec, load_policy, save_policy
from cccad_core.batch import HistoryBatch
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.errors import ArtefactError, SpecError, UntrustedPlugin
from cccad_core.laws.noise import SPACES, random_batch
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.memory.triggers import EveryTrigger, RandomTrigger
from cccad_core.policy import PolicySpec
from cccad_core.registry import REGISTRY, lookup
from cccad_core.spaces import Box, Discrete, Spaces
from cccad_core.specs import load
from safetensors.torch import load_file, save_file

FIRST_FORMAT = Path(__file__).parent / "first_format"
SPEC = PolicySpec(memory=CompressedSpec(window=12, compressor=GatedQuerySpec(num_latents=3), num_layers=1))
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
    policy.requires_grad_(False)  # as what is loaded; torch multiplies weights that learn in another order
    assert torch.equal(loaded(batch).ask(loaded.head), policy(batch).ask(policy.head))
    assert load_artefact_spec(folder).train_task_ids == ("room/1", "room/2")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "model.safetensors", "spec.toml"]
    assert (folder / "README.md").read_text() == "# A card\n"


@pytest.mark.parametrize(
    ("name", "trigger", "wanted"),
    [
        ("every", EveryTrigger(decisions=4), (0.2097371220588684, 0.1886599063873291, 1.2598059177398682)),
        ("random", RandomTrigger(), (0.21602272987365723, 0.21497878432273865, 1.2765392065048218)),
    ],
)
def test_a_policy_of_the_first_format_is_read_and_decides_as_it_did(name, trigger, wanted):
    """Written in November 2026: triggers were names, and one of chance kept a tensor that no policy has any more."""
    policy = load_policy(FIRST_FORMAT / name)
    assert policy.spec.memory.trigger == trigger
    batch = random_batch(SPACES, size=1, length=20, seed=0)
    torch.testing.assert_close(policy(batch).ask(policy.head)[0, -1], torch.tensor(wanted))


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
    spec.write_text(spec.read_text().replace("cccad-policy/2", "cccad-policy/9"))
    with pytest.raises(SpecError, match=r"'format' must be .*cccad-policy/2.*cccad-policy/9"):
        load_policy(released[1])


def test_missing_weights_are_told(released):
    (released[1] / "model.safetensors").unlink()
    with pytest.raises(SpecError, match=r"no weights here: there is no file .*model.safetensors"):
        load_policy(released[1])


def test_weights_of_another_policy_and_weights_cut_short_are_told(released, tmp_path):
    other = evolve(SPEC, width=16).build(SPACES, seed=0)
    save_policy(tmp_path / "other", other, train_task_ids=("room/1",), card="")
    weights = released[1] / "model.safetensors"
    whole = (tmp_path / "other" / "model.safetensors").read_bytes()
    for content, message in ((whole, r"do not fit the policy in the spec\.toml beside them"), (whole[:100], "damaged")):
        weights.write_bytes(content)
        with pytest.raises(ArtefactError, match=message):
            load_policy(released[1])


def test_a_plugin_file_travels_with_the_policy_that_needs_it(tmp_path, monkeypatch):
    for name in ("_in_code", "_files"):
        monkeypatch.setattr(REGISTRY, name, {})
    plugin, file = tmp_path / "mine.py", tmp_path / "x.toml"
    plugin.write_text(PLUGIN)
    file.write_text('imports = ["mine.py"]\n[memory]\nkind = "compressed"\ncompressor = { kind = "somebody-elses" }\n')
    policy = load(file, PolicySpec).build(SPACES, seed=0)
    folder = save_policy(tmp_path / "policy", policy, train_task_ids=("room/1",), card="", plugins=[plugin])
    assert load_policy(folder).spec == policy.spec  # in the process that has the original
    plugin.unlink()
    REGISTRY._in_code.clear()
    REGISTRY._files.clear()
    loaded = load_policy(folder, trust_plugins=True)  # in one that has not
    assert type(loaded.spec.memory.compressor) is lookup("compressor", "somebody-elses")
    batch = random_batch(SPACES, size=2, length=80, seed=0)
    policy.requires_grad_(False)
    assert torch.equal(loaded(batch).ask(loaded.head), policy(batch).ask(policy.head))


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A policy whose folder holds a plugin that leaves a mark when it runs, and the mark."""
    for name in ("_in_code", "_files"):
        monkeypatch.setattr(REGISTRY, name, {})
    plugin, file = tmp_path / "mine.py", tmp_path / "x.toml"
    plugin.write_text(PLUGIN)
    file.write_text('imports = ["mine.py"]\n[memory]\nkind = "compressed"\ncompressor = { kind = "somebody-elses" }\n')
    policy = load(file, PolicySpec).build(SPACES, seed=0)
    folder = save_policy(tmp_path / "policy", policy, train_task_ids=("room/1",), card="", plugins=[plugin])
    REGISTRY._in_code.clear()
    REGISTRY._files.clear()
    mark = tmp_path / "it-ran"
    (folder / "mine.py").write_text(PLUGIN + f"\nopen({str(mark)!r}, 'w').close()\n")
    return folder, mark


def test_a_plugin_that_came_with_a_policy_runs_only_if_it_is_trusted(stranger):
    folder, mark = stranger
    for load_it in (load_policy, Agent.load, load_artefact_spec):
        with pytest.raises(UntrustedPlugin, match=r"'mine\.py' \(.{8}\) came with .* say so: .*trust_plugins=True"):
            load_it(folder)
    assert not mark.exists()
    Agent.load(folder, trust_plugins=True)
    assert mark.exists()


@pytest.mark.parametrize("place", ["../evil.py", "sub/evil.py", "link.py", "/absolute"])
def test_plugins_outside_of_a_policys_folder_never_run(stranger, place, tmp_path):
    folder, mark = stranger
    evil = tmp_path / "evil.py"
    evil.write_text((folder / "mine.py").read_text())
    (folder / "sub").mkdir()
    (folder / "sub" / "evil.py").write_text(evil.read_text())
    (folder / "link.py").symlink_to(evil)
    place = str(evil) if place == "/absolute" else place
    spec = folder / "spec.toml"
    spec.write_text(spec.read_text().replace('"mine.py"', f'"{place}"'))
    with pytest.raises(ArtefactError, match="must be a file in that folder"):
        Agent.load(folder, trust_plugins=True)
    assert not mark.exists()


def _without(lines, start):
    return "\n".join(line for line in lines.splitlines() if not line.startswith(start))


HUGE = '{\\"observation\\": {\\"kind\\": \\"box\\", \\"shape\\": [1000000000000], \\"low\\": 0, \\"high\\": 1}'
CHOICE = '{"kind": "discrete", "n": 2}'
DEEP = '{"kind": "tuple", "parts": [' * 300 + CHOICE + "]}" * 300
NESTED = f'{{"observation": {DEEP}, "action": {CHOICE}}}'
DAMAGED_SPECS = {
    "empty": (lambda _: "", "required field 'format' missing"),
    "no ids": (lambda text: _without(text, "train_task_ids"), "required field 'train_task_ids' missing"),
    "no policy": (lambda text: text.partition("[policy]")[0], "required field 'policy' missing"),
    "ids a number": (lambda text: text.replace('["room/1", "room/2"]', "5"), "expected list of str, got 5"),
    "ids lists": (lambda text: text.replace('["room/1", "room/2"]', "[[1]]"), "expected str"),
    "ids none": (lambda text: text.replace('["room/1", "room/2"]', "[]"), "'train_task_ids' must be at least 1 long"),
    "ids empty": (lambda text: text.replace('"room/1"', '""'), "at least 1 long for each item"),
    "newer": (lambda text: text.replace("cccad-policy/2", "cccad-policy/9"), "cccad-policy/9"),
    "spaces cut": (lambda text: text.replace("}}", "}"), "'spaces' is no JSON"),
    "spaces a list": (lambda text: text.replace('spaces = "{', 'spaces = "[{').replace('}}"', '}}]"'), "must hold"),
    "spaces huge": (lambda text: text.replace('"{\\"observation\\": {', f'"{HUGE}, \\"x\\": {{'), "numbers"),
    "spaces nested": (
        lambda text: re.sub(r"spaces = .*", lambda _: f"spaces = {NESTED!r}", text),
        "may lie within one another 16 times",
    ),
    "other spaces": (lambda text: text.replace("[5, 4]", "[5, 5]"), "has shape"),
    "wide": (lambda text: text.replace("width = 32", "width = 800000000"), "would need about .* GB of memory"),
    "long": (lambda text: text.replace("window = 12", "window = 1000000000"), "would need about .* GB of memory"),
    "deep": (
        lambda text: text.replace("num_layers = 1\n", "num_layers = 900\n", 1),
        "memory.backbone.blocks.1.norm_attention.weight is missing",
    ),
    "nested": (lambda text: text + "x = " + "[" * 5000, "cannot be read"),
    "digits": (lambda text: text + "x = " + "9" * 5000, "cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGED_SPECS)
def test_a_damaged_spec_of_a_policy_is_refused_in_one_sentence_that_names_it(released, name):
    damage, message = DAMAGED_SPECS[name]
    spec = released[1] / "spec.toml"
    spec.write_text(damage(spec.read_text()))
    with pytest.raises(ArtefactError, match=message) as caught:
        load_policy(released[1])
    assert "policy/spec.toml" in str(caught.value) or "policy/model.safetensors" in str(caught.value)


def _cast(dtype):
    return lambda weights: {name: value.to(dtype) for name, value in weights.items()}


def _with(value):
    def change(weights):
        name = next(iter(weights))
        return {**weights, name: torch.full_like(weights[name], value)}

    return change


DAMAGED_WEIGHTS = {
    "int32": (_cast(torch.int32), "has type I32, not float32"),
    "f16": (_cast(torch.float16), "has type F16, not float32"),
    "f64": (_cast(torch.float64), "has type F64, not float32"),
    "nan": (_with(float("nan")), "is nan"),
    "inf": (_with(-float("inf")), "is inf"),
    "times 1e30": (lambda weights: {name: value * 1e30 for name, value in weights.items()}, r"reaches .*e\+"),
    "one less": (lambda weights: dict(list(weights.items())[1:]), "is missing"),
    "one more": (lambda weights: {**weights, "\x1b[31m": torch.zeros(1)}, r"u001b\[31m\" is not of this policy"),
    "none": (lambda _: {}, "is missing"),
}


@pytest.mark.parametrize("name", DAMAGED_WEIGHTS)
def test_damaged_weights_are_refused_in_one_sentence_that_names_the_file(released, name):
    change, message = DAMAGED_WEIGHTS[name]
    file = released[1] / "model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(ArtefactError, match=message) as caught:
        load_policy(released[1])
    assert str(file) in str(caught.value) or "spec.toml" in str(caught.value)


def test_weights_that_are_no_safetensors_or_lie_elsewhere_are_refused(released, tmp_path):
    file = released[1] / "model.safetensors"
    whole = file.read_bytes()
    for content in (b"", b"garbage" * 99, whole[: len(whole) // 2], b"\xff" * 8 + whole[8:], whole + b"more"):
        file.write_bytes(content)
        with pytest.raises(ArtefactError, match=r"model\.safetensors: the weights cannot be read: .* cut off"):
            load_policy(released[1])
    (tmp_path / "elsewhere").write_bytes(whole)
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtefactError, match=r"is a link to .*elsewhere, outside of its folder"):
        load_policy(released[1])


def test_a_policy_that_names_no_tasks_is_not_written(released, tmp_path):
    for ids in ((), ("",)):
        with pytest.raises(ValueError, match="must name the tasks"):
            save_policy(tmp_path / "other", released[0], train_task_ids=ids, card="")
    assert not (tmp_path / "other").exists()


def test_two_plugin_files_of_one_name_are_not_laid_over_each_other(released, tmp_path):
    files = [tmp_path / name / "part.py" for name in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text(f"# {file}")
    with pytest.raises(SpecError, match=r"two plugin files have the name part\.py"):
        save_policy(tmp_path / "other", released[0], train_task_ids=("room/1",), card="", plugins=files)


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


def test_a_policy_of_large_images_comes_back_though_it_has_fewer_weights_than_they_have_numbers(tmp_path):
    spaces = Spaces(observation=Box((512, 384, 3), 0, 255, dtype="uint8"), action=Discrete(2))
    policy = PolicySpec(width=8).build(spaces, seed=0)
    assert sum(weight.numel() for weight in policy.state_dict().values()) < spaces.observation.num_features
    save_policy(tmp_path, policy, train_task_ids=("a/b",), card="")
    assert load_policy(tmp_path).spaces == spaces
