"""Windows that never end, windows cut by chance, and rows that write at their own decisions."""

import pytest
import torch
from attrs import evolve
from cccad_core.agent import Agent
from cccad_core.compressors.full import FullSpec
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.compressors.window import WindowSpec
from cccad_core.laws.noise import SPACES, random_batch
from cccad_core.laws.policy import relive
from cccad_core.layouts import TripleSpec
from cccad_core.memory.compressed import CompressedSpec, compressed, fold
from cccad_core.memory.moment import Moment
from cccad_core.memory.triggers import EpisodeTrigger, FullTrigger, RandomTrigger
from cccad_core.memory.windows import RowWindows, SharedWindows
from cccad_core.objectives.reconstruction import ReconstructionSpec, rebuild
from cccad_core.policy import PolicySpec

FULL = PolicySpec(memory=CompressedSpec(window=8, compressor=FullSpec(), num_heads=2), width=16)
GATED = evolve(FULL, memory=evolve(FULL.memory, compressor=GatedQuerySpec(num_latents=2, num_heads=2)))


def triggered(trigger):
    return evolve(GATED, memory=evolve(GATED.memory, window=8, trigger=trigger)).build(SPACES, seed=0)


def rebuilt_of(policy, batch):
    decisions = policy(batch)
    return rebuild(policy, decisions.writes, batch)


def test_where_nothing_is_evicted_a_pass_is_one_window_of_the_same_weights():
    batch = random_batch(SPACES, size=2, length=50, seed=0)
    full, wide = (
        evolve(FULL, memory=evolve(FULL.memory, window=w, compressor=c))
        for c, w in ((FullSpec(), 8), (WindowSpec(), 50))
    )
    grown, fixed = (spec.build(SPACES, 0) for spec in (full, wide))
    assert torch.equal(grown(batch).ask(grown.head), fixed(batch).ask(fixed.head))


def test_where_nothing_is_evicted_a_life_grows_by_doubling_and_never_writes():
    agent = Agent(FULL.build(SPACES, seed=0))
    young = agent.begin(2)
    _, old = relive(agent, random_batch(SPACES, size=2, length=50, seed=0))
    assert old.num_bytes == 8 * young.num_bytes  # from 8 to 64 decisions
    assert old.num_writes.tolist() == [0, 0]


def starts(policy, batch, moment):
    return [window.start for window in policy(batch, moment=moment).writes.windows.pieces]


def test_chance_cuts_every_update_anew_and_none_without_a_seed():
    policy, batch = triggered(RandomTrigger()), random_batch(SPACES, size=2, length=60, seed=0)
    first, second, again = (starts(policy, batch, Moment(shared_seed=seed)) for seed in (0, 1, 0))
    assert first == again != second
    assert policy(batch).writes.most_writes == policy.memory.context.num_writes(60) == 9


def test_processes_of_one_update_cut_alike_though_they_draw_apart():
    policy, batch = triggered(RandomTrigger()), random_batch(SPACES, size=2, length=60, seed=0)
    assert starts(policy, batch, Moment(seed=1, shared_seed=5)) == starts(policy, batch, Moment(seed=2, shared_seed=5))


def test_rows_write_where_their_own_episodes_end():
    batch = random_batch(SPACES, size=2, length=12, seed=0)  # episodes end at 6 in row 0, at 2 and 9 in row 1
    windows = triggered(EpisodeTrigger())(batch).writes.windows
    assert isinstance(windows, RowWindows)
    bounds = list(zip(windows.rows.tolist(), windows.starts.tolist(), windows.stops.tolist(), strict=True))
    assert bounds == [(0, 0, 6), (0, 6, 7), (0, 7, 12), (1, 0, 3), (1, 3, 9), (1, 9, 10), (1, 10, 12)]
    assert windows.num_writes.tolist() == [2, 3]
    assert windows.newest.tolist() == [7, 10]


def test_rows_that_write_together_are_the_same_with_the_geometry_of_rows_apart():
    """One fold serves both: where all rows cut alike, slices and indices give the same decisions and gradients."""
    policy = triggered(FullTrigger()).double()
    batch = random_batch(SPACES, size=3, length=40, seed=0)
    batch = evolve(batch, mask=torch.arange(40) < torch.tensor([40, 33, 12])[:, None], rewards=batch.rewards.double())
    tokens, outcomes = policy.layout.sequence(batch), []
    for windows in (
        SharedWindows(policy.memory.context.cut(40), 3, 1, is_padded=True),
        RowWindows([policy.memory.context.cut(40)] * 3, 1, batch.mask.device),
    ):
        policy.zero_grad()
        compressor, think = policy.memory.compressor, policy.memory.backbone.think
        writes = windows.writes(tokens, batch.mask)
        reads = fold(compressor, writes, compressor.begin(batch.size), think=think, horizon=2).reads
        hidden = [policy.memory.backbone(*shown) for shown in windows.shown(windows.prefixes(reads), tokens, None)]
        decided = windows.in_time([policy.head(each) for each in hidden])
        decided.square().mean().backward(retain_graph=True)
        outcomes.append((decided, [p.grad.clone() for p in policy.memory.compressor.parameters()]))
    torch.testing.assert_close(*outcomes)


def test_flags_hold_the_ends_of_real_episodes_and_whether_there_is_padding():
    batch = random_batch(SPACES, size=2, length=12, seed=0)
    assert not batch.flags().is_padded
    padded = evolve(batch, mask=torch.arange(12) < torch.tensor([12, 5])[:, None])
    assert padded.flags().is_padded
    assert [row.nonzero()[:, 0].tolist() for row in padded.flags().ended] == [[6], [2]]


@pytest.mark.parametrize("layout", [TripleSpec(), GATED.tokens], ids=["triple", "fused"])
def test_rows_that_write_apart_rebuild_what_they_would_alone(layout):
    memory = evolve(GATED.memory, window=20, trigger=EpisodeTrigger())
    policy = evolve(GATED, tokens=layout, memory=memory).build(SPACES, seed=0)
    batch = random_batch(SPACES, size=3, length=30, seed=0)
    together = ReconstructionSpec().build(policy)(batch, 90.0, {})
    alone = [rebuilt_of(policy, batch.rows(slice(row, row + 1)))[0] for row in range(3)]
    num_real = sum(int(part.mask.sum()) for part in alone)
    reward = sum((part.losses["reward"] * part.mask).sum() for part in alone) / num_real
    torch.testing.assert_close(together["reconstruction_reward"], reward, rtol=1e-4, atol=1e-5)
    together["loss"].backward()
    initial = compressed(policy.memory).compressor.get_parameter("initial")
    assert initial.grad is not None
    assert initial.grad.isfinite().all()


@pytest.mark.parametrize(("layout", "window", "num_rebuilt"), [(GATED.tokens, 8, 5), (TripleSpec(), 20, 5)])
def test_every_write_is_asked_for_all_transitions_that_its_tokens_tell_wholly(layout, window, num_rebuilt):
    policy = evolve(GATED, memory=evolve(GATED.memory, window=window), tokens=layout).build(SPACES, seed=0)
    rebuilt = rebuilt_of(policy, random_batch(SPACES, size=2, length=20, seed=0))  # three writes of six decisions each
    assert sum(int(part.mask.sum()) for part in rebuilt) == 2 * 3 * num_rebuilt
    assert {part.mask.shape[1] for part in rebuilt} == {num_rebuilt}
