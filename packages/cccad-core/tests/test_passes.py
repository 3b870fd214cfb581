"""Windows that never end, windows cut by chance, and rows that write apart."""

import pytest
import torch
from attrs import evolve
from cccad_core.agent import Agent
from cccad_core.artefact import load_policy, save_policy
from cccad_core.compressors.full import FullSpec
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.compressors.window import WindowSpec
from cccad_core.context import ContextSpec
from cccad_core.losses import Pretraining
from cccad_core.passes import Apart
from cccad_core.policy import PolicySpec
from cccad_core.testing import SPACES, random_batch, relive
from cccad_core.tokens import TripleSpec

FULL = PolicySpec(context=ContextSpec(window=8), compressor=FullSpec(), width=16, num_heads=2)
GATED = evolve(FULL, compressor=GatedQuerySpec(num_latents=2, num_heads=2))


def triggered(trigger, **fields):
    return evolve(GATED, context=ContextSpec(window=8, trigger=trigger, **fields)).build(SPACES, seed=0)


def test_where_nothing_is_evicted_a_pass_is_one_window_of_the_same_weights():
    batch = random_batch(SPACES, size=2, length=50, seed=0)
    full, wide = (
        evolve(FULL, compressor=c, context=ContextSpec(window=w)) for c, w in ((FullSpec(), 8), (WindowSpec(), 50))
    )
    assert torch.equal(full.build(SPACES, 0)(batch).parameters, wide.build(SPACES, 0)(batch).parameters)


def test_where_nothing_is_evicted_a_life_grows_by_doubling_and_never_writes():
    agent = Agent(FULL.build(SPACES, seed=0))
    young = agent.begin(2)
    _, old = relive(agent, random_batch(SPACES, size=2, length=50, seed=0))
    assert old.num_bytes == 8 * young.num_bytes  # from 8 to 64 decisions
    assert old.num_writes.tolist() == [0, 0]


def test_chance_cuts_every_training_pass_anew_and_none_outside_of_training():
    policy, batch = triggered("random"), random_batch(SPACES, size=2, length=60, seed=0)
    starts = [[piece.start for piece in policy(batch).plan.pieces] for _ in range(3)]
    assert starts[0] != starts[1] != starts[2]
    policy.num_passes.zero_()
    assert [piece.start for piece in policy(batch).plan.pieces] == starts[0]
    policy.eval()
    assert policy(batch).num_writes == policy.context.num_writes(60) == 9


def test_the_number_of_training_passes_is_saved_with_the_weights(tmp_path):
    policy = triggered("random")
    for _ in range(4):
        policy(random_batch(SPACES, size=1, length=20, seed=0))
    save_policy(tmp_path, policy, train_task_ids=("room/1",), card="")
    assert int(load_policy(tmp_path).num_passes) == 4


def test_rows_write_where_their_own_episodes_end():
    batch = random_batch(SPACES, size=2, length=12, seed=0)  # episodes end at 6 in row 0, at 2 and 9 in row 1
    plan = triggered("episode")(batch).plan
    assert isinstance(plan, Apart)
    told = list(zip(plan.rows.tolist(), plan.starts.tolist(), plan.stops.tolist(), strict=True))
    assert told == [(0, 0, 6), (0, 6, 7), (0, 7, 12), (1, 0, 3), (1, 3, 9), (1, 9, 10), (1, 10, 12)]


@pytest.mark.parametrize("layout", [TripleSpec(), GATED.tokens], ids=["triple", "fused"])
def test_rows_that_write_apart_rebuild_what_they_would_alone(layout):
    context = ContextSpec(window=20, trigger="episode")
    policy = evolve(GATED, tokens=layout, context=context).build(SPACES, seed=0)
    batch = random_batch(SPACES, size=3, length=30, seed=0)
    together = Pretraining(policy)(batch, num_targets=90)
    alone = [policy.fold(batch.rows(slice(row, row + 1)))[0] for row in range(3)]
    num_real = sum(int(part.mask.sum()) for part in alone)
    reward = sum((part.losses["reward"] * part.mask).sum() for part in alone) / num_real
    torch.testing.assert_close(together["reconstruction_reward"], reward, rtol=1e-4, atol=1e-5)
    together["loss"].backward()
    assert policy.compressor.initial.grad.isfinite().all()


@pytest.mark.parametrize(("layout", "window", "num_rebuilt"), [(GATED.tokens, 8, 5), (TripleSpec(), 20, 5)])
def test_every_write_is_asked_for_all_transitions_that_its_tokens_tell_wholly(layout, window, num_rebuilt):
    policy = evolve(GATED, tokens=layout, context=ContextSpec(window=window)).build(SPACES, seed=0)
    rebuilt = policy.fold(random_batch(SPACES, size=2, length=20, seed=0))  # three writes of six decisions each
    assert sum(int(part.mask.sum()) for part in rebuilt) == 2 * 3 * num_rebuilt
    assert {part.mask.shape[1] for part in rebuilt} == {num_rebuilt}
