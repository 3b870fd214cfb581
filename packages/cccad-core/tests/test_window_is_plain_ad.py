"""The policy that remembers nothing is plain Algorithm Distillation: a causal transformer over the newest tokens."""

import pytest
import torch
from cccad_core.agent import Agent
from cccad_core.compressors.full import FullSpec
from cccad_core.compressors.gru import GruSpec
from cccad_core.compressors.window import WindowSpec
from cccad_core.laws.noise import SPACES, random_batch
from cccad_core.laws.policy import relive
from cccad_core.layouts import FusedSpec, TransitionSpec, TripleSpec
from cccad_core.memory.compressed import CompressedSpec, compressed
from cccad_core.policy import PolicySpec
from einops import rearrange
from torch.nn.functional import layer_norm, relu

WINDOW = 12


def build(tokens, carry=0):
    memory = CompressedSpec(window=WINDOW, carry=carry, compressor=WindowSpec(), num_heads=2)
    spec = PolicySpec(tokens=tokens, memory=memory, width=16)
    return spec.build(SPACES, seed=5).eval().requires_grad_(False)


def rotated(x):
    """Turn pairs of features by their position's angle, as complex numbers; `b h n c`."""
    half = x.shape[-1] // 2
    frequency = 1000.0 ** (-torch.arange(half) / half)
    turn = torch.polar(torch.ones(()), torch.outer(torch.arange(x.shape[2]), frequency))
    turned = torch.complex(x[..., :half], x[..., half:]) * turn
    return torch.cat([turned.real, turned.imag], -1)


def normalised(x, norm):
    return layer_norm(x, x.shape[-1:], norm.weight, norm.bias)


def plain_transformer(policy, tokens):
    """Return action logits, `b n a`, written out from the papers with the policy's weights."""
    x, n = tokens, tokens.shape[1]
    future = torch.ones(n, n).triu(1).bool()
    for block in policy.memory.backbone.blocks:
        qkv = normalised(x, block.norm_attention) @ block.attention.qkv.weight.T
        q, k, v = rearrange(qkv, "b n (three h c) -> three b h n c", three=3, h=2)
        scores = rotated(q) @ rotated(k).mT / q.shape[-1] ** 0.5
        mixed = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        x = x + rearrange(mixed, "b h n c -> b n (h c)") @ block.attention.out.weight.T
        first, _, second = block.mlp
        x = x + relu(normalised(x, block.norm_mlp) @ first.weight.T + first.bias) @ second.weight.T + second.bias
    return normalised(x, policy.memory.backbone.norm) @ policy.head.logits.weight.T + policy.head.logits.bias


def test_a_pass_within_one_window_is_bit_for_bit_a_causal_pass_over_the_tokens():
    policy, batch = build(FusedSpec()), random_batch(SPACES, size=3, length=WINDOW, seed=0)
    hidden, _ = policy.memory.backbone.run(policy.layout.sequence(batch), torch.arange(WINDOW), None)
    assert torch.equal(policy(batch).ask(policy.head), policy.head(hidden))


def test_a_pass_within_one_window_is_the_transformer_of_the_papers():
    policy, batch = build(FusedSpec()), random_batch(SPACES, size=3, length=WINDOW, seed=0)
    logits = plain_transformer(policy, policy.layout.sequence(batch))
    torch.testing.assert_close(policy(batch).ask(policy.head), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("carry", [0, 5])
def test_a_rolling_pass_is_plain_distillation_over_each_truncated_window(carry):
    policy, batch = build(FusedSpec(), carry), random_batch(SPACES, size=2, length=40, seed=1)
    tokens, parameters = policy.layout.sequence(batch), policy(batch).ask(policy.head)
    pieces = policy.memory.context.cut(batch.length)
    assert len(pieces) > 3
    for piece in pieces:
        logits = plain_transformer(policy, tokens[:, piece.raw_start : piece.stop])[:, piece.start - piece.raw_start :]
        torch.testing.assert_close(parameters[:, piece.start : piece.stop], logits, rtol=1e-4, atol=1e-5)


def test_a_query_decides_as_if_it_stood_last_behind_the_transitions_before_it():
    policy, batch = build(TransitionSpec()), random_batch(SPACES, size=2, length=WINDOW, seed=2)
    transitions, queries = policy.layout.sequence(batch), policy.layout.asking(batch.observations)
    parameters = policy(batch).ask(policy.head)
    for t in range(WINDOW):
        alone = torch.cat([transitions[:, :t], queries[:, t : t + 1]], 1)
        logits = plain_transformer(policy, alone)[:, -1]
        torch.testing.assert_close(parameters[:, t], logits, rtol=1e-4, atol=1e-5)


def slid(policy, batch, *, cached=True):
    """Return the action logits of a life over *batch* whose window slides, `b t a`."""
    memory = policy.memory.sliding()
    return relive(Agent(policy, memory if cached else memory.uncached()), batch)[0]


@pytest.mark.parametrize("carry", [0, WINDOW // 2])
def test_a_sliding_window_decides_as_a_transformer_over_the_newest_tokens_alone(carry):
    policy, batch = build(FusedSpec(), carry), random_batch(SPACES, size=3, length=3 * WINDOW, seed=1)
    tokens, parameters = policy.layout.sequence(batch), slid(policy, batch)
    for t in range(batch.length):
        logits = plain_transformer(policy, tokens[:, max(0, t + 1 - WINDOW) : t + 1])[:, -1]
        torch.testing.assert_close(parameters[:, t], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [TransitionSpec(), TripleSpec()], ids=["transition", "triple"])
def test_a_sliding_window_decides_as_a_pass_over_the_newest_transitions_alone(tokens):
    policy, batch = build(tokens), random_batch(SPACES, size=2, length=3 * WINDOW, seed=4)
    parameters, room = slid(policy, batch), policy.memory.context.first_segment
    for t in range(batch.length):
        alone = policy(batch.at(slice(max(0, t + 1 - room), t + 1))).ask(policy.head)[:, -1]
        torch.testing.assert_close(parameters[:, t], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [FusedSpec(), TransitionSpec(), TripleSpec()], ids=["fused", "transition", "triple"])
def test_a_sliding_window_decides_with_its_cache_as_without(tokens):
    policy, batch = build(tokens, carry=1), random_batch(SPACES, size=2, length=2 * WINDOW, seed=8)
    torch.testing.assert_close(slid(policy, batch), slid(policy, batch, cached=False), rtol=1e-4, atol=1e-5)


def test_a_sliding_window_is_blind_to_what_has_left_it():
    policy, batch = build(FusedSpec()), random_batch(SPACES, size=2, length=3 * WINDOW, seed=6)
    before = slid(policy, batch)
    batch.observations[:, WINDOW] = (batch.observations[:, WINDOW] + 1) % 2
    after = slid(policy, batch)
    differs = (before != after).any(-1).any(0)
    assert differs[WINDOW : 2 * WINDOW].all()
    assert not differs[2 * WINDOW :].any()


@pytest.mark.parametrize("compressor", [GruSpec(num_latents=2), FullSpec()], ids=["latents", "full"])
def test_only_a_plain_window_slides(compressor):
    spec = PolicySpec(memory=CompressedSpec(window=WINDOW, compressor=compressor, num_heads=2), width=16)
    with pytest.raises(ValueError, match="only a plain window can slide, and this policy's memory"):
        compressed(spec.build(SPACES, seed=0).memory).sliding()
