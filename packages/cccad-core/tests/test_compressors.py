"""What each compressor remembers, worked out beside it in the plainest way."""

from typing import Any

import pytest
import torch
from cccad_core.compressors.accumulate import AccumulateSpec
from cccad_core.compressors.base import Segment
from cccad_core.compressors.delta import DeltaSpec
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.compressors.gru import GruSpec
from cccad_core.compressors.mean_pool import MeanPoolSpec
from cccad_core.compressors.retrieval import RetrievalSpec
from cccad_core.compressors.rmt import RmtSpec
from cccad_core.compressors.sink import SinkSpec
from torch.nn.functional import normalize

WIDTH = 8


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yield


def folded(compressor, *segments, masks=None):
    """Return the state after *segments*, `b s d` each."""
    state = compressor.begin(len(segments[0]))
    for index, tokens in enumerate(segments):
        state, _ = compressor.write(state, Segment(tokens=tokens, mask=masks and masks[index]))
    return state


def test_sinks_are_the_first_real_tokens_of_each_life_for_ever():
    compressor = SinkSpec(num_sinks=4).build(WIDTH)
    first, second, third = torch.randn(3, 2, 3, WIDTH)
    masks = [torch.tensor([[True, True, True], [True, False, False]]), None, None]
    state = folded(compressor, first, second, third, masks=masks)
    assert torch.equal(state["tokens"][0], torch.cat([first[0], second[0, :1]]))
    assert torch.equal(state["tokens"][1], torch.cat([first[1, :1], second[1]]))
    assert state["num_kept"].tolist() == [4, 4]


def test_the_averages_are_those_of_the_life_of_the_time_scales_and_of_the_newest_segment():
    compressor = MeanPoolSpec(half_lives_tokens=(2.0,), num_blocks=2).build(WIDTH)
    first, second = torch.randn(1, 5, WIDTH), torch.randn(1, 4, WIDTH)
    means = folded(compressor, first, second)["means"][0]
    torch.testing.assert_close(means[0], torch.cat([first, second], 1)[0].mean(0))
    fading, keep = compressor.initial[1], 0.5**0.5
    for token in torch.cat([first, second], 1)[0]:
        fading = keep * fading + (1 - keep) * token
    torch.testing.assert_close(means[1], fading)
    torch.testing.assert_close(means[2:], torch.stack([second[0, :2].mean(0), second[0, 2:].mean(0)]))


@pytest.mark.parametrize("spec", [MeanPoolSpec(num_blocks=0), GruSpec(), DeltaSpec(max_rms=100.0)])
def test_a_fold_over_tokens_does_not_care_where_segments_are_cut(spec):
    compressor, tokens = spec.build(WIDTH), torch.randn(2, 7, WIDTH)
    if isinstance(spec, DeltaSpec):
        compressor.place.scale.zero_()  # else it is told where in its segment each token stood
    whole, cut = folded(compressor, tokens), folded(compressor, tokens[:, :3], tokens[:, 3:])
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-4, atol=1e-5)


def test_the_delta_rule_in_closed_form_is_the_rule_token_by_token():
    compressor, tokens = DeltaSpec(num_latents=3, max_rms=100.0).build(WIDTH), torch.randn(1, 20, WIDTH)
    seen = compressor.norm(compressor.place(Segment(tokens=tokens)))[0]
    matrix: torch.Tensor = compressor.initial
    for token in seen:
        key, rate = normalize(compressor.key(token), dim=0), torch.sigmoid(compressor.rate(token))
        matrix = matrix + rate * torch.outer(key, compressor.value(token) - key @ matrix)
    torch.testing.assert_close(folded(compressor, tokens)["matrix"][0], matrix, rtol=1e-4, atol=1e-5)


def test_an_association_is_recalled_by_its_key_after_others_were_written():
    compressor: Any = DeltaSpec(num_latents=WIDTH, max_rms=100.0).build(WIDTH)
    compressor.place.scale.zero_()
    compressor.rate.bias.fill_(20.0)  # learn each pair at once
    compressor.norm = torch.nn.Identity()
    seen = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
    compressor.key.weight.copy_(torch.linalg.inv(seen).T)  # key i is the i-th unit vector
    matrix = folded(compressor, seen[None])["matrix"][0]
    torch.testing.assert_close(matrix, compressor.value(seen), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("at_bound", ["drop-oldest", "merge-oldest"])
def test_summaries_pile_up_and_at_the_bound_the_oldest_are_dropped_or_merged(at_bound):
    compressor = AccumulateSpec(num_summary=2, max_segments=3, num_heads=2, at_bound=at_bound).build(WIDTH)
    segments = torch.randn(5, 1, 4, WIDTH)
    states = [folded(compressor, *segments[:n])["summaries"][0] for n in range(1, 6)]
    made = [state[-2:] for state in states]  # each write's own summaries
    assert torch.equal(states[1], torch.cat([compressor.vacant[4:], made[0], made[1]]))
    assert torch.equal(states[2], torch.cat(made[:3]))
    oldest = torch.stack(made[:3]).mean(0) if at_bound == "merge-oldest" else made[2]
    torch.testing.assert_close(states[4], torch.cat([oldest, made[3], made[4]]))


def test_the_segments_most_like_the_newest_are_shown_and_only_they_get_a_gradient():
    compressor = RetrievalSpec(max_segments=4, top=1, tokens_per_segment=2, num_heads=2).build(WIDTH)
    keys = normalize(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.9, 0.1]]), dim=1)
    with torch.enable_grad():
        state = {
            "keys": torch.cat([keys, torch.zeros(4, WIDTH - 2)], 1)[None].requires_grad_(),
            "summaries": torch.randn(1, 4, 2, WIDTH).requires_grad_(),
            "num_kept": torch.tensor([3]),  # so the first place, the most alike, is empty
        }
        shown = compressor.read(state).square().sum()
    of_summaries, of_keys = torch.autograd.grad(shown, [state["summaries"], state["keys"]])
    reached = of_summaries[0].flatten(1).any(1)
    assert reached.tolist() == [False, True, False, True]
    assert of_keys[0].any(1).tolist() == [False, True, False, True]


def test_an_empty_bank_shows_learned_tokens():
    compressor = RetrievalSpec(num_heads=2).build(WIDTH)
    assert torch.equal(compressor.read(compressor.begin(2))[1], compressor.show(compressor.vacant))


def test_the_memory_that_the_backbone_writes_needs_a_backbone():
    compressor = RmtSpec().build(WIDTH)
    with pytest.raises(ValueError, match="'rmt' writes with the policy's backbone"):
        folded(compressor, torch.randn(1, 3, WIDTH))


def test_more_segments_than_the_bank_holds_cannot_be_shown():
    with pytest.raises(ValueError, match="'top' must be < max_segments = 2: 2"):
        RetrievalSpec(max_segments=2, top=2)


def test_costs_are_those_worked_out_by_hand():
    assert GatedQuerySpec(num_latents=2).build(WIDTH).state_bytes == 4 * 2 * WIDTH
    assert SinkSpec(num_sinks=3).build(WIDTH).state_bytes == 4 * 3 * WIDTH + 8
    gru = GruSpec(hidden_width=16).build(WIDTH)
    assert (gru.state_bytes, gru.flops_per_write(10)) == (4 * 16, 10 * 2 * 3 * 16 * (16 + WIDTH))


def gated(bias, **settings):
    """Return a `gated-query` whose gate is set by its bias alone."""
    compressor = GatedQuerySpec(num_latents=2, num_heads=2, gate_bias=bias, gate_cost=0.1, **settings).build(WIDTH)
    compressor.gate.open.weight.zero_()
    return compressor


def test_a_closed_gate_keeps_every_bit_and_an_open_one_costs():
    segment = Segment(tokens=torch.randn(3, 5, WIDTH))
    for bias, share in ((-9.0, 0.0), (9.0, 1.0)):
        compressor = gated(bias)
        before = compressor.begin(3)
        after, costs = compressor.write(before, segment)
        assert torch.equal(costs["gate_cost"], torch.full((3,), 0.1 * share))
        assert torch.equal(after["latents"], before["latents"]) == (share == 0.0)


def test_a_gate_that_is_not_stretched_never_closes():
    compressor = gated(-9.0, gate_stretch=0.0)
    before = compressor.begin(3)
    after, _ = compressor.write(before, Segment(tokens=torch.randn(3, 5, WIDTH)))
    assert not torch.equal(after["latents"], before["latents"])
