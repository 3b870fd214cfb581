"""The dense loss is the mean over real decisions, adds up over processes, and teaches memory through the writes."""

import pytest
import torch
from attrs import evolve
from cccad_core.batch import HistoryBatch
from cccad_core.compressors.full import FullSpec
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.compressors.window import WindowSpec
from cccad_core.laws.noise import SPACES, random_batch
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.objectives.imitation import ImitationSpec
from cccad_core.objectives.terms import AuxiliaryTerm, ReconstructionTerm, TeacherTerm
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Box, Discrete, MultiDiscrete, Spaces

SPEC = PolicySpec(
    memory=CompressedSpec(window=8, compressor=GatedQuerySpec(num_latents=2, num_heads=2), num_heads=2), width=16
)


@pytest.fixture
def policy():
    return SPEC.build(SPACES, seed=0)


@pytest.fixture
def batch():
    """Four histories, of which one ends early and one with the first window."""
    batch = random_batch(SPACES, size=4, length=20, seed=0)
    return evolve(batch, mask=torch.arange(20) < torch.tensor([20, 13, 20, 6])[:, None])


def losses_of(policy, batch, num_targets, *, others=None, **terms):
    spec = ImitationSpec(**terms)
    return spec.build(policy, others=others)(batch, num_targets, spec.weights(0.0))


def rebuilding(weight, **options):
    return {"reconstruction": ReconstructionTerm(weight=weight, **options)}


def gradient(policy, batch, num_targets, **terms):
    policy.zero_grad()
    losses_of(policy, batch, num_targets, **terms)["loss"].backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


def test_the_loss_is_the_mean_of_the_cross_entropy_of_every_real_decision(policy, batch):
    told = policy(batch).ask(policy.head).log_softmax(-1)
    lengths = batch.mask.sum(1).tolist()
    by_hand = [-told[b, t, batch.actions[b, t]] for b in range(4) for t in range(lengths[b])]
    assert len(by_hand) == 59
    losses = losses_of(policy, batch, 59.0)
    torch.testing.assert_close(losses["loss"], torch.stack(by_hand).mean())
    assert torch.equal(losses["loss"], losses["imitation_nats"])
    assert float(losses["writes"]) == 3.0
    assert 0 <= float(losses["accuracy"]) <= 1


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_padding_changes_neither_the_loss_nor_its_gradient(policy, batch, weight):
    noise = random_batch(SPACES, size=4, length=20, seed=1)
    dirty = evolve(
        batch,
        actions=torch.where(batch.mask, batch.actions, noise.actions),
        rewards=torch.where(batch.mask, batch.rewards, 50.0),
        observations=torch.where(batch.mask[..., None], batch.observations, noise.observations),
    )
    clean = gradient(policy, batch, 59.0, **rebuilding(weight)).clone()
    torch.testing.assert_close(gradient(policy, dirty, 59.0, **rebuilding(weight)), clean, rtol=1e-4, atol=1e-6)


def test_gradients_of_two_halves_average_to_the_gradient_of_the_whole(policy, batch):
    whole = gradient(policy, batch, 59.0)
    halves = [gradient(policy, batch.rows(slice(i, i + 2)), 59.0 / 2) for i in (0, 2)]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, whole, rtol=1e-4, atol=1e-6)


def test_reconstruction_adds_its_weighted_part(policy, batch):
    losses = losses_of(policy, batch, 59.0, **rebuilding(0.5))
    torch.testing.assert_close(losses["loss"], losses["imitation_nats"] + 0.5 * losses["reconstruction"])


def test_auxiliary_losses_of_every_write_are_added(batch, policy):
    write = policy.memory.compressor.write

    def costly(state, segment):
        return write(state, segment)[0], {"size": torch.full((segment.tokens.shape[0],), 0.25)}

    policy.memory.compressor.write = costly
    losses = losses_of(policy, batch, 59.0)
    assert float(losses["size"]) == 0.75  # three writes
    torch.testing.assert_close(losses["loss"], losses["imitation_nats"] + 0.75)


def told_once(size, generator):
    """Return histories whose every action is what the first reward said: 1 with reward 1, else 0."""
    secret = torch.randint(2, (size, 1), generator=generator)
    never = torch.zeros(size, 18, dtype=torch.bool)
    rewards = torch.zeros(size, 18)
    rewards[:, 0] = secret[:, 0]
    seen = torch.zeros(size, 18, 1, dtype=torch.int64)
    return HistoryBatch(
        observations=seen,
        actions=secret.expand(-1, 18).masked_fill(torch.arange(18) % 6 != 5, 0),  # the others would give it away
        rewards=rewards,
        terminations=never,
        truncations=never,
        next_observations=seen,
        mask=~never,
        targets=~never,
    )


def accuracy_at_the_end(compressor, num_latents):
    """Train briefly; return how often the last decision, three writes after the reward, is right."""
    spec = evolve(SPEC, memory=evolve(SPEC.memory, window=5 + num_latents, compressor=compressor))
    policy = spec.build(Spaces(observation=Discrete(1), action=Discrete(2)), seed=0)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    for _ in range(120):
        optimizer.zero_grad()
        losses_of(policy, told_once(32, generator), 32 * 18.0)["loss"].backward()
        optimizer.step()
    fresh = told_once(256, generator)
    forgotten = evolve(fresh, actions=fresh.actions.clone())
    forgotten.actions[:, 5] = forgotten.actions[:, 11] = 0  # only the first reward can tell
    guess = policy(forgotten).ask(policy.head)[:, 17].argmax(-1)
    return float((guess == fresh.actions[:, 17]).float().mean())


def test_the_action_loss_alone_teaches_the_compressor_to_remember_what_left_the_window():
    remembering = accuracy_at_the_end(GatedQuerySpec(num_latents=2, num_heads=2), 2)
    forgetting = accuracy_at_the_end(WindowSpec(), 0)
    assert remembering > 0.95
    assert forgetting < 0.7


def test_only_targets_that_are_no_padding_are_imitated(policy, batch):
    aimed = evolve(batch, targets=torch.arange(20) % 3 == torch.tensor([[0], [1], [2], [0]]))
    chosen = aimed.targets & aimed.mask
    told = policy(batch).ask(policy.head).log_softmax(-1)
    by_hand = -told.gather(-1, batch.actions[..., None])[..., 0][chosen].mean()
    hits = (told.argmax(-1) == batch.actions)[chosen].float().mean()
    losses = losses_of(policy, aimed, float(chosen.sum()))
    torch.testing.assert_close(losses["imitation_nats"], by_hand)
    torch.testing.assert_close(losses["accuracy"], hits)


def test_of_boxes_the_squared_error_of_the_mode_is_told_under_its_name():
    spaces = Spaces(observation=MultiDiscrete((4,)), action=Box((2,), -1.0, 1.0))
    policy, batch = SPEC.build(spaces, seed=0), random_batch(spaces, size=2, length=12, seed=0)
    with torch.no_grad():
        losses, parameters = losses_of(policy, batch, 24.0), policy(batch).ask(policy.head)
    modes = policy.head.draw(parameters.flatten(0, 1), None, greedy=True).view_as(batch.actions)
    torch.testing.assert_close(losses["squared_error"], (modes - batch.actions).square().mean())
    assert "accuracy" not in losses


def test_a_teacher_adds_its_weight_times_the_mean_divergence_from_it_and_stays_as_it_is(policy, batch):
    teacher = SPEC.build(SPACES, seed=1)
    teacher_logs, logs = (each(batch).ask(each.head).log_softmax(-1) for each in (teacher, policy))
    divergence = (teacher_logs.exp() * (teacher_logs - logs)).sum(-1)[batch.mask].mean()
    num_targets = int(batch.mask.sum())
    losses = losses_of(
        policy, batch, num_targets, others={"teacher": teacher}, teacher=TeacherTerm(agent="other", weight=0.25)
    )
    torch.testing.assert_close(losses["teacher_nats"], divergence, rtol=1e-4, atol=1e-6)
    expected = losses["imitation_nats"] + 0.25 * divergence
    torch.testing.assert_close(losses["loss"], expected, rtol=1e-4, atol=1e-6)
    losses["loss"].backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert not any(p.requires_grad for p in teacher.parameters())


def test_rewarded_transitions_weigh_more_in_reconstruction_only_if_asked(policy, batch):
    plain, weighted, usual = (
        losses_of(policy, batch, 59, **rebuilding(1.0, **options))["reconstruction"]
        for options in ({"reward_weighted": False}, {"reward_weighted": True}, {})
    )
    assert plain == usual != weighted


@pytest.mark.parametrize("fade", [1.0, 0.25, 0.0])
def test_reconstruction_weighs_as_much_as_its_schedule_says(policy, batch, fade):
    spec = ImitationSpec(**rebuilding(0.5, decay_frac=1.0))
    losses = spec.build(policy)(batch, 59.0, spec.weights(1 - fade))
    torch.testing.assert_close(losses["loss"], losses["imitation_nats"] + 0.5 * fade * losses["reconstruction"])


@pytest.mark.parametrize("share", [1.0, 0.25, 0.0])
def test_the_compressors_own_losses_weigh_as_much_as_their_schedule_says(batch, share):
    costly = evolve(SPEC, memory=evolve(SPEC.memory, compressor=evolve(SPEC.memory.compressor, gate_cost=0.1))).build(
        SPACES, seed=0
    )
    losses = ImitationSpec().build(costly)(batch, 59.0, {"auxiliary": share})
    assert losses["gate_cost"] > 0
    torch.testing.assert_close(losses["loss"], losses["imitation_nats"] + share * losses["gate_cost"])


def test_a_teacher_may_see_its_whole_life(policy, batch):
    teacher = evolve(SPEC, memory=evolve(SPEC.memory, compressor=FullSpec())).build(SPACES, seed=1)
    losses = losses_of(policy, batch, 59.0, others={"teacher": teacher}, teacher=TeacherTerm(agent="x", weight=0.5))
    q, p = (x(batch).ask(x.head).log_softmax(-1) for x in (policy, teacher))
    by_hand = ((p.exp() * (p - q)).sum(-1) * batch.mask).sum() / 59
    torch.testing.assert_close(losses["teacher_nats"], by_hand)


def test_a_teacher_for_real_valued_actions_is_refused():
    spaces = Spaces(observation=Box(shape=(2,), low=-1.0, high=1.0), action=Box(shape=(1,), low=-1.0, high=1.0))
    policy = SPEC.build(spaces, seed=0)
    with pytest.raises(ValueError, match="a teacher needs a head that has a divergence"):
        ImitationSpec(teacher=TeacherTerm(agent="x")).build(policy, others={"teacher": policy})


def test_the_weight_of_reconstruction_stays_or_falls_to_zero():
    assert [ReconstructionTerm(weight=1.0).at(done) for done in (0.0, 0.5, 1.0)] == [1, 1, 1]
    falling = ReconstructionTerm(weight=1.0, decay_frac=0.5)
    assert [falling.at(done) for done in (0.0, 0.25, 0.5, 0.9)] == [1.0, 0.5, 0.0, 0.0]


def test_the_compressors_own_losses_weigh_at_once_or_rise_later():
    assert [AuxiliaryTerm().at(done) for done in (0.0, 0.5)] == [1, 1]
    assert [AuxiliaryTerm(weight=2.0, start_frac=0.5).at(done) for done in (0.0, 0.4, 0.5, 0.9)] == [0, 0, 2, 2]
    rising = AuxiliaryTerm(start_frac=0.25, rise_frac=0.5)
    assert [rising.at(done) for done in (0.0, 0.25, 0.5, 0.75, 0.9)] == [0, 0, 0.5, 1, 1]
    with pytest.raises(ValueError, match=r"the full weight is never reached: 0.75 \+ 0.5"):
        AuxiliaryTerm(start_frac=0.75, rise_frac=0.5)
