"""Every registered compressor and every token layout obeys the laws."""

from importlib.metadata import entry_points

import pytest
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.compressors.window import WindowSpec
from cccad_core.laws.compressor import check_compressor
from cccad_core.laws.noise import SPACES
from cccad_core.laws.policy import check_policy
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.memory.triggers import EpisodeTrigger, EveryTrigger, FullTrigger, RandomTrigger
from cccad_core.policy import PolicySpec
from cccad_core.registry import lookup
from cccad_core.spaces import Box, Dict, Discrete, MultiDiscrete, Spaces, Tuple

TRIGGERS = [FullTrigger(), EpisodeTrigger(), EveryTrigger(decisions=3), RandomTrigger()]

COMPRESSORS = sorted(point.name for point in entry_points(group="cccad.compressor"))
LAYOUTS = sorted(point.name for point in entry_points(group="cccad.tokens"))
REAL = Spaces(observation=Box(shape=(3,), low=-2.0, high=2.0), action=Box(shape=(2,), low=-1.0, high=1.0))
COUNTED = Spaces(observation=Discrete(6), action=Discrete(4))


TWO_LATENTS = GatedQuerySpec(num_latents=2, num_heads=2)


def policy_spec(layout, *, segment, carry, compressor=TWO_LATENTS, trigger=TRIGGERS[0], **others):
    """Return a small policy whose window has room for *segment* new decisions beside those carried over."""
    tokens = lookup("tokens", layout)()
    window = compressor.num_latents + tokens.slots * (carry + segment)
    parts = {"window": window, "carry": carry, "trigger": trigger, "compressor": compressor, "num_heads": 2}
    return PolicySpec(tokens=tokens, memory=CompressedSpec(**parts, **others), width=16)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_registered_compressor_obeys_the_laws(name):
    check_compressor(lookup("compressor", name)())


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: type(trigger).__name__)
@pytest.mark.parametrize("compressor", [TWO_LATENTS, WindowSpec()], ids=["gated-query", "window"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_policy_obeys_the_laws_whatever_triggers_its_writes(layout, compressor, trigger):
    spec = policy_spec(layout, segment=4, carry=2, compressor=compressor, trigger=trigger, num_layers=1)
    check_policy(spec)


@pytest.mark.parametrize("carry", [0, 1, 4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_policy_obeys_the_laws_whatever_it_carries_over_raw(layout, carry):
    check_policy(policy_spec(layout, segment=5, carry=carry))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_policy_that_writes_before_every_decision_obeys_the_laws(layout):
    check_policy(policy_spec(layout, segment=1, carry=3))


STRUCTURED = Spaces(
    observation=Dict({"image": Box((3, 3), 0, 255, dtype="uint8"), "rest": Tuple((Discrete(3), Box((2,), -1.0, 1.0)))}),
    action=MultiDiscrete((3, 2)),
)
HANDED = Spaces(observation=Discrete(4), action=Dict({"move": Discrete(3), "push": Box((2,), -1.0, 1.0)}))
IMAGES = Spaces(observation=Box((8, 8, 3), 0, 255, dtype="uint8"), action=Discrete(3))
ALL_SPACES = {"box": REAL, "discrete": COUNTED, "structured": STRUCTURED, "images": IMAGES, "parts of actions": HANDED}


@pytest.mark.parametrize("spaces", ALL_SPACES.values(), ids=ALL_SPACES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_policy_obeys_the_laws_in_other_spaces(layout, spaces):
    check_policy(policy_spec(layout, segment=5, carry=2, num_layers=1), spaces=spaces)


def test_a_compressor_of_several_layers_and_one_latent_obeys_the_laws():
    compressor = GatedQuerySpec(num_latents=1, num_layers=2, num_heads=2)
    check_policy(policy_spec("fused", segment=4, carry=1, compressor=compressor))


def test_a_policy_is_a_function_of_its_spec_and_seed_alone():
    spec = policy_spec("fused", segment=6, carry=0)
    weights, same, other = (list(spec.build(SPACES, seed=seed).parameters()) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(weights, same, strict=True))
    assert any((a != b).any() for a, b in zip(weights, other, strict=True))
