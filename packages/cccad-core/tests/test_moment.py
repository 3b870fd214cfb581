"""Chance in training: felt in the decisions, repeated by the same seed, absent without a moment."""

import pytest
import torch
from attrs import evolve
from cccad_core.compressors.base import take_rows
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.laws.noise import SPACES, random_batch
from cccad_core.memory.compressed import CompressedSpec, fold
from cccad_core.memory.moment import CALM, Moment
from cccad_core.memory.triggers import EpisodeTrigger, FullTrigger
from cccad_core.objectives.imitation import ImitationSpec
from cccad_core.objectives.reconstruction import ReconstructionSpec
from cccad_core.policy import PolicySpec

SPEC = PolicySpec(
    memory=CompressedSpec(window=8, compressor=GatedQuerySpec(num_latents=2, num_heads=2), num_heads=2), width=16
)
PASSED = Moment(seed=3, state_passing=1.0)


def imitated(policy, batch, moment):
    spec = ImitationSpec()
    return spec.build(policy)(batch, 80.0, spec.weights(0.0), moment)


@pytest.fixture(params=[FullTrigger(), EpisodeTrigger()], ids=["full", "episode"])
def policy(request):
    return evolve(SPEC, memory=evolve(SPEC.memory, window=8, trigger=request.param)).build(SPACES, seed=0)


@pytest.fixture
def batch():
    return random_batch(SPACES, size=4, length=20, seed=0)


def told(policy, batch, moment):
    with torch.no_grad():
        return policy(batch, moment=moment).ask(policy.head)


def test_a_moment_without_chance_changes_no_bit(policy, batch):
    assert torch.equal(told(policy, batch, Moment(seed=3)), told(policy, batch, CALM))


@pytest.mark.parametrize("moment", [PASSED, Moment(seed=3, latent_noise=0.5)], ids=["state passing", "latent noise"])
def test_chance_is_felt_and_repeats_with_its_seed(policy, batch, moment):
    calm = told(policy, batch, CALM)
    assert not torch.allclose(told(policy, batch, moment), calm, atol=1e-4)
    assert torch.equal(told(policy, batch, moment), told(policy, batch, moment))
    others = [told(policy, batch, evolve(moment, seed=seed)) for seed in range(4, 10)]
    assert not all(torch.equal(told(policy, batch, moment), other) for other in others)


@pytest.mark.parametrize("moment", [PASSED, evolve(PASSED, from_itself=True)], ids=["another", "its own"])
def test_a_row_starts_from_the_final_state_of_the_row_that_lends_it(policy, batch, moment):
    windows = policy.memory.context.windows(batch.flags(), CALM, batch.mask.device)
    tokens, think = policy.layout.sequence(batch), policy.memory.backbone.think
    writes = windows.writes(tokens, batch.mask)
    with torch.no_grad():
        final = fold(policy.memory.compressor, writes, policy.memory.compressor.begin(4), think=think).state
        donors, is_passed = moment.donors(4)
        memory = fold(policy.memory.compressor, writes, take_rows(final, donors), think=think)
        hidden = [
            policy.memory.backbone(*shown) for shown in windows.shown(windows.prefixes(memory.reads), tokens, None)
        ]
        wanted = windows.in_time([policy.head(each) for each in hidden])
    assert is_passed.all()
    assert (donors == torch.arange(4)).tolist() == [moment.from_itself] * 4
    torch.testing.assert_close(told(policy, batch, moment), wanted)


def test_what_is_lent_has_no_gradient(policy, batch):
    """Where every row starts from another's end, nobody begins with the initial memory, and none learns through it."""
    for moment, is_reached in ((CALM, True), (PASSED, False)):
        policy.zero_grad()
        imitated(policy, batch, moment)["loss"].backward()
        assert bool(policy.memory.compressor.initial.grad.any()) is is_reached


def test_as_many_rows_are_passed_a_state_as_the_share_says():
    shares = [Moment(seed=seed, state_passing=0.3).donors(50)[1].float().mean() for seed in range(40)]
    assert float(torch.stack(shares).mean()) == pytest.approx(0.3, abs=0.05)
    assert not Moment(state_passing=1.0).donors(1)[1].any()  # nobody else is there
    assert Moment(state_passing=1.0, from_itself=True).donors(1)[1].all()


def test_noise_on_the_latents_has_the_standard_deviation_asked_for():
    [blurred] = Moment(seed=1, latent_noise=0.2).blur([torch.ones(100, 8, 16)])
    assert float((blurred - 1).std()) == pytest.approx(0.2, rel=0.05)


def test_weights_learn_in_half_precision_after_a_pass_that_lent_states(policy, batch):
    with torch.autocast("cpu", torch.bfloat16):
        loss = imitated(policy, batch, PASSED)["loss"]
    loss.backward()
    looks = [p for name, p in policy.memory.compressor.named_parameters() if "look" in name and p.dim() == 2]
    assert looks
    assert all(p.grad is not None and bool(p.grad.any()) for p in looks)


@pytest.mark.parametrize("rounds", [0, -1])
def test_no_round_of_gradients_is_refused(policy, batch, rounds):
    with pytest.raises(ValueError, match="'max_gradient_rounds' must be >= 1"):
        policy(batch, horizon=rounds)
    with pytest.raises(ValueError, match="'max_gradient_rounds' must be >= 1"):
        ReconstructionSpec().build(policy, rounds)(batch, 80.0, {})
