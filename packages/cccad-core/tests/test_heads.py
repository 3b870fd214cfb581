"""Likelihoods by hand, and draws that depend on the generator alone."""

import math

import pytest
import torch
from cccad_core.heads import build_head
from cccad_core.spaces import Box, Discrete, MultiDiscrete


def test_discrete_nats_are_minus_the_log_of_the_softmax():
    head = build_head(Discrete(3), 4)
    logits = torch.tensor([[[0.0, math.log(2.0), math.log(5.0)], [0.0, 0.0, 0.0]]])
    nats = head.nats(logits, torch.tensor([[2, 0]]))
    torch.testing.assert_close(nats, torch.tensor([[math.log(8 / 5), math.log(3.0)]]))
    assert head.hits(logits, torch.tensor([[2, 1]])).tolist() == [[1.0, 0.0]]


def test_gaussian_nats_are_those_of_the_density():
    head = build_head(Box(shape=(2,), low=-1.0, high=1.0), 4)
    parameters = torch.tensor([[[1.0, 0.0, math.log(2.0), 0.0]]])  # means 1 and 0, deviations 2 and 1
    nats = head.nats(parameters, torch.tensor([[[3.0, 0.0]]]))
    torch.testing.assert_close(nats, torch.tensor([[0.5 + math.log(2.0) + math.log(2 * math.pi)]]))


@pytest.mark.parametrize("space", [Discrete(3), Box(shape=(2,), low=-1.0, high=1.0)], ids=["discrete", "box"])
def test_draws_repeat_with_the_generator_and_greedy_ones_need_none(space):
    head = build_head(space, 4)
    parameters = head(torch.randn(1, 50, 4))[0]
    draws = [head.draw(parameters, torch.Generator().manual_seed(seed), greedy=False) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(head.draw(parameters, None, greedy=True), head.draw(parameters, None, greedy=True))


def test_drawn_actions_have_the_probabilities_of_the_logits():
    head = build_head(Discrete(2), 4)
    logits = torch.tensor([0.0, math.log(3.0)]).expand(20_000, 2)
    drawn = head.draw(logits, torch.Generator().manual_seed(0), greedy=False).float().mean()
    assert abs(float(drawn) - 0.75) < 0.02


def test_an_action_space_without_a_head_is_refused():
    with pytest.raises(ValueError, match="actions must be 'discrete' or 'box'"):
        build_head(MultiDiscrete((2, 2)), 4)
