"""No number in a spec ends in a traceback: it is right, or one sentence says what would be."""

import typing

import pytest
from attrs import fields, has
from cccad_core.registry import lookup, names
from cccad_core.specs.toml import value_text
from cccad_train.experiment import ExperimentSpec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SPEC = """
name = "p"
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
num_layers = 1
num_heads = 2
"""
WHOLE = [-(2**63), -1, 0, 1, 2, 3, 7, 1_000, 10**9, 10**12, 2**31, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30]
REAL = [-1e300, -1.0, -0.0, 1e-320, 1e-45, 1e-8, 0.5, 1 - 2**-53, 1.0, 1e8, 1e30, 1e39, 1.7e308, float("inf")]
PARTS = {
    "policy.memory.compressor": "compressor",
    "policy.tokens": "tokens",
    "train.curriculum": "curriculum",
    "data.source": "source",
    "data.executor": "executor",
}


def numbers_of(cls, place, part=""):
    """Yield the place and the type of every number in a spec and, in a part, the setting that chooses it."""
    hints = typing.get_type_hints(cls)
    for attribute in fields(cls):
        where = f"{place}{attribute.alias}"
        for kind in typing.get_args(hints[attribute.name]) or [hints[attribute.name]]:
            if kind in (int, float):
                yield where, kind, part
            elif isinstance(kind, type) and has(kind):
                yield from numbers_of(kind, f"{where}.", part)


NUMBERS = list(numbers_of(ExperimentSpec, ""))
for place, kind in PARTS.items():
    for name in names(kind):
        NUMBERS += numbers_of(lookup(kind, name), f"{place}.", f'{place}={{kind="{name}"}}')


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    file = tmp_path_factory.mktemp("numbers") / "p.toml"
    file.write_text(SPEC)
    return file


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(NUMBERS), st.data())
def test_every_number_at_its_extremes_is_right_or_refused_in_a_sentence(spec, cccad_run, number, data):
    place, kind, part = number
    value = data.draw(st.sampled_from(WHOLE if kind is int else REAL))
    chosen = ["--set", part] if part else []
    done = cccad_run(spec, "--dry-run", *chosen, "--set", f"{place}={value_text(value)}")
    assert done.code in (0, 2)
    assert done.code == 0 or 0 < len(done.err.strip().splitlines()) <= 4, done.err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed=18446744073709551616", "'seed' must be >= 0 and < 18446744073709551616"),
        ("evaluate.seed=18446744073709551616", "'seed' must be >= 0 and < 18446744073709551616"),
        ("data.seed=18446744073709551616", "'seed' must be >= 0 and < 18446744073709551616"),
        ("split.seed=18446744073709551616", "'seed' must be >= 0 and < 18446744073709551616"),
        ("train.optimizer.beta1=1.0", "'beta1' must be >= 0.0 and < 1.0"),
        ("train.optimizer.beta2=1.0", "'beta2' must be >= 0.0 and < 1.0"),
        ("train.optimizer.learning_rate=inf", "expected a number between -1e+30 and 1e+30, got inf"),
        (
            'policy.memory.compressor={kind="gated-query", num_heads=3}',
            "'compressor.num_heads' must divide 'width' = 16: 3",
        ),
        ('controls={"../x"={}}', "'controls' must have names of letters"),
        ('evaluate.environments={"\\u001b[31m"={}}', "'evaluate.environments' must have printable names"),
    ],
)
def test_a_number_or_a_name_that_would_fail_later_is_refused_at_once(spec, cccad_run, setting, message):
    refused = cccad_run(spec, "--dry-run", "--set", setting)
    assert refused.code == 2
    assert message in refused.err
    assert "\x1b" not in refused.err


def test_seeds_up_to_their_limit_are_taken(spec, cccad_run):
    largest = 2**64 - 1
    done = cccad_run(spec, "--dry-run", "--set", f"seed={largest}", "--set", f"evaluate.seed={largest}")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    "setting",
    [
        "policy.width=1000000000",
        "policy.memory.window=1000000000",
        "policy.memory.mlp_ratio=1000000000000",
        "train.targets_per_update=1000000000000",
        "train.num_writes=100000",
        "data.source.env_steps=1000000000000",
        "data.source.num_envs=100000000000",
        "evaluate.num_replicas=10000000000",
        "evaluate.num_episodes=10000000000",
        'policy.memory.compressor={kind="gru", hidden_width=1000000000}',
    ],
)
def test_what_no_memory_holds_is_refused_with_both_sizes_before_it_is_begun(spec, cccad_run, setting):
    extra = ["--set", "policy.memory.window=100000"] if "num_writes" in setting else []
    refused = cccad_run(spec, "--dry-run", *extra, "--set", setting)
    assert refused.code == 2
    assert "GB of memory; there are" in refused.err or "far more memory than there is" in refused.err
    assert len(refused.err.strip().splitlines()) <= 3
