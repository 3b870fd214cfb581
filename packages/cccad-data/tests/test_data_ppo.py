"""`sources/ppo`, `ppo_loss`, `heads` and `learners`: held against autograd and calculations by hand."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the ppo source needs torch (extra 'rl')")

from cccad_data import PPOSpec, SourceError, chance, learning_curve  # noqa: E402, SourceError
from cccad_data.families.toys import Corridor, CorridorSpec, TrackSpec  # noqa: E402
from cccad_data.sources.heads import Categorical, Gaussian, choose  # noqa: E402
from cccad_data.sources.learners import Learners, orthogonal  # noqa: E402
from cccad_data.sources.ppo import Encoder, gae  # noqa: E402
from cccad_data.sources.ppo_loss import LossConstants, Minibatch  # noqa: E402

BOX = {"kind": "box", "shape": [3], "low": -1.0, "high": [0.5, 1.0, 2.0]}
HEADS = {"discrete": Categorical(5), "box": Gaussian(BOX)}
QUICK = {"num_envs": 8, "n_steps": 16, "batch_size": 32, "n_epochs": 4, "learning_rate": 2e-3}


def test_advantages_agree_with_a_calculation_by_hand():
    rewards = np.array([[1.0], [0.0], [2.0]], np.float32)
    values = np.array([[0.5], [1.0], [2.0], [4.0]], np.float32)
    # surprises: 1 + 0.5*1 - 0.5 = 1;  0 + 0.5*2 - 1 = 0;  2 + 0.5*4 - 2 = 2
    # discount gamma * lambda = 0.5 * 0.5: 2;  0 + 0.25*2 = 0.5;  1 + 0.25*0.5 = 1.125
    advantages = gae(rewards, values, np.zeros((3, 1), bool), gamma=0.5, gae_lambda=0.5)
    assert advantages[:, 0].tolist() == [1.125, 0.5, 2.0]


def test_nothing_flows_back_over_the_end_of_an_episode():
    rewards = np.array([[1.0], [0.0], [2.0]], np.float32)
    values = np.array([[0.5], [1.0], [2.0], [4.0]], np.float32)
    # the episode ends with the second env step: 0 - 1 = -1;  1 + 0.5*1 - 0.5 + 0.25*(-1) = 0.75
    advantages = gae(rewards, values, np.array([[False], [True], [False]]), gamma=0.5, gae_lambda=0.5)
    assert advantages[:, 0].tolist() == [0.75, -1.0, 2.0]


def batch_of(num_learners, size, num_features=9, head="discrete", seed=0):
    source = torch.Generator().manual_seed(seed)
    if head == "box":
        actions = 1.5 * torch.randn(num_learners, size, 3, generator=source)
    else:
        actions = torch.randint(0, 5, (num_learners, size), generator=source)
    return Minibatch(
        inputs=torch.randn(num_learners, size, num_features, generator=source),
        actions=actions,
        log_probs=(-1.6 if head == "discrete" else -4.4) + 0.5 * torch.randn(num_learners, size, generator=source),
        advantages=3 * torch.randn(num_learners, size, generator=source) + 1,
        returns=torch.randn(num_learners, size, generator=source) * 5,
    )


def learners_of(number, num_features=9, head="discrete", gain=30.0):
    learners = Learners(num_features, HEADS[head], [chance.generator(0, str(i)) for i in range(number)], 1e-2)
    learners.parameters[4].mul_(gain)  # policies that are not almost uniform
    if head == "box":
        learners.parameters[6][:number] = torch.linspace(-0.5, 0.3, 3 * number).view(number, 3, 1)
    return learners


def stable_baselines_loss(network, batch, constants, row):
    """PPO's loss as stable_baselines3.ppo.PPO.train has it, for one learner, by autograd."""
    inputs, actions = batch.inputs[row], batch.actions[row]

    def mlp(parameters):
        w1, b1, w2, b2, w3, b3 = parameters[:6]
        return torch.tanh(torch.tanh(inputs @ w1 + b1) @ w2 + b2) @ w3.T + b3.T

    policy, value = network
    if len(policy) == 7:
        normal = torch.distributions.Normal(mlp(policy), policy[6][:, 0].exp())
        distribution = torch.distributions.Independent(normal, 1)
    else:
        distribution = torch.distributions.Categorical(logits=mlp(policy))
    values = mlp(value)[:, 0]
    advantages = batch.advantages[row]
    if constants.normalize_advantage and len(advantages) > 1:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    ratio = torch.exp(distribution.log_prob(actions) - batch.log_probs[row])
    clipped = torch.clamp(ratio, 1 - constants.clip_range, 1 + constants.clip_range)
    policy_loss = -torch.min(advantages * ratio, advantages * clipped).mean()
    value_loss = torch.nn.functional.mse_loss(batch.returns[row], values)
    entropy_loss = -distribution.entropy().mean()
    return policy_loss + constants.ent_coef * entropy_loss + constants.vf_coef * value_loss


def networks_of(learners, row):
    """Copies of one learner's parameters, policy and value, for autograd."""
    rows = (row, learners.num_learners + row)
    return [[part[r].clone().requires_grad_() for part in learners.parameters] for r in rows]


@pytest.mark.parametrize("normalize_advantage", [True, False])
@pytest.mark.parametrize("ent_coef", [0.0, 0.1])
@pytest.mark.parametrize("size", [1, 7, 40])
@pytest.mark.parametrize("head", HEADS)
def test_the_gradient_by_hand_is_that_of_autograd_through_the_reference_loss(head, size, ent_coef, normalize_advantage):
    constants = LossConstants(
        normalize_advantage=normalize_advantage, clip_range=0.2, ent_coef=ent_coef, vf_coef=0.5, max_grad_norm=0.5
    )
    learners, batch = learners_of(3, head=head), batch_of(3, size, head=head)
    learners.gradient(batch, constants)
    for row in range(3):
        networks = networks_of(learners, row)
        stable_baselines_loss(networks, batch, constants, row).backward()
        for kind, network in enumerate(networks):
            for ours, theirs in zip(learners.gradients, network, strict=True):
                if theirs.grad is None:  # a value function has no spread
                    assert not ours[row + 3 * kind].any()
                    continue
                rounding = 2e-6 * max(1.0, float(theirs.grad.abs().max()))  # of float32 sums whose terms cancel
                torch.testing.assert_close(ours[row + 3 * kind], theirs.grad, atol=rounding, rtol=0.0)


@pytest.mark.parametrize("head", HEADS)
def test_an_update_is_that_of_the_reference_with_clipping_and_adam(head):
    constants = LossConstants(normalize_advantage=True, clip_range=0.2, ent_coef=0.01, vf_coef=0.5, max_grad_norm=0.5)
    learners = learners_of(2, head=head)
    references = [networks_of(learners, row) for row in range(2)]
    optimizers = [torch.optim.Adam([*policy, *value], lr=1e-2, eps=1e-5) for policy, value in references]
    for seed in range(4):
        batch = batch_of(2, 30, head=head, seed=seed)
        learners.update(batch, constants)
        for row in range(2):
            optimizers[row].zero_grad()
            stable_baselines_loss(references[row], batch, constants, row).backward()
            norm = torch.nn.utils.clip_grad_norm_([p for network in references[row] for p in network], 0.5)
            assert norm > 0.5, "the test must reach the clipping"
            optimizers[row].step()
    for row in range(2):
        for kind in range(2):
            for ours, theirs in zip(learners.parameters, references[row][kind], strict=True):
                torch.testing.assert_close(ours[row + 2 * kind], theirs.detach(), atol=3e-4, rtol=3e-3)


def test_learners_do_not_touch_one_another():
    constants = LossConstants(normalize_advantage=True, clip_range=0.2, ent_coef=0.0, vf_coef=0.5, max_grad_norm=0.5)
    one, other = learners_of(3), learners_of(3)
    batch = batch_of(3, 20)
    changed = Minibatch(
        inputs=batch.inputs, actions=batch.actions, log_probs=batch.log_probs, returns=batch.returns,
        advantages=batch.advantages * torch.tensor([[1.0], [1.0], [-1.0]]),
    )  # fmt: skip
    one.update(batch, constants)
    other.update(changed, constants)
    for left, right in zip(one.parameters, other.parameters, strict=True):
        assert torch.equal(left[[0, 1, 3, 4]], right[[0, 1, 3, 4]])
    assert not torch.equal(one.parameters[4][2], other.parameters[4][2])


def test_values_and_logits_are_what_the_weights_say():
    learners, batch = learners_of(2), batch_of(2, 6)
    w1, b1, w2, b2, w3, b3 = learners.parameters
    for row in range(4):
        hidden = torch.tanh(torch.tanh(batch.inputs[row % 2] @ w1[row] + b1[row]) @ w2[row] + b2[row])
        outputs = hidden @ w3[row].T + b3[row].T
        if row < 2:
            torch.testing.assert_close(learners.outputs(batch.inputs)[row], outputs.T, atol=1e-5, rtol=1e-5)
        else:
            torch.testing.assert_close(learners.values(batch.inputs)[row - 2], outputs[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (5, 5)])
def test_initial_matrices_are_orthogonal(shape):
    matrix = orthogonal(chance.generator(0, "matrix"), *shape)
    shorter = matrix if shape[0] <= shape[1] else matrix.T
    assert np.allclose(shorter @ shorter.T, np.eye(min(shape)))


def test_new_policies_are_almost_uniform_and_new_values_are_not_alike():
    learners = learners_of(3, gain=1.0)
    probs = learners.outputs(batch_of(3, 50).inputs).softmax(1)
    assert (probs - 0.2).abs().max() < 0.02
    assert learners.parameters[0].flatten(1).std(0).min() > 0


def test_actions_follow_their_probabilities():
    uniform = chance.generator(0, "actions").random((2, 50_000))
    probs = np.array([[0.1, 0.0, 0.6, 0.3], [0.0, 0.0, 0.0, 1.0]], np.float32)
    chosen = choose(np.repeat(probs[:, None], 50_000, axis=1), uniform)
    shares = np.stack([np.bincount(row, minlength=4) for row in chosen]) / 50_000
    assert np.abs(shares - probs).max() < 0.01
    assert shares[0, 1] == 0.0


def test_discrete_features_are_one_hot_and_boxes_are_raw():
    grid = Encoder({"kind": "multi-discrete", "sizes": [3, 2]})
    assert grid(np.array([[2, 1], [0, 0]], np.uint8)).tolist() == [[0, 0, 1, 0, 1], [1, 0, 0, 1, 0]]
    box = Encoder({"kind": "box", "shape": [2], "low": -1.0, "high": 1.0})
    assert box(np.array([[0.5, -1.0]], np.float32)).tolist() == [[0.5, -1.0]]


@pytest.mark.parametrize("ends_on_goal", [False, True])
def test_every_learner_learns_its_own_task(ends_on_goal):
    family = CorridorSpec(ends_on_goal=ends_on_goal).build()
    source = PPOSpec(env_steps=480, **QUICK).build()
    for task_id, curve in learning_curve(source.collect(family, family.tasks, seed=0)).items():
        task = family.task(task_id)
        first, last = curve[:4].mean(), curve[-5:].mean()
        optimal, random = family.optimal_return(task), family.random_return(task)
        assert last > random + 0.9 * (optimal - random), task_id
        assert first < random + 0.5 * (optimal - random) + 0.3, task_id


def test_histories_hold_what_the_environment_gives():
    family = CorridorSpec(ends_on_goal=True).build()
    for task in PPOSpec(env_steps=50, **QUICK).build().collect(family, family.tasks[:2], seed=0):
        original, following = family.task(task.task_id), task.next_observations()
        assert (family.next_observations(original, task.observations, task.actions) == following).all()
        replayed = family.replay(original, task.observations, task.actions, following, task.episode_ends)
        assert (replayed[0] == task.rewards).all()


def test_a_task_has_the_same_history_alone_and_among_others():
    family = CorridorSpec().build()
    source = PPOSpec(env_steps=96, **QUICK).build()
    together = source.collect(family, family.tasks, seed=0)
    (alone,) = source.collect(family, family.tasks[2:3], seed=0)
    (other,) = source.collect(family, family.tasks[2:3], seed=1)
    assert together[2].actions.tobytes() == alone.actions.tobytes()
    assert other.actions.tobytes() != alone.actions.tobytes()


def test_one_thread_or_two_give_the_same_bits():
    family, source = CorridorSpec().build(), PPOSpec(env_steps=64, **QUICK).build()
    before, runs = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        runs.append(source.collect(family, family.tasks, seed=0))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert all(one.actions.tobytes() == two.actions.tobytes() for one, two in zip(*runs, strict=True))


def test_progress_grows_to_the_total():
    reports = []
    family = CorridorSpec().build()
    PPOSpec(env_steps=40, **QUICK).build().collect(family, family.tasks[:2], seed=0, progress=reports.append)
    assert reports == sorted(reports)
    assert reports[-1] == 2 * 8 * 40
    assert len(reports) > 4


def test_numbers_are_drawn_around_the_means_and_played_within_bounds():
    head, means = HEADS["box"], torch.tensor([[[0.0], [0.5], [2.0]]]).expand(1, 3, 20_000)
    log_std = torch.tensor([[[0.0], [-1.0], [0.5]]])
    noise = head.noise(chance.generator(0, "noise"), 1, 20_000)
    actions, log_probs = head.act(means, log_std, noise)
    assert actions.mean((0, 1)) == pytest.approx([0.0, 0.5, 2.0], abs=0.04)
    assert actions.std((0, 1)) == pytest.approx(np.exp([0.0, -1.0, 0.5]), rel=0.03)
    reference = torch.distributions.Normal(means.mT, log_std.mT.exp()).log_prob(torch.from_numpy(actions)).sum(-1)
    assert np.allclose(log_probs, reference, atol=1e-4)
    played = head.played(actions)
    assert played.min((0, 1))[[0, 2]].tolist() == [-1.0, -1.0]
    assert played.max((0, 1)).tolist() == [0.5, 1.0, 2.0]


def test_a_learner_of_numbers_learns_its_own_task():
    family = TrackSpec().build()
    source = PPOSpec(env_steps=960, **QUICK).build()
    histories = source.collect(family, family.tasks, seed=0)
    for task_id, curve in learning_curve(histories).items():
        optimal = family.optimal_return(family.task(task_id))
        assert curve[-10:].mean() > 0.85 * optimal, task_id
        assert curve[:3].mean() < 0.8 * optimal
    assert all(np.abs(task.actions).max() <= 1.0 and task.actions.dtype == np.float32 for task in histories)
    (alone,) = source.collect(family, family.tasks[1:2], seed=0)
    assert alone.actions.shape[1:] == (1,)


class EndsAs(Corridor):
    """A corridor that reports the end of its horizon under the flags that it is told to."""

    def __init__(self, *flags):
        super().__init__(CorridorSpec(horizon=4))
        self.flags = flags

    def make_vec(self, tasks):
        environment = super().make_vec(tasks)
        step = environment.step

        def flagged(actions):
            observations, rewards, _, ended, infos = step(actions)
            return observations, rewards, *(ended & (flag in self.flags) for flag in FLAGS), infos

        environment.step = flagged
        return environment


FLAGS = ("terminated", "truncated")


def actions_learned(family, **changes):
    source = PPOSpec(env_steps=64, **{**QUICK, **changes}).build()
    return b"".join(task.actions.tobytes() for task in source.collect(family, family.tasks, seed=0))


def test_nothing_follows_an_end_that_is_both_a_termination_and_a_truncation():
    terminated, truncated, both = (EndsAs(*flags) for flags in (FLAGS[:1], FLAGS[1:], FLAGS))
    assert actions_learned(both) == actions_learned(terminated)
    assert actions_learned(truncated) != actions_learned(terminated)


def test_the_value_of_what_a_truncation_cuts_off_is_discounted():
    terminated, truncated = EndsAs("terminated"), EndsAs("truncated")
    assert actions_learned(truncated, gamma=0.0) == actions_learned(terminated, gamma=0.0)


def test_a_source_that_would_never_learn_is_refused():
    with pytest.raises(SourceError, match=r"ppo would never learn: 'n_steps' \(60\) must be below 'env_steps' \(60\)"):
        PPOSpec(num_envs=2, env_steps=60, n_steps=60).build()
    assert PPOSpec(num_envs=2, env_steps=61, n_steps=60).build()


def test_the_smallest_batch_that_can_be_normalised_is_two():
    assert PPOSpec(batch_size=2).batch_size == 2
    with pytest.raises(ValueError, match="'batch_size' must be >= 2: 1"):
        PPOSpec(batch_size=1)
