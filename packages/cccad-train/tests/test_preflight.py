"""Before a run trains, parts that are not ours keep the quick laws, or it says which law, which part and whose."""

import re

import pytest
from cccad_core.registry import REGISTRY

COMPRESSOR = """
from attrs import field, frozen, validators
from cccad_core.compressors.base import Compressor
from cccad_core.registry import register
from torch import nn, zeros


@register("compressor", "fading-mean")
@frozen(kw_only=True)
class FadingMeanSpec:
    keep_frac: float = 0.9
    num_latents: int = 1

    def build(self, width):
        return FadingMean(self, width)


class FadingMean(Compressor):
    def __init__(self, spec, width):
        super().__init__()
        self.num_latents, self.keep_frac = spec.num_latents, spec.keep_frac
        self.initial = nn.Parameter(zeros(1, width))
        self.show = nn.Linear(width, width)

    def begin(self, size):
        return {"mean": self.initial.expand(size, -1, -1)}

    def read(self, state):
        return self.show(state["mean"])

    def write(self, state, segment):
        tokens, mask = segment.tokens, segment.mask
        weights = tokens.new_ones(tokens.shape[:2]) if mask is None else mask.to(tokens.dtype)
        total = (tokens * weights[..., None]).sum(1, keepdim=True)
        fresh = total / weights.sum(1).clamp(min=1)[:, None, None]
        return {"mean": self.keep_frac * state["mean"] + (1 - self.keep_frac) * fresh}, {}

    def flops_per_write(self, num_tokens):
        return 0
"""
READ = 'return self.show(state["mean"])'
WRITE = 'return {"mean": self.keep_frac * state["mean"] + (1 - self.keep_frac) * fresh}, {}'
BROKEN_COMPRESSORS = {
    "another number of latents": (READ, READ + ".repeat(1, 2, 1)", "'declared size' is broken: after begin"),
    "a feature too few": (READ, READ + "[..., 1:]", r"'declared size' is broken: after begin\(\) read\(\) gives"),
    "nothing is read": (READ, "self.show(state['mean'])", "'declared size' is broken: read.. returns NoneType"),
    "rows are mixed": (WRITE, "fresh = fresh + tokens.mean((0, 1))\n        " + WRITE, "'rows do not mix' is broken"),
    "padding leaks": (" if mask is None else mask.to(tokens.dtype)", "", "'padding is invisible' is broken"),
    "no number": (READ, READ + " * float('nan')", "'finite values' is broken"),
    "it grows": (WRITE, 'return {"mean": state["mean"] + fresh}, {}', "'bounded state' is broken"),
    "no pair": (WRITE, 'return {"mean": fresh}', "'explicit state' is broken: write.. must return a pair"),
    "another key": (WRITE, 'return {"average": fresh}, {}', "'explicit state' is broken: its fields change from"),
    "an abstract method": ("flops_per_write", "flops", "TypeError: Can't instantiate abstract class FadingMean"),
    "no latents": ("num_latents: int = 1", "n: int = 1", "lacks the field or property 'num_latents' that every"),
    "no build": ("def build", "def make", "lacks the method 'build' that every compressor has"),
    "nothing is built": ("return FadingMean(self, width)", "pass", "returns NoneType, which is no Compressor"),
    "it fails": (READ, "raise RuntimeError('licence\\nserver')", r"RuntimeError: licence server \(part.py:\d+, in Fad"),
    "an annotation": ("keep_frac: float", "keep_frac: 'Floating'", "NameError: name 'Floating' is not defined"),
    "an import": ("return 0", "return 0\n\n1 / 0", r"'part\.py' failed to import: ZeroDivisionError"),
    "nothing registered": ('@register("compressor", "fading-mean")', "", "'part.py' registers no part; put @register"),
}

CURRICULUM = """
from attrs import frozen
from cccad_core.registry import register


@register("curriculum", "mine")
@frozen(kw_only=True)
class MineSpec:
    def build(self):
        return self

    def num_writes(self, update, most):
        return WRITES
"""
SOURCE = """
from attrs import frozen
from cccad_core.registry import register
from cccad_data.sources.uniform import Random, RandomSpec

class Mine(Random):
    name = "mine"

    def collect(self, family, tasks, *, seed, progress=None):
        made = super().collect(family, tasks, seed=seed, progress=progress)
        return CHANGED

@register("source", "mine")
@frozen(kw_only=True)
class MineSpec(RandomSpec):
    def build(self):
        return Mine(self)
"""
LAYOUT = """
from attrs import frozen
from cccad_core.registry import register
from cccad_core.layouts import Fused

class Mine(Fused):
    def sequence(self, batch):
        return super().sequence(batch) + LEAK

@register("tokens", "mine")
@frozen(kw_only=True)
class MineSpec:
    slots = 1

    def build(self, encoders):
        return Mine(encoders)
"""
ENCODER = """
import torch
from attrs import frozen
from cccad_core.encoders.table import Table
from cccad_core.registry import register
from cccad_core.spaces import MultiDiscrete

class Mine(Table):
    def forward(self, values):
        return super().forward(values) + LEAK

@register("encoder", "mine")
@frozen(kw_only=True)
class MineSpec:
    def takes(self, space):
        return isinstance(space, MultiDiscrete)

    def build(self, space, width):
        return Mine(space.sizes, width)
"""
HEAD = """
from attrs import frozen
from cccad_core.heads.categorical import Categorical
from cccad_core.registry import register
from cccad_core.spaces import Discrete

class Mine(Categorical):
    def draw(self, parameters, generator, *, greedy):
        return super().draw(SHARPNESS * parameters, generator, greedy=greedy)

@register("head", "mine")
@frozen(kw_only=True)
class MineSpec:
    def takes(self, space):
        return isinstance(space, Discrete)

    def build(self, space, width):
        return Mine(space, width)
"""
OBJECTIVE = """
from attrs import frozen
from cccad_core.heads.gaussian import Gaussian
from cccad_core.objectives.imitation import ImitationSpec
from cccad_core.registry import register

@register("objective", "mine")
@frozen(kw_only=True)
class MineSpec(ImitationSpec):
    def takes(self, head):
        return isinstance(head, Gaussian)
"""
BARE_OBJECTIVE = """
from attrs import frozen
from cccad_core.registry import register

@register("objective", "mine")
@frozen(kw_only=True)
class MineSpec:
    def weights(self, done):
        return {}
"""
HEADLESS_OBJECTIVE = """
from attrs import frozen
from cccad_core.objectives.base import Objective, ObjectiveSpec
from cccad_core.registry import register

class Mine(Objective):
    def forward(self, batch, num_targets, weights, moment=None, flags=None):
        return {"loss": self.policy(batch, flags=flags).ask(self.policy.head).mean()}

@register("objective", "mine")
@frozen(kw_only=True)
class MineSpec(ObjectiveSpec):
    def build(self, policy, horizon=None, others=None):
        return Mine(policy, horizon)
"""
SPEC = """
name = "p"
imports = ["part.py"]
[env]
kind = "darkroom"
size = 3
horizon = 6
[data.source]
kind = "noisy-oracle"
num_envs = 2
env_steps = 60
[policy]
width = 16
[policy.memory]
kind = "compressed"
window = 14
num_layers = 1
num_heads = 2
"""


@pytest.fixture
def dry_run(tmp_path, monkeypatch, cccad_run):
    """Return what a dry run says of the spec with one plugin file and a few settings."""

    def start(plugin, *settings):
        for name in ("_in_code", "_files"):
            monkeypatch.setattr(REGISTRY, name, {})
        (tmp_path / "part.py").write_text(plugin)
        (tmp_path / "p.toml").write_text(SPEC)
        overrides = [text for setting in settings for text in (("--set", setting) if "=" in setting else (setting,))]
        return cccad_run(tmp_path / "p.toml", "--dry-run", "--out", tmp_path, *overrides)

    return start


def test_a_compressor_that_keeps_its_contract_goes_through(dry_run):
    done = dry_run(COMPRESSOR, 'policy.memory.compressor={kind="fading-mean"}')
    assert done.code == 0, done.err


@pytest.mark.parametrize("name", BROKEN_COMPRESSORS)
def test_a_compressor_that_breaks_its_contract_is_refused_before_anything_is_trained(dry_run, name, tmp_path):
    before, after, message = BROKEN_COMPRESSORS[name]
    assert before in COMPRESSOR
    refused = dry_run(COMPRESSOR.replace(before, after), 'policy.memory.compressor={kind="fading-mean"}')
    assert refused.code == 2
    assert re.search(message, refused.err), refused.err
    assert "part.py" in refused.err
    assert len(refused.err.splitlines()) == 1
    assert not list(tmp_path.glob("p-*"))


@pytest.mark.parametrize("writes", ["-1", "most + 1", "float('nan')", "None", "0", "update * 0.0 + id(object()) % 2"])
def test_a_curriculum_that_breaks_its_contract_is_refused(dry_run, writes):
    refused = dry_run(CURRICULUM.replace("WRITES", writes), 'train.curriculum={kind="mine"}')
    assert refused.code == 2
    assert "the curriculum 'mine' of part.py" in refused.err
    assert "is broken: num_writes(" in refused.err


@pytest.mark.parametrize(
    ("changed", "law"),
    [
        ("made[:1]", "one set of histories per task"),
        ("made[::-1]", "one set of histories per task"),
        ("None", "one set of histories per task"),
        ("made\n\n    name = 'other'", "one name"),
        ("super().collect(family, tasks, seed=id(made), progress=progress)", "the same seed gives the same arrays"),
        ("super().collect(family, tasks, seed=len(tasks))", "a task's arrays do not depend on the tasks beside it"),
    ],
)
def test_a_source_that_breaks_its_contract_is_refused(dry_run, changed, law):
    refused = dry_run(SOURCE.replace("CHANGED", changed), 'data.source={kind="mine", env_steps=60}')
    assert refused.code == 2
    assert f"law '{law}' is broken" in refused.err
    assert "the source 'mine' of part.py" in refused.err


def test_a_token_layout_that_looks_ahead_is_refused_and_one_that_does_not_goes_through(dry_run):
    honest = dry_run(LAYOUT.replace("LEAK", "0.0"), 'policy.tokens={kind="mine"}')
    assert honest.code == 0, honest.err
    refused = dry_run(LAYOUT.replace("LEAK", "batch.rewards.sum(1)[:, None, None]"), 'policy.tokens={kind="mine"}')
    assert refused.code == 2
    assert "the token layout 'mine' of part.py" in refused.err
    assert "law 'no future' is broken" in refused.err


@pytest.mark.parametrize(
    ("part", "setting", "bug", "honest", "law"),
    [
        (ENCODER, "policy.encoder", ("LEAK", "values.float().mean()"), ("LEAK", "0.0"), "every value for itself"),
        (HEAD, "policy.head", ("SHARPNESS", "3"), ("SHARPNESS", "1"), "actions are drawn as often as is said"),
    ],
    ids=["encoder", "head"],
)
def test_an_encoder_or_a_head_that_breaks_its_contract_is_refused(dry_run, part, setting, bug, honest, law):
    through = dry_run(part.replace(*honest), f'{setting}={{kind="mine"}}')
    assert through.code == 0, through.err
    refused = dry_run(part.replace(*bug), f'{setting}={{kind="mine"}}')
    assert refused.code == 2
    assert "'mine' of part.py" in refused.err
    assert f"law '{law}' is broken" in refused.err


def test_parts_that_do_not_take_the_spaces_are_refused_before_anything_is_collected(dry_run):
    cases = {
        'policy.encoder={kind="linear"}': "does not take a multi-discrete space; 'table' does",
        'policy.head={kind="gaussian"}': "does not take a discrete space; 'categorical' does",
        'train.objective={kind="mine"}': "the objective 'mine' of part.py",
    }
    for setting, message in cases.items():
        refused = dry_run(OBJECTIVE, setting)
        assert refused.code == 2, setting
        assert message in refused.err
        assert len({line.partition(" @ ")[0] for line in refused.err.splitlines()}) == 1  # of the blind control, too


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            BARE_OBJECTIVE,
            r"lacks the field or property 'agents' and .* 'takes' and the method 'build' that every",
        ),
        (
            HEADLESS_OBJECTIVE,
            r"'heads' must be a tuple with the names of the policy's heads that it asks, of \('h",
        ),
    ],
    ids=["members are missing", "heads are missing"],
)
def test_an_objective_that_is_not_whole_is_refused_before_anything_is_collected(dry_run, part, message, tmp_path):
    refused = dry_run(part, 'train.objective={kind="mine"}')
    assert refused.code == 2
    assert re.search(message, refused.err), refused.err
    assert "the objective 'mine' of part.py" in refused.err
    assert len(refused.err.splitlines()) == 1
    assert not list(tmp_path.glob("p-*"))


def test_traceback_shows_the_lines_of_the_part_and_no_others(dry_run):
    refused = dry_run(
        COMPRESSOR.replace(READ, "return 1 / 0"), 'policy.memory.compressor={kind="fading-mean"}', "--traceback"
    )
    assert refused.code == 2
    assert "return 1 / 0" in refused.err
    assert refused.err.count("File ") == refused.err.count('part.py", line') == 1


def test_traceback_shows_where_an_import_failed(dry_run):
    refused = dry_run("def half():\n    return 1 / 0\n\nhalf()\n", "--traceback")
    assert refused.code == 2
    assert refused.err.count("File ") == refused.err.count('part.py", line') == 2


def test_cccad_check_puts_a_spec_and_a_single_part_to_all_laws(tmp_path, monkeypatch, cccad):
    for name in ("_in_code", "_files"):
        monkeypatch.setattr(REGISTRY, name, {})
    spec, part = tmp_path / "p.toml", tmp_path / "part.py"
    spec.write_text(SPEC)
    part.write_text(CURRICULUM.replace("WRITES", "most"))
    whole = cccad("check", spec, "--set", 'train.curriculum={kind="mine"}')
    assert whole.code == 0, whole.err
    lines = whole.out.splitlines()
    assert [line.split("'")[0] for line in lines[:8]] == [
        "the env ", "the source ", "the token layout ", "the memory ", "the compressor ", "the trigger ",
        "the curriculum ", "the objective "
    ]  # fmt: skip
    assert "'mine' of part.py" in lines[6]
    assert all(line.endswith("keeps its laws") for line in lines)  # and so are the parts of the blind control
    one = cccad("check", "curriculum", "mine", "--imports", part)
    assert (one.code, one.out.count("keeps its laws")) == (0, 1)
    refused = cccad("check", "executor", "inline")
    assert refused.code == 2
    assert "no laws for a part of kind 'executor', but for compressor, memory, tokens" in refused.err


def test_cccad_check_finds_costs_that_are_declared_wrongly(tmp_path, monkeypatch, cccad):
    for name in ("_in_code", "_files"):
        monkeypatch.setattr(REGISTRY, name, {})
    part = tmp_path / "part.py"
    part.write_text(COMPRESSOR.replace("return 0", "return 10 ** 6"))
    refused = cccad("check", "compressor", "fading-mean", "--imports", part)
    assert refused.code == 2
    assert "the compressor 'fading-mean' of part.py" in refused.err
    assert "law 'costs are as declared' is broken" in refused.err
