"""Likelihoods by hand, and draws that depend on the generator alone."""

import math

import pytest
import torch
from cccad_core.errors import SpaceError
from cccad_core.fitting import head_for
from cccad_core.heads.base import HasDivergence
from cccad_core.heads.categorical import CategoricalSpec
from cccad_core.heads.gaussian import GaussianSpec
from cccad_core.heads.parts import PartsHeadSpec
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Box, Dict, Discrete, MultiDiscrete, Spaces, Tuple
from torch.distributions import AffineTransform, Normal, TanhTransform, TransformedDistribution


def built(space, width):
    """Return a fresh head for actions of *space*."""
    return head_for(space).build(space, width)


def test_discrete_nats_are_minus_the_log_of_the_softmax():
    head = built(Discrete(3), 4)
    logits = torch.tensor([[[0.0, math.log(2.0), math.log(5.0)], [0.0, 0.0, 0.0]]])
    nats = head.nats(logits, torch.tensor([[2, 0]]))
    torch.testing.assert_close(nats, torch.tensor([[math.log(8 / 5), math.log(3.0)]]))
    assert head.measured(logits, torch.tensor([[2, 1]])).tolist() == [[1.0, 0.0]]


def test_gaussian_nats_of_an_unbounded_action_are_those_of_the_density():
    head = built(Box(shape=(2,), low=float("-inf"), high=(float("inf"), 1.0)), 4)
    parameters = torch.tensor([[[1.0, 0.0, math.log(2.0), 0.0]]])  # means 1 and 0, deviations 2 and 1
    nats = head.nats(parameters, torch.tensor([[[3.0, 0.0]]]))
    torch.testing.assert_close(nats, torch.tensor([[0.5 + math.log(2.0) + math.log(2 * math.pi)]]))


def squashed(parameters, space):
    """Return the same distribution by torch: a Gaussian, tanh, then scaled into the bounds."""
    low, high = (torch.tensor(bound) for bound in space.bounds())
    mean, log_std = parameters.chunk(2, -1)
    into = [TanhTransform(cache_size=1), AffineTransform((low + high) / 2, (high - low) / 2)]
    return TransformedDistribution(Normal(mean, log_std.exp()), into)


BOUNDED = Box(shape=(2,), low=(-1.0, 0.0), high=(1.0, 4.0))


def test_nats_of_a_bounded_action_are_those_of_torch_with_the_slope_of_the_squashing():
    parameters = torch.tensor([[[0.3, -0.8, -0.5, 0.4], [1.5, 0.0, 0.0, -2.0]]])
    actions = torch.tensor([[[0.5, 3.9], [-0.97, 2.0]]])
    nats = built(BOUNDED, 4).nats(parameters, actions)
    torch.testing.assert_close(nats, -squashed(parameters, BOUNDED).log_prob(actions).sum(-1))


def test_bounded_draws_stay_in_their_bounds_and_are_as_likely_as_torch_draws_them():
    head, parameters = built(BOUNDED, 4), torch.tensor([0.5, -1.0, 0.0, 0.5]).expand(50_000, 4)
    drawn = head.draw(parameters, torch.Generator().manual_seed(0), greedy=False)
    low, high = (torch.tensor(bound) for bound in BOUNDED.bounds())
    assert ((drawn >= low) & (drawn <= high)).all()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        other = squashed(parameters, BOUNDED).sample()
    at = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    torch.testing.assert_close(drawn.quantile(at, 0), other.quantile(at, 0), atol=0.03, rtol=0.0)


def test_an_action_at_its_bound_has_finite_nats_and_teaches_the_mean_towards_it():
    head, parameters = built(BOUNDED, 4), torch.zeros(1, 1, 4, requires_grad=True)
    nats = head.nats(parameters, torch.tensor([[[1.0, 0.0]]]))
    [gradient] = torch.autograd.grad(nats.sum(), parameters)
    assert nats.isfinite().all()
    assert gradient[0, 0, 0] < 0 < gradient[0, 0, 1]


@pytest.mark.parametrize("space", [Discrete(3), Box(shape=(2,), low=-1.0, high=1.0)], ids=["discrete", "box"])
def test_draws_repeat_with_the_generator_and_greedy_ones_need_none(space):
    head = built(space, 4)
    parameters = head(torch.randn(1, 50, 4))[0]
    draws = [head.draw(parameters, torch.Generator().manual_seed(seed), greedy=False) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(head.draw(parameters, None, greedy=True), head.draw(parameters, None, greedy=True))


def test_drawn_actions_have_the_probabilities_of_the_logits():
    head = built(Discrete(2), 4)
    logits = torch.tensor([0.0, math.log(3.0)]).expand(20_000, 2)
    drawn = head.draw(logits, torch.Generator().manual_seed(0), greedy=False).float().mean()
    assert abs(float(drawn) - 0.75) < 0.02


def test_the_nats_of_several_choices_are_the_sum_of_theirs():
    head = built(MultiDiscrete((2, 3)), 4)
    first, second = torch.tensor([0.0, math.log(3.0)]), torch.tensor([0.0, math.log(2.0), math.log(5.0)])
    parameters = torch.cat([first, second])[None, None]
    nats = head.nats(parameters, torch.tensor([[[0, 2]]]))
    torch.testing.assert_close(nats, torch.tensor([[math.log(4.0) + math.log(8 / 5)]]))
    assert head.measured(parameters, torch.tensor([[[1, 2]]])).item() == 1
    assert head.measured(parameters, torch.tensor([[[0, 2]]])).item() == 0
    assert head.draw(parameters[0], None, greedy=True).tolist() == [[1, 2]]


@pytest.mark.parametrize("space", [Discrete(6), MultiDiscrete((2, 3))], ids=["one", "several"])
def test_a_divergence_is_the_mean_difference_of_nats_under_what_is_wanted(space):
    head = built(space, 4)
    generator = torch.Generator().manual_seed(0)
    wanted, parameters = (torch.randn(1, 1, head.logits.out_features, generator=generator) for _ in range(2))
    actions = torch.cartesian_prod(torch.arange(2), torch.arange(3)) if space.num_features == 2 else torch.arange(6)
    nats = [head.nats(each.expand(1, 6, -1), actions[None])[0] for each in (parameters, wanted)]
    by_hand = (nats[1].neg().exp() * (nats[0] - nats[1])).sum()
    torch.testing.assert_close(head.divergence(parameters, wanted)[0, 0], by_hand)


PARTS = Dict({"move": Discrete(3), "hand": Tuple((Box((2,), -1.0, 1.0), MultiDiscrete((2, 2))))})


def test_the_nats_of_parts_are_the_sum_of_theirs_and_all_discrete_ones_must_be_right():
    head = built(PARTS, 4)
    assert [leaf.path for leaf in head.leaves] == ["hand/0", "hand/1", "move"]
    parameters = torch.randn(2, 5, sum(head.widths), generator=torch.Generator().manual_seed(0))
    arms, fingers, move = head.parts
    of_arms, of_fingers, of_move = parameters.split(head.widths, -1)
    actions = torch.tensor([0.5, -0.5, 1.0, 0.0, 2.0]).expand(2, 5, 5)
    nats = arms.nats(of_arms, actions[..., :2]) + fingers.nats(of_fingers, actions[..., 2:4].long())
    nats = nats + move.nats(of_move, actions[..., 4].long())
    torch.testing.assert_close(head.nats(parameters, actions), nats)
    right = fingers.measured(of_fingers, actions[..., 2:4].long()) * move.measured(of_move, actions[..., 4].long())
    assert torch.equal(head.measured(parameters, actions), right)
    assert not isinstance(head, HasDivergence)
    assert isinstance(built(Tuple((Discrete(2), MultiDiscrete((2, 2)))), 4), HasDivergence)


def test_real_parts_alone_are_measured_by_their_squared_error_over_all_features():
    head = built(Tuple((Box((2,), -1.0, 1.0), Box((1,), -1.0, 1.0))), 4)
    actions = torch.tensor([[[0.5, 0.5, -1.0]]])
    measured = head.measured(torch.zeros(1, 1, 6), actions)  # the mode is 0 everywhere
    torch.testing.assert_close(measured, torch.tensor([[0.5]]))
    assert head.measure == "squared_error"


def test_a_divergence_of_parts_is_the_sum_of_theirs():
    head = built(Tuple((Discrete(2), MultiDiscrete((2, 3)))), 4)
    parameters, wanted = torch.randn(2, 1, 1, 7, generator=torch.Generator().manual_seed(0))
    first, second = head.parts
    by_hand = first.divergence(parameters[..., :2], wanted[..., :2])
    by_hand = by_hand + second.divergence(parameters[..., 2:], wanted[..., 2:])
    torch.testing.assert_close(head.divergence(parameters, wanted), by_hand)


def test_a_leaf_that_is_not_there_or_is_not_taken_is_named():
    with pytest.raises(SpaceError, match="there is no leaf 'feet' in this space; it has hand/0, hand/1, move"):
        PartsHeadSpec(leaves={"feet": CategoricalSpec()}).build(PARTS, 4)
    with pytest.raises(SpaceError, match=r"the head 'gaussian' of .* does not take the leaf 'move', a discrete space"):
        PartsHeadSpec(leaves={"move": GaussianSpec()}).build(PARTS, 4)


def test_images_are_no_actions():
    spaces = Spaces(observation=Discrete(3), action=Box((2, 2), 0, 255, dtype="uint8"))
    with pytest.raises(SpaceError, match="no head of ours takes a box space; 'head' must name a part that does"):
        PolicySpec().build(spaces, seed=0)


def test_a_head_that_does_not_take_the_action_space_is_refused_with_one_that_does():
    spaces = Spaces(observation=Discrete(3), action=Discrete(2))
    wanted = r"the head 'gaussian' of cccad-core [\d.]+ does not take a discrete space; 'categorical' does"
    with pytest.raises(SpaceError, match=wanted):
        PolicySpec(head=GaussianSpec()).build(spaces, seed=0)
