"""Batches: their shape follows the curriculum, their rows are shared out, and their number decides what is in them."""

import pytest
import torch
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.memory.compressed import CompressedSpec
from cccad_data import InlineSpec, NoisyOracleSpec, SamplerSpec, collect
from cccad_data.histories.dataset import Histories
from cccad_envs.darkroom import DarkroomSpec
from cccad_train.fit.batches import Batches
from cccad_train.fit.curricula import LinearSpec, NoneSpec
from cccad_train.fit.spec import TrainSpec

MEMORY = CompressedSpec(window=14, compressor=GatedQuerySpec(num_latents=2)).build(
    32, 1
)  # 12 decisions in every window


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    family = DarkroomSpec(size=3, horizon=5).build()
    source = NoisyOracleSpec(num_envs=2, env_steps=50).build()
    out = tmp_path_factory.mktemp("data")
    split = {"seed": 0, "held_out_frac": 0.2}
    collect(family, source, InlineSpec().build(), out=out, split=split, seed=0)
    return SamplerSpec().build(Histories.open(out), 0)


def batches(sampler, *, curriculum=None, rank=0, num_processes=1, **spec):
    return Batches(
        sampler=sampler,
        memory=MEMORY,
        curriculum=curriculum or NoneSpec(),
        spec=TrainSpec(**{"targets_per_update": 480, "num_writes": 3, **spec}),
        rank=rank,
        num_processes=num_processes,
    )


def test_as_many_stretches_are_taken_as_the_targets_ask_for(sampler):
    written = batches(sampler)
    batch, _, num_targets = written.batch(0)
    assert written.shape(0) == (10, 48)
    assert batch.observations.shape == (10, 48, 2)
    assert num_targets == float(batch.mask.sum()) == 480


def test_a_curriculum_changes_the_length_and_not_the_number_of_targets(sampler):
    written = batches(sampler, curriculum=LinearSpec(num_updates=9))
    assert [written.shape(update) for update in (0, 1, 2, 7, 8, 9)] == [
        *[(30, 16), (24, 20), (20, 24), (11, 44), (10, 48), (10, 48)],
    ]
    assert written.batch(1)[0].actions.shape == (24, 20)  # twelve decisions in the first window, eight in the last


def test_one_stretch_is_the_least(sampler):
    assert batches(sampler, targets_per_update=1).shape(0) == (1, 48)
    assert batches(sampler, targets_per_update=1, num_processes=2).shape(0) == (2, 48)


def test_a_batch_is_a_function_of_the_update_alone(sampler):
    first, second = batches(sampler), batches(sampler)
    first.batch(6)
    assert torch.equal(first.batch(7)[0].observations, second.batch(7)[0].observations)
    assert not torch.equal(first.batch(7)[0].observations, first.batch(8)[0].observations)


@pytest.mark.parametrize(("targets", "rows"), [(480, [5, 5]), (528, [5, 6])])
def test_processes_share_the_rows_of_one_global_batch(targets, rows, sampler):
    whole, _, num_targets = batches(sampler, targets_per_update=targets).batch(5)
    shares = [batches(sampler, targets_per_update=targets, rank=rank, num_processes=2).batch(5) for rank in (0, 1)]
    assert [share.size for share, *_ in shares] == rows
    assert torch.equal(torch.cat([share.actions for share, *_ in shares]), whole.actions)
    assert [of_targets for *_, of_targets in shares] == [num_targets / 2] * 2


def test_what_lies_beyond_a_history_is_not_a_target(sampler):
    batch, flags, num_targets = batches(sampler, num_writes=4).batch(0)  # stretches of 60 from histories of 50
    assert batch.mask.shape[1] == 60
    assert num_targets == batch.mask.shape[0] * 50
    assert flags.is_padded


def test_processes_draw_their_chance_apart_share_what_they_must_and_repeat_it(sampler):
    of_rank = [batches(sampler, rank=rank, num_processes=2) for rank in (0, 1, 0)]
    seeds = [[written.moment(update).seed for update in range(3)] for written in of_rank]
    assert len({*seeds[0], *seeds[1]}) == 6
    assert seeds[2] == seeds[0]
    shared = [[written.moment(update).shared_seed for update in range(3)] for written in of_rank]
    assert len({*shared[0], *seeds[0]}) == 6
    assert shared[0] == shared[1] == shared[2]


def test_observations_to_be_measured_are_real_and_the_same_in_every_process_and_stage(sampler):
    observations = batches(sampler).observations()
    assert 200 < len(observations) < 200 * 100  # lives of 50 env steps
    assert observations.max() < 3
    for other in (batches(sampler, rank=1, num_processes=2), batches(sampler, num_writes=1, targets_per_update=40)):
        assert torch.equal(other.observations(), observations)
