"""The laws of a compressor and of a policy, as checks that every part and every plugin runs.

    from cccad_core.testing import check_compressor
    check_compressor(MyCompressorSpec())

The spec must be registered, since a released policy must find it again. Each law raises `LawBroken` with its name and
what was seen; all of them together take a few seconds.
"""

from tempfile import TemporaryDirectory
from typing import Any

import torch
from attrs import evolve
from torch import Tensor, nn

from cccad_core.agent import Agent, AgentState
from cccad_core.artefact import load_policy, save_policy
from cccad_core.batch import HistoryBatch
from cccad_core.compressors.base import Compressor, Segment, State
from cccad_core.context import ContextSpec
from cccad_core.losses import Imitation
from cccad_core.policy import Policy, PolicySpec
from cccad_core.spaces import Box, Discrete, MultiDiscrete, Space, Spaces
from cccad_core.tokens import FusedSpec, TransitionSpec

WIDTH = 16
SPACES = Spaces(observation=MultiDiscrete((5, 4)), action=Discrete(3))
TOLERANCE = 2e-5
NUM_WRITES = 1_000  # of the law "bounded state"


class LawBroken(AssertionError):
    """A part does not keep a law that training, evaluation and the agent rely on."""


def check_compressor(spec: Any, *, width: int = WIDTH) -> None:
    """Check every law for a compressor *spec*, within policies of both token layouts; raises LawBroken."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        compressor = spec.build(width).eval()
    with torch.no_grad():
        _check_state(compressor, spec.num_latents, width)
        _check_padding(compressor, width)
        _check_bounded(compressor, width)
    for tokens, carry in ((FusedSpec(), 0), (FusedSpec(), 3), (TransitionSpec(), 2)):
        context = ContextSpec(window=spec.num_latents + carry + 6, carry=carry)
        check_policy(PolicySpec(tokens=tokens, context=context, compressor=spec, width=width, num_heads=2))


def check_policy(spec: PolicySpec, *, spaces: Spaces = SPACES) -> None:
    """Check every law that a whole policy must keep; raises LawBroken."""
    policy = spec.build(spaces, seed=1).eval()
    context = policy.context
    length = max(context.length_of(3) - 1, context.first_segment + 6)
    batch = random_batch(spaces, size=3, length=length, seed=2)
    with torch.no_grad():
        _check_writes(policy, batch)
        _check_no_future(policy, spaces, batch)
        _check_prefix(policy, batch)
        _check_lives(policy, batch)
        _check_reset(policy, batch)
        _check_mask(policy, spaces, batch)
        _check_round_trip(policy, batch)
    _check_gradients(spec.build(spaces, seed=1), batch)


def random_batch(spaces: Spaces, *, size: int, length: int, seed: int) -> HistoryBatch:
    """Return histories of noise, without padding; episodes of 7 decisions terminate and are cut off by turns."""
    generator = torch.Generator().manual_seed(seed)

    def draw(space: Space) -> Tensor:
        if isinstance(space, Box):
            return torch.randn(size, length, space.num_features, generator=generator)
        return torch.stack([torch.randint(n, (size, length), generator=generator) for n in space.sizes], -1)

    actions = draw(spaces.action)
    end = torch.arange(length) % 14
    return HistoryBatch(
        observations=draw(spaces.observation),
        actions=actions if isinstance(spaces.action, Box) else actions[..., 0],
        rewards=torch.randint(2, (size, length), generator=generator).float(),
        terminations=(end == 6).expand(size, -1).clone(),
        truncations=(end == 13).expand(size, -1).clone(),
        next_observations=draw(spaces.observation),
        mask=torch.ones(size, length, dtype=torch.bool),
        targets=torch.ones(size, length, dtype=torch.bool),
    )


def relive(agent: Agent, batch: HistoryBatch, *, restart_at: int | None = None) -> tuple[Tensor, AgentState]:
    """Take *batch* one decision at a time, the recorded actions forced; return parameters, `b t a`, and the state.

    Before decision *restart_at* row 1 begins a new life.
    """
    state, told = agent.begin(batch.size), []
    for t in range(batch.length):
        if t == restart_at:
            agent.reset(state, torch.tensor([1]))
        told.append(agent.decide(state, batch.observations[:, t]))
        state.last.actions[:, 0] = batch.actions[:, t]
        ended = batch.terminations[:, t], batch.truncations[:, t]
        agent.observe(state, batch.rewards[:, t], *ended, batch.next_observations[:, t])
    return torch.stack(told, 1), state


def _require(law: str, kept: bool, seen: str) -> None:
    if not kept:
        raise LawBroken(f"law '{law}' is broken: {seen}")


def _same(law: str, a: Tensor, b: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    _require(law, a.shape == b.shape, f"{what} have shapes {tuple(a.shape)} and {tuple(b.shape)}")
    gap = float((a - b).abs().max()) if a.numel() else 0.0
    _require(law, gap <= tolerance, f"{what} differ by {gap:.2g} (allowed {tolerance:.2g})")


# A compressor alone -------------------------------------------------------------------------------------------------


def _tokens(width: int, *, size: int = 3, length: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(size, length, width, generator=torch.Generator().manual_seed(seed))


def _check_state(compressor: Compressor, num_latents: int, width: int) -> None:
    """The state is explicit and whole, what is handed in stays as it was, and rows do not mix."""
    segment, other = Segment(tokens=_tokens(width)), Segment(tokens=_tokens(width, seed=1))
    before = compressor.begin(3)
    _check_shape(compressor, "begin", before, (3, num_latents, width))
    kept, prefix = {name: value.clone() for name, value in before.items()}, compressor.read(before)
    after, losses = compressor.write(before, segment)
    _check_shape(compressor, "write", after, (3, num_latents, width))
    _require("explicit state", set(after) == set(before), f"its fields change from {sorted(before)} to {sorted(after)}")
    _same("explicit state", compressor.read(before), prefix, "two reads of one state, a write between,", 0)
    for name, value in losses.items():
        _require("losses by row", value.shape == (3,), f"loss '{name}' has shape {tuple(value.shape)}, not (3,)")
    compressor.write(after, other)
    again, _ = compressor.write(compressor.begin(3), segment)
    for name in after:
        _same("explicit state", again[name], after[name], f"'{name}' of one write, done twice,", 0)
        _same("explicit state", before[name], kept[name], f"'{name}' handed to a write, before and after it,", 0)
    changed, _ = compressor.write(before, Segment(tokens=_replaced(segment.tokens, other.tokens, row=1)))
    for name in after:
        both = changed[name][[0, 2]], after[name][[0, 2]]
        _same("rows do not mix", *both, f"rows 0 and 2 of '{name}', when row 1's segment changes,", 0)


def _check_shape(compressor: Compressor, when: str, state: State, wanted: tuple[int, int, int]) -> None:
    whole = all(isinstance(value, Tensor) and value.shape[:1] == wanted[:1] for value in state.values())
    _require("explicit state", whole, f"what {when}() returns must be tensors by name, rows first")
    shape = tuple(compressor.read(state).shape)
    _require("declared size", shape == wanted, f"after {when}() read() gives {shape}, not {wanted}")


def _replaced(tokens: Tensor, others: Tensor, *, row: int) -> Tensor:
    tokens = tokens.clone()
    tokens[row] = others[row]
    return tokens


def _check_padding(compressor: Compressor, width: int) -> None:
    """What a mask hides changes nothing, and a masked write equals a shorter one; row 2 is padding throughout."""
    tokens, begun = _tokens(width), compressor.begin(3)
    mask = torch.arange(6) < torch.tensor([6, 4, 0])[:, None]
    garbage = torch.where(mask[..., None], tokens, 1e3 * _tokens(width, seed=1))
    masked, _ = compressor.write(begun, Segment(tokens=tokens, mask=mask))
    dirty, _ = compressor.write(begun, Segment(tokens=garbage, mask=mask))
    for row, length in ((0, 6), (1, 4)):
        short, _ = compressor.write(begun, Segment(tokens=tokens[:, :length]))
        for name in masked:
            _same("padding is invisible", masked[name][row], short[name][row], f"'{name}' with padding and without")
    for name, value in masked.items():
        _require("padding is invisible", bool(value.isfinite().all()), f"'{name}' is not finite after padding alone")
        _same("padding is invisible", dirty[name], value, f"'{name}' with garbage in the padding and without")


def _check_bounded(compressor: Compressor, width: int) -> None:
    """The state neither grows nor overflows over many writes, though every segment pulls the same way."""
    segments = [Segment(tokens=_tokens(width, size=2, length=4, seed=seed) + 1.0) for seed in range(7)]
    state = compressor.begin(2)
    num_bytes, early = _num_bytes(state), 0.0
    for index in range(NUM_WRITES):
        state, _ = compressor.write(state, segments[index % len(segments)])
        held = _num_bytes(state)
        _require("bounded state", held == num_bytes, f"it grows from {num_bytes} to {held} bytes in {index + 1} writes")
        if index + 1 == NUM_WRITES // 10:
            early = _largest(compressor, state)
    late = _largest(compressor, state)
    told = f"values reach {late:.3g} after {NUM_WRITES} writes, from {early:.3g} after {NUM_WRITES // 10}"
    _require("bounded state", late <= max(30.0, 2 * early), told)


def _num_bytes(state: State) -> int:
    return sum(value.numel() * value.element_size() for value in state.values())


def _largest(compressor: Compressor, state: State) -> float:
    """Return the largest magnitude in a state and its prefix, infinite where one is not a number; counts are exempt."""
    values = [value for value in (*state.values(), compressor.read(state)) if value.is_floating_point()]
    return max((float(v.abs().nan_to_num(nan=torch.inf).max()) for v in values if v.numel()), default=0.0)


# A whole policy -----------------------------------------------------------------------------------------------------


def _check_lives(policy: Policy, batch: HistoryBatch) -> None:
    """A life of the agent, cached or not, is the training pass, whatever happens to other lives beside it."""
    restart = policy.context.first_segment + 2  # after a write, within a window: rows write apart from then on
    dense = policy(batch)
    plain, state = relive(Agent(policy, cached=False), batch)
    cached, staggered = relive(Agent(policy), batch, restart_at=restart)
    _same("one decision at a time equals the training pass", plain, dense.parameters, "parameters")
    _same("cached equals uncached", cached[:, :restart], plain[:, :restart], "parameters")
    later = policy(batch.at(slice(restart, None)))
    told = "decisions of rows 0 and 2, when row 1 begins anew,"
    _same("rows do not mix", cached[[0, 2], restart:], plain[[0, 2], restart:], told)
    told = "decisions of a reset row and of a training pass from there"
    _same("a reset row is a fresh row", cached[1, restart:], later.parameters[1], told)
    done, wanted = state.num_writes.tolist(), [dense.num_writes] * 3
    _require("writes asked for are writes done", done == wanted, f"{done} in lives, {wanted} in the pass")
    done, wanted[1] = staggered.num_writes.tolist(), later.num_writes
    _require("writes asked for are writes done", done == wanted, f"{done} in staggered lives, {wanted} in the pass")


def _check_reset(policy: Policy, batch: HistoryBatch) -> None:
    """A reset leaves every bit of the other rows as it was; without rows it does nothing."""
    agent = Agent(policy)
    _, state = relive(agent, batch.at(slice(0, 2)))
    for rows in ([], [1]):
        others = [row for row in range(3) if row not in rows]
        before = [value[others].clone() for value in _held(state)]
        agent.reset(state, torch.tensor(rows, dtype=torch.int64))
        untouched = all(torch.equal(a[others], b) for a, b in zip(_held(state), before, strict=True))
        _require("rows do not mix", untouched, f"a reset of the rows {rows} changes others")


def _held(state: AgentState) -> list[Tensor]:
    caches = [part for cache in state.caches for part in (cache.keys, cache.values)]
    return [*state.memory.values(), state.tokens, state.num_raw, state.num_new, state.has_last, *caches]


def _check_no_future(policy: Policy, spaces: Spaces, batch: HistoryBatch) -> None:
    """Editing what comes after any decision changes nothing up to it, through the latents neither."""
    one = batch.rows(torch.zeros(batch.length, dtype=torch.int64))  # row i is edited after its decision i
    edited = edit_after(one, random_batch(spaces, size=batch.length, length=batch.length, seed=3))
    gaps = (policy(one).parameters - policy(edited).parameters).abs().amax(-1)
    early = torch.ones_like(gaps).tril().bool()
    worst = float(gaps[early].max())
    first = torch.nonzero((gaps > 0) & early).tolist()[:1]
    _require("no future", worst == 0, f"editing what follows a decision changes it by {worst:.2g} (row, t: {first})")


def edit_after(batch: HistoryBatch, other: HistoryBatch) -> HistoryBatch:
    """Return *batch* with all that decision *i* of row *i* may not know taken from *other*, and all rewards raised."""
    late = torch.arange(batch.length) >= torch.arange(batch.size)[:, None]
    later = torch.arange(batch.length) > torch.arange(batch.size)[:, None]
    by_action = late if batch.actions.dim() == 2 else late[..., None]
    return evolve(
        batch,
        observations=torch.where(later[..., None], other.observations, batch.observations),
        actions=torch.where(by_action, other.actions, batch.actions),
        rewards=torch.where(late, other.rewards + 3.0, batch.rewards),
        next_observations=torch.where(late[..., None], other.next_observations, batch.next_observations),
        terminations=batch.terminations ^ late,
    )


def _check_prefix(policy: Policy, batch: HistoryBatch) -> None:
    """Every decision depends on the latents, also those before the first write."""
    if not policy.context.num_latents:
        return
    plain, inner = policy(batch).parameters, policy.compressor
    policy.compressor = _Stirred(inner)
    moved = (policy(batch).parameters - plain).abs().amax(-1)
    policy.compressor = inner
    blind = torch.nonzero(moved == 0)[:, 1].unique().tolist()
    _require("no decision without latents", not blind, f"other latents change nothing at the decisions {blind}")


class _Stirred(nn.Module):
    """Works like a compressor, but what is read is noise."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.begin, self.write, self.inner = inner.begin, inner.write, inner

    def read(self, state: State) -> Tensor:
        prefix = self.inner.read(state)
        return torch.randn(prefix.shape, generator=torch.Generator().manual_seed(0))


def _check_writes(policy: Policy, batch: HistoryBatch) -> None:
    """A pass as long as the rolling context says does the writes that were asked for."""
    for wanted in (0, 1, 2):
        part = batch.at(slice(0, policy.context.length_of(wanted)))
        told = f"{wanted} wanted, {(done := policy(part).num_writes)} done in {part.length} decisions"
        _require("writes asked for are writes done", done == wanted, told)


def _check_mask(policy: Policy, spaces: Spaces, batch: HistoryBatch) -> None:
    """Garbage after a history's end does not reach the loss."""
    objective = Imitation(policy, reconstruction_weight=0.1)
    mask = torch.arange(batch.length) < torch.tensor([batch.length, policy.context.first_segment - 2, 0])[:, None]
    ended, noise = evolve(batch, mask=mask), random_batch(spaces, size=3, length=batch.length, seed=4)
    garbage = evolve(noise, rewards=noise.rewards + 100.0)
    fields = ("observations", "actions", "rewards", "next_observations", "terminations")
    dirty = evolve(ended, **{name: _padded(mask, getattr(ended, name), getattr(garbage, name)) for name in fields})
    num_targets = float(mask.sum())
    losses, others = objective(ended, num_targets), objective(dirty, num_targets)
    for name, value in losses.items():
        _require("padding is invisible", bool(value.isfinite()), f"'{name}' is not finite where a history has ended")
        _same("padding is invisible", others[name], value, f"'{name}' with garbage after the end and without")


def _padded(mask: Tensor, value: Tensor, garbage: Tensor) -> Tensor:
    return torch.where(mask if value.dim() == 2 else mask[..., None], value, garbage)


def _check_gradients(policy: Policy, batch: HistoryBatch) -> None:
    """The last decisions' loss reaches every write within the horizon, and none beyond it."""
    if not policy.context.num_latents:
        return
    law, seen = "gradients reach the newest writes and stop at the horizon", _Spy(policy.compressor)
    policy.compressor = seen
    for horizon in (1, 2, None):
        seen.tokens.clear()
        decisions = policy(batch, max_gradient_rounds=horizon)
        last = policy.context.pieces(batch.length)[-1]
        loss = decisions.parameters[:, last.start :].square().mean()
        loss.backward(inputs=[*seen.tokens, *seen.inner.parameters()])
        reached = [t.grad is not None and bool(t.grad.any()) for t in seen.tokens]
        within = len(reached) if horizon is None else horizon
        wanted = [age <= within for age in range(len(reached), 0, -1)]
        _require(law, reached == wanted, f"with horizon {horizon}, writes reached are {reached}, wanted {wanted}")
    dead = [name for name, p in seen.inner.named_parameters() if p.grad is None or not bool(p.grad.any())]
    _require(law, not dead, f"no gradient reaches {', '.join(dead)}")


class _Spy(nn.Module):
    """Lets a compressor work and keeps the tokens of each write as leaves whose gradient can be read."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.begin, self.read, self.inner = inner.begin, inner.read, inner
        self.tokens: list[Tensor] = []

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        self.tokens.append(segment.tokens.detach().requires_grad_(True))
        written: tuple[State, dict[str, Tensor]] = self.inner.write(state, evolve(segment, tokens=self.tokens[-1]))
        return written


def _check_round_trip(policy: Policy, batch: HistoryBatch) -> None:
    """A released policy decides as before."""
    with TemporaryDirectory() as folder:
        save_policy(folder, policy, train_task_ids=("a/b",), card="")
        loaded = load_policy(folder).eval()
    law, weights = "spec and weights round-trip", loaded.state_dict()
    _require(law, loaded.spec == policy.spec, f"spec became {loaded.spec}")
    for name, value in policy.state_dict().items():
        _same(law, weights[name], value, f"weights '{name}'", 0)
    _same(law, loaded(batch).parameters, policy(batch).parameters, "parameters")
