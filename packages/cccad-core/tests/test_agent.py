"""Lives of the agent: constant memory, repeatable, independent of one another, and told the truth by `play`."""

import numpy as np
import pytest
import torch
from attrs import evolve
from cccad_core.agent import Agent
from cccad_core.batch import HistoryBatch
from cccad_core.compressors.full import FullSpec
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.laws.noise import SPACES, random_batch
from cccad_core.laws.policy import relive
from cccad_core.memory.attention import AttentionRecord
from cccad_core.memory.compressed import CompressedSpec, compressed
from cccad_core.memory.controls import SwappedLatents, ZeroedLatents
from cccad_core.memory.triggers import EveryTrigger
from cccad_core.play import play
from cccad_core.policy import PolicySpec
from cccad_core.spaces import Box, Discrete, MultiDiscrete, Spaces

SPEC = PolicySpec(
    memory=CompressedSpec(
        window=9, carry=1, compressor=GatedQuerySpec(num_latents=2, num_heads=2), num_layers=1, num_heads=2
    ),
    width=16,
)
PLACES = Spaces(observation=MultiDiscrete((4, 8)), action=Discrete(3))


class Clock:
    """Rows that see (row, env step of the episode); row i's episodes last `lengths[i]` env steps and restart at once.

    The reward is the number of the env step, so the return of every episode of length n is n (n + 1) / 2.
    """

    def __init__(self, lengths):
        self.lengths = np.array(lengths)
        self.num_envs = len(lengths)
        self.actions = []

    def look(self):
        return np.stack([np.arange(self.num_envs), self.age], 1).astype(np.uint8)

    def reset(self, seed=None):
        self.age = np.zeros(self.num_envs, dtype=np.int64)
        return self.look(), {}

    def step(self, actions):
        self.actions.append(actions.copy())
        self.age += 1
        rewards, ended, final = self.age.astype(np.float32), self.age == self.lengths, self.look()
        self.age[ended] = 0
        terminated = ended & (np.arange(self.num_envs) % 2 == 0)
        return self.look(), rewards, terminated, ended & ~terminated, {"final_obs": final, "_final_obs": ended}


@pytest.fixture
def agent():
    return Agent(SPEC.build(PLACES, seed=0))


class Listening(Agent):
    """Keeps what it is told."""

    def __init__(self, policy):
        super().__init__(policy)
        self.told = []

    def observe(self, state, rewards, terminations, truncations, next_observations):
        self.told.append((rewards.copy(), terminations.copy(), truncations.copy(), next_observations.copy()))
        return super().observe(state, rewards, terminations, truncations, next_observations)


def test_bytes_per_life_do_not_grow_with_its_age(agent):
    state, sizes = agent.begin(2), set()
    for t in range(200):
        agent.act(state, np.array([[0, t % 8], [1, 0]]), generator=torch.Generator().manual_seed(t))
        agent.observe(state, [1.0, 0.0], [False, False], [False, False], np.array([[0, 1], [1, 0]]))
        sizes.add(state.num_bytes)
    assert len(sizes) == 1
    assert state.num_writes.tolist() == [SPEC.memory.build(16, 1).context.num_writes(200)] * 2
    assert state.num_decisions.tolist() == [200, 200]


def test_play_repeats_with_the_generators_seed_and_changes_with_it(agent):
    def actions(seed):
        environments = Clock([3, 5])
        play(agent, environments, num_episodes=4, generator=torch.Generator().manual_seed(seed))
        return np.stack(environments.actions)

    assert (actions(0) == actions(0)).all()
    assert (actions(0) != actions(1)).any()


def test_play_counts_the_returns_of_whole_episodes_whatever_their_length(agent):
    finished: list[object] = []
    played = play(agent, Clock([2, 3, 7]), num_episodes=3, progress=finished.append)
    assert played.returns.tolist() == [[3.0] * 3, [6.0] * 3, [28.0] * 3]
    assert played.num_env_steps == 21
    assert played.actions_per_s == pytest.approx(63 / played.duration_s)
    assert finished[-1] == 3


def test_play_says_before_which_env_steps_each_row_wrote(agent):
    played = play(agent, Clock([7]), num_episodes=3)
    assert played.writes == [[7, 13, 19]]  # a window of 9 with 2 latents is full at 7, and 1 token stays raw


def test_play_tells_the_agent_the_true_last_observation_and_shows_it_the_next_episodes_first():
    listener = Listening(SPEC.build(PLACES, seed=0))
    play(listener, Clock([2, 3]), num_episodes=2)
    ages = np.stack([next_observations[:, 1] for *_, next_observations in listener.told])
    assert ages[:4].tolist() == [[1, 1], [2, 2], [1, 3], [2, 1]]
    terminations, truncations = (np.stack([told[i] for told in listener.told]) for i in (1, 2))
    assert terminations[:4].tolist() == [[False, False], [True, False], [False, False], [True, False]]
    assert truncations[:4].tolist() == [[False, False], [False, False], [False, True], [False, False]]


def test_a_life_does_not_depend_on_how_many_live_beside_it(agent):
    batch = random_batch(PLACES, size=5, length=30, seed=1)
    together, _ = relive(agent, batch)
    alone, _ = relive(agent, batch.rows(slice(3, 4)))
    torch.testing.assert_close(together[3:4], alone, rtol=1e-4, atol=2e-5)


def test_real_actions_are_drawn_in_their_shape_and_taken_back():
    spaces = Spaces(observation=Box(shape=(2,), low=-1.0, high=1.0), action=Box(shape=(3,), low=-1.0, high=1.0))
    agent = Agent(SPEC.build(spaces, seed=0))
    state = agent.begin(4)
    for _ in range(20):
        actions, state = agent.act(state, np.zeros((4, 2), dtype=np.float64), greedy=True)
        agent.observe(state, np.ones(4), np.zeros(4, dtype=bool), np.zeros(4, dtype=bool), np.ones((4, 2)))
    assert actions.shape == (4, 3)
    assert torch.equal(state.last.actions[:, 0], actions)


def test_zeroed_latents_make_histories_before_the_window_indistinguishable():
    policy = SPEC.build(SPACES, seed=0)
    memory = compressed(policy.memory)
    length = memory.context.length_of(2)
    first, second = (random_batch(SPACES, size=1, length=length, seed=seed) for seed in (0, 1))
    start = memory.context.cut(length)[-1].raw_start
    both = HistoryBatch.join([first, second])
    same = HistoryBatch.join([first, first])
    is_late = torch.arange(length) >= start - 1  # a token tells the transition before it
    names = ("observations", "actions", "rewards", "terminations", "truncations", "next_observations")
    late = {name: getattr(same, name)[:, is_late] for name in names}
    forgotten = evolve(both, **{name: torch.cat([getattr(both, name)[:, ~is_late], late[name]], 1) for name in names})
    told, _ = relive(Agent(policy, memory.with_compressor(ZeroedLatents(memory.compressor))), forgotten)
    newest = memory.context.cut(length)[-1].start
    torch.testing.assert_close(told[0, newest:], told[1, newest:], atol=1e-6, rtol=0.0)  # rows of a batch round apart
    assert not torch.equal(told[0, :start], told[1, :start])


def test_swapped_latents_show_each_row_the_memory_of_another():
    compressor = SPEC.memory.compressor.build(16)
    state = {"latents": torch.randn(3, 2, 16)}
    swapped = SwappedLatents(compressor, shift=1).read(state)
    assert torch.equal(swapped, compressor.read(state)[[1, 2, 0]])


def test_lives_of_different_ages_that_write_together_keep_their_own_raw_transitions():
    memory = evolve(SPEC.memory, window=12, carry=4, trigger=EveryTrigger(decisions=2))
    policy = evolve(SPEC, memory=memory).build(SPACES, seed=0)
    batch = random_batch(SPACES, size=3, length=14, seed=0)
    restart = 8  # the old rows then carry 4 transitions across every write, and the new one 2 across its first
    told, _ = relive(Agent(policy), batch, restart_at=restart)
    torch.testing.assert_close(told[[0, 2]], policy(batch).ask(policy.head)[[0, 2]], rtol=1e-4, atol=2e-5)
    young = policy(batch.at(slice(restart, None))).ask(policy.head)
    torch.testing.assert_close(told[1, restart:], young[1], rtol=1e-4, atol=2e-5)


def test_an_agent_of_one_layer_that_evicts_nothing_outgrows_its_window_as_a_pass_does():
    policy = evolve(SPEC, memory=evolve(SPEC.memory, window=4, compressor=FullSpec())).build(SPACES, seed=0).eval()
    batch = random_batch(SPACES, size=2, length=30, seed=3)
    parameters, _ = relive(Agent(policy), batch)
    torch.testing.assert_close(parameters, policy(batch).ask(policy.head), rtol=1e-4, atol=1e-5)


def test_an_agent_leaves_its_policy_as_it_is():
    policy = SPEC.build(SPACES, seed=0).train()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    memory, batch = compressed(policy.memory), random_batch(SPACES, size=2, length=20, seed=1)
    inner = memory.compressor
    parameters, _ = relive(Agent(policy, memory.with_compressor(ZeroedLatents(inner))), batch)
    assert memory.compressor is inner
    assert policy.training
    assert all(value.requires_grad for value in policy.parameters())
    assert not parameters.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_a_window_refuses_a_compressor_for_which_it_has_no_room():
    memory = compressed(SPEC.build(SPACES, seed=0).memory)
    with pytest.raises(ValueError, match="room for 2 latents, not for the 3 of this compressor"):
        memory.with_compressor(GatedQuerySpec(num_latents=3, num_heads=2).build(16))


def test_attention_that_is_recorded_sums_to_one_up_to_the_slot_that_decides(agent):
    state, record = agent.begin(2), AttentionRecord()
    for t in range(10):  # a write comes before the eighth decision
        agent.act(state, np.array([[0, t % 8], [1, 0]]), record=record, greedy=True)
        agent.observe(state, [1.0, 0.0], [False, False], [False, False], np.array([[0, 1], [1, 0]]))
    assert record.slots.tolist() == [5, 5]  # behind two latents, the transition carried over and two more
    [shares] = record.shares
    assert shares.shape == (2, 2, 9)
    torch.testing.assert_close(shares[..., :6].sum(-1), torch.ones(2, 2))
    assert not shares[..., 6:].any()
