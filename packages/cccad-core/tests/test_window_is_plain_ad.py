"""The policy that remembers nothing is plain Algorithm Distillation: a causal transformer over the newest tokens."""

import pytest
import torch
from cccad_core.compressors.window import WindowSpec
from cccad_core.context import ContextSpec
from cccad_core.policy import PolicySpec
from cccad_core.testing import SPACES, random_batch
from cccad_core.tokens import FusedSpec, TransitionSpec
from einops import rearrange
from torch.nn.functional import layer_norm, relu

WINDOW = 12


def build(tokens, carry=0):
    context = ContextSpec(window=WINDOW, carry=carry)
    spec = PolicySpec(tokens=tokens, context=context, compressor=WindowSpec(), width=16, num_heads=2)
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
    for block in policy.backbone.blocks:
        qkv = normalised(x, block.norm_attention) @ block.attention.qkv.weight.T
        q, k, v = rearrange(qkv, "b n (three h c) -> three b h n c", three=3, h=2)
        scores = rotated(q) @ rotated(k).mT / q.shape[-1] ** 0.5
        mixed = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        x = x + rearrange(mixed, "b h n c -> b n (h c)") @ block.attention.out.weight.T
        first, _, second = block.mlp
        x = x + relu(normalised(x, block.norm_mlp) @ first.weight.T + first.bias) @ second.weight.T + second.bias
    return normalised(x, policy.backbone.norm) @ policy.head.logits.weight.T + policy.head.logits.bias


def test_a_pass_within_one_window_is_bit_for_bit_a_causal_pass_over_the_tokens():
    policy, batch = build(FusedSpec()), random_batch(SPACES, size=3, length=WINDOW, seed=0)
    hidden, _ = policy.backbone.run(policy.layout.sequence(batch), torch.arange(WINDOW), None)
    assert torch.equal(policy(batch).parameters, policy.head(hidden))


def test_a_pass_within_one_window_is_the_transformer_of_the_papers():
    policy, batch = build(FusedSpec()), random_batch(SPACES, size=3, length=WINDOW, seed=0)
    logits = plain_transformer(policy, policy.layout.sequence(batch))
    torch.testing.assert_close(policy(batch).parameters, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("carry", [0, 5])
def test_a_rolling_pass_is_plain_distillation_over_each_truncated_window(carry):
    policy, batch = build(FusedSpec(), carry), random_batch(SPACES, size=2, length=40, seed=1)
    tokens, parameters = policy.layout.sequence(batch), policy(batch).parameters
    pieces = policy.context.pieces(batch.length)
    assert len(pieces) > 3
    for piece in pieces:
        logits = plain_transformer(policy, tokens[:, piece.raw_start : piece.stop])[:, piece.start - piece.raw_start :]
        torch.testing.assert_close(parameters[:, piece.start : piece.stop], logits, rtol=1e-4, atol=1e-5)


def test_a_query_decides_as_if_it_stood_last_behind_the_transitions_before_it():
    policy, batch = build(TransitionSpec()), random_batch(SPACES, size=2, length=WINDOW, seed=2)
    transitions, queries = policy.layout.sequence(batch), policy.layout.asking(batch.observations)
    parameters = policy(batch).parameters
    for t in range(WINDOW):
        alone = torch.cat([transitions[:, :t], queries[:, t : t + 1]], 1)
        logits = plain_transformer(policy, alone)[:, -1]
        torch.testing.assert_close(parameters[:, t], logits, rtol=1e-4, atol=1e-5)
