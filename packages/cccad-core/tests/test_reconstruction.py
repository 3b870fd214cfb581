"""The latents can be asked for real fields; what they answer is measured per field, and asking teaches them."""

import pytest
import torch
from attrs import evolve
from cccad_core.batch import HistoryBatch
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.heads.reconstruction import Rebuilt, Reconstruction
from cccad_core.laws.noise import random_batch
from cccad_core.layouts import TransitionSpec
from cccad_core.memory.compressed import CompressedSpec, compressed
from cccad_core.objectives.imitation import ImitationSpec
from cccad_core.objectives.reconstruction import ReconstructionSpec, rebuild, rebuilt_losses
from cccad_core.objectives.terms import ReconstructionTerm
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Box, Dict, Discrete, MultiDiscrete, Spaces, Tuple

SPACES = Spaces(observation=Discrete(4), action=Discrete(3))
SPEC = PolicySpec(
    memory=CompressedSpec(window=6, compressor=GatedQuerySpec(num_latents=2, num_heads=2), num_layers=1, num_heads=2),
    tokens=TransitionSpec(),
    width=16,
)


def one_action_a_life(size, generator):
    """Return lives in which one action is repeated and tells every reward, and observations are noise."""
    batch = random_batch(SPACES, size=size, length=9, seed=int(torch.randint(10_000, (), generator=generator)))
    habit = torch.randint(3, (size, 1), generator=generator).expand(-1, 9)
    moved = (batch.observations + habit[..., None]) % 4
    return evolve(batch, actions=habit, rewards=(habit == 2).float(), next_observations=moved)


def losses_of(policy, batch):
    with torch.no_grad():
        return {name: float(value) for name, value in ReconstructionSpec().build(policy)(batch, 1.0, {}).items()}


def test_it_learns_to_rebuild_what_was_folded_in():
    policy, generator = SPEC.build(SPACES, seed=0), torch.Generator().manual_seed(0)
    fresh = one_action_a_life(128, torch.Generator().manual_seed(1))
    before, objective = losses_of(policy, fresh), ReconstructionSpec().build(policy)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        objective(one_action_a_life(32, generator), 1.0, {})["loss"].backward()
        optimizer.step()
    after = losses_of(policy, fresh)
    assert after["loss"] < 0.3 * before["loss"]
    assert after["reconstruction_action_accuracy"] > 0.95
    assert after["reconstruction_reward_accuracy"] > 0.95
    assert after["reconstruction_next_observation_accuracy"] > 0.8


def test_every_accuracy_is_a_share_and_the_loss_is_the_sum_over_fields():
    losses = losses_of(SPEC.build(SPACES, seed=0), one_action_a_life(8, torch.Generator()))
    fields = ("action", "reward", "next_observation")
    assert all(0 <= losses[f"reconstruction_{name}_accuracy"] <= 1 for name in fields)
    assert losses["loss"] == pytest.approx(sum(losses[f"reconstruction_{name}"] for name in fields), rel=1e-5)


def test_real_fields_are_told_by_squared_error_and_have_no_accuracy_but_the_reward():
    spaces = Spaces(observation=Box(shape=(2,), low=-1.0, high=1.0), action=Box(shape=(1,), low=-1.0, high=1.0))
    losses = losses_of(SPEC.build(spaces, seed=0), random_batch(spaces, size=3, length=9, seed=0))
    assert [name for name in losses if name.endswith("_accuracy")] == ["reconstruction_reward_accuracy"]
    assert losses["reconstruction_next_observation"] > 0


def test_asking_teaches_every_part_of_the_compressor():
    policy = SPEC.build(SPACES, seed=0)
    ReconstructionSpec().build(policy)(one_action_a_life(8, torch.Generator()), 1.0, {})["loss"].backward()
    compressor = compressed(policy.memory).compressor
    silent = [name for name, p in compressor.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert silent == []


def test_folding_asks_after_every_write_for_all_that_it_folded():
    policy = SPEC.build(SPACES, seed=0)
    batch = one_action_a_life(5, torch.Generator())
    writes = policy(batch).writes
    assert writes.most_writes == 2
    rebuilt = rebuild(policy, writes, batch)
    assert sum(r.mask.numel() for r in rebuilt) == 5 * 8  # two writes of four transitions
    spec = ImitationSpec(reconstruction=ReconstructionTerm(weight=1.0))
    alone = ReconstructionSpec().build(policy)(batch, 1.0, {})
    beside = spec.build(policy)(batch, 1.0, spec.weights(0.0))
    torch.testing.assert_close(alone["reconstruction"], rebuilt_losses(rebuilt)["reconstruction"])
    torch.testing.assert_close(beside["reconstruction"], rebuilt_losses(rebuilt)["reconstruction"])


def test_fields_are_averaged_over_real_transitions_by_hand():
    losses, hits = torch.tensor([[1.0, 2.0], [3.0, 100.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    mask = torch.tensor([[True, True], [True, False]])
    rebuilt = Rebuilt(
        losses={"action": losses},
        hits={"action": hits},
        values={"action": torch.tensor([[7, 4], [4, 7]])},
        rewarded=torch.tensor([[False, False], [True, True]]),
        mask=mask,
    )
    told = rebuilt_losses([rebuilt])
    assert float(told["reconstruction_action"]) == pytest.approx(2.0)
    assert float(told["reconstruction_action_accuracy"]) == pytest.approx(2 / 3)
    assert float(told["reconstruction_action_majority"]) == pytest.approx(2 / 3)  # 4 twice, and the 7 in the padding
    weighted = rebuilt_losses([rebuilt], reward_weighted=True)
    assert float(weighted["reconstruction_action"]) == pytest.approx((3.0 + (1.0 + 2.0) / 2) / 2)
    assert weighted["reconstruction_action_accuracy"] == told["reconstruction_action_accuracy"]


def test_the_majority_baseline_is_what_always_telling_the_most_common_value_gives():
    spaces = Spaces(observation=MultiDiscrete((3, 5)), action=Discrete(3))
    batch = random_batch(spaces, size=6, length=9, seed=3)
    losses = losses_of(SPEC.build(spaces, seed=0), batch)
    folded = batch.at(slice(0, 8))  # two writes of four transitions
    for name, values in (("action", folded.actions[..., None]), ("next_observation", folded.next_observations)):
        rows = [tuple(row) for row in values.flatten(0, 1).tolist()]
        share = max(rows.count(row) for row in rows) / len(rows)
        assert losses[f"reconstruction_{name}_majority"] == pytest.approx(share, abs=1e-5)


def test_a_batch_splits_and_joins_by_rows():
    batch = random_batch(SPACES, size=4, length=3, seed=0)
    again = HistoryBatch.join([batch.rows(slice(0, 1)), batch.rows(slice(1, 4))])
    assert torch.equal(again.observations, batch.observations)
    assert torch.equal(again.mask, batch.mask)


def test_what_is_asked_about_one_transition_tells_nothing_of_another():
    """Else neighbouring observations give away the moves between them, and the latents need not remember."""
    decoder = Reconstruction(PolicySpec(width=16).encoders(SPACES), 2)
    latents = torch.randn(3, 4, 16)
    batch = random_batch(SPACES, size=3, length=6, seed=0)
    elsewhere = batch.observations.clone()
    elsewhere[:, 1:] = 0
    with torch.no_grad():
        before = decoder(latents, batch).losses
        after = decoder(latents, evolve(batch, observations=elsewhere)).losses
    for name, loss in before.items():
        assert torch.equal(loss[:, 0], after[name][:, 0]), name


def test_parts_of_an_observation_are_rebuilt_together_and_images_in_unit_range():
    grid = Box(shape=(2,), low=0, high=255, dtype="uint8")
    spaces = Spaces(observation=Dict({"image": grid, "room": Discrete(3)}), action=MultiDiscrete((2, 2)))
    decoder = Reconstruction(PolicySpec(width=16).encoders(spaces), 2)
    batch = random_batch(spaces, size=2, length=5, seed=0)
    rebuilt = decoder(torch.randn(2, 3, 16), batch)
    assert set(rebuilt.hits) == {"action", "reward"}
    assert torch.equal(rebuilt.values["action"], batch.actions[..., 0] * 2 + batch.actions[..., 1])
    field, hidden = decoder.next_observation, torch.randn(2, 5, 16)
    guess = field.predict(hidden)
    values = batch.next_observations
    image = (guess[..., :2] - values[..., :2] / 255).square().mean(-1)
    room = torch.nn.functional.cross_entropy(guess[..., 2:].movedim(-1, 1), values[..., 2].long(), reduction="none")
    loss, right = field(hidden, values)
    torch.testing.assert_close(loss, image + room)
    assert right is None


def test_values_of_several_discrete_parts_are_told_apart():
    space = Tuple((MultiDiscrete((3, 2)), Discrete(4)))
    values = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(4))[None]
    assert (
        len(
            Reconstruction(PolicySpec().encoders(Spaces(observation=space, action=Discrete(2))), 2)
            .next_observation.number(values)
            .unique()
        )
        == 24
    )


def test_a_large_image_is_rebuilt_as_means_over_parts_of_it_wherever_its_channels_are():
    photo = torch.arange(16 * 8 * 3).reshape(1, 1, 16, 8, 3) % 256
    means = photo.reshape(8, 2, 8, 3).float().mean(1).movedim(-1, 0).flatten() / 255
    for shape, image in (((16, 8, 3), photo), ((3, 16, 8), photo.movedim(-1, 2))):
        space = Box(shape=shape, low=0, high=255, dtype="uint8")
        field = Reconstruction(PolicySpec().encoders(Spaces(observation=space, action=Discrete(2))), 2).next_observation
        assert field.predict.out_features == 8 * 8 * 3
        hidden = torch.randn(1, 1, 32)
        loss, _ = field(hidden, image.flatten(2).to(torch.uint8))
        torch.testing.assert_close(loss[0, 0], (field.predict(hidden)[0, 0] - means).square().mean())
