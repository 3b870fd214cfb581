"""The laws of a whole policy: what an agent decides is what training saw, and nothing comes from the future."""

from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from cccad_core.agent import Agent, AgentState
from cccad_core.artefact import load_policy, save_policy
from cccad_core.batch import HistoryBatch
from cccad_core.compressors.base import Compressor, Segment, State
from cccad_core.laws.law import TOLERANCE, require, same
from cccad_core.laws.noise import SPACES, edit_after, padded_with_garbage, random_batch
from cccad_core.memory.controls import Wrapped
from cccad_core.memory.moment import Moment
from cccad_core.memory.windows import Windows
from cccad_core.objectives.imitation import ImitationSpec
from cccad_core.objectives.terms import ReconstructionTerm
from cccad_core.policy import Policy, PolicySpec
from cccad_core.spaces import Spaces


def check_policy(spec: PolicySpec, *, spaces: Spaces = SPACES) -> None:
    """Check every law that a whole policy must keep; raises LawBroken."""
    policy = spec.build(spaces, seed=1).eval()
    context = policy.context
    length = max(context.length_of(3) - 1, context.first_segment + 6)
    batch = random_batch(spaces, size=3, length=length, seed=2)
    with torch.no_grad():
        _check_writes(policy, batch)
        check_no_future(policy, spaces, batch)
        _check_prefix(policy, spaces, batch)
        check_lives(policy, batch)
        _check_reset(policy, batch)
        check_mask(policy, spaces, batch)
        _check_round_trip(policy, batch)
    _check_gradients(spec, spaces, batch)


def relive(agent: Agent, batch: HistoryBatch, *, restart_at: int | None = None) -> tuple[Tensor, AgentState]:
    """Take *batch* one decision at a time, the recorded actions forced; return parameters, `b t a`, and the state.

    Before decision *restart_at* row 1 begins a new life.
    """
    state, parameters = agent.begin(batch.size), []
    for t in range(batch.length):
        if t == restart_at:
            agent.reset(state, torch.tensor([1]))
        parameters.append(agent.decide(state, batch.observations[:, t]))
        state.last.actions[:, 0] = batch.actions[:, t]
        ended = batch.terminations[:, t], batch.truncations[:, t]
        agent.observe(state, batch.rewards[:, t], *ended, batch.next_observations[:, t])
    return torch.stack(parameters, 1), state


def check_lives(policy: Policy, batch: HistoryBatch) -> None:
    """A life of the agent, cached or not, is the training pass, whatever happens to other lives beside it."""
    restart = policy.context.first_segment + 2  # after a write, within a window: rows write apart from then on
    dense = policy(batch)
    plain, state = relive(Agent(policy, cached=False), batch)
    cached, staggered = relive(Agent(policy), batch, restart_at=restart)
    same("one decision at a time equals the training pass", plain, dense.ask(policy.head), "parameters")
    same("cached equals uncached", cached[:, :restart], plain[:, :restart], "parameters")
    later = policy(batch.at(slice(restart, None)))
    what = "decisions of rows 0 and 2, when row 1 begins anew,"
    same("rows do not mix", cached[[0, 2], restart:], plain[[0, 2], restart:], what)
    what = "decisions of a reset row and of a training pass from there"
    same("a reset row is a fresh row", cached[1, restart:], later.ask(policy.head)[1], what)
    done, wanted = state.num_writes.tolist(), dense.windows.num_writes.tolist()
    require("writes asked for are writes done", done == wanted, f"{done} in lives, {wanted} in the pass")
    done, wanted[1] = staggered.num_writes.tolist(), int(later.windows.num_writes[1])
    require("writes asked for are writes done", done == wanted, f"{done} in staggered lives, {wanted} in the pass")


def _check_reset(policy: Policy, batch: HistoryBatch) -> None:
    """A reset leaves every bit of the other rows as it was; without rows it does nothing."""
    agent = Agent(policy)
    _, state = relive(agent, batch.at(slice(0, 2)))
    for rows in ([], [1]):
        others = [row for row in range(3) if row not in rows]
        before = [value[others].clone() for value in _held(state)]
        agent.reset(state, torch.tensor(rows, dtype=torch.int64))
        untouched = all(torch.equal(a[others], b) for a, b in zip(_held(state), before, strict=True))
        require("rows do not mix", untouched, f"a reset of the rows {rows} changes others")


def _held(state: AgentState) -> list[Tensor]:
    caches = [part for cache in state.caches for part in (cache.keys, cache.values)]
    return [*state.memory.values(), state.tokens, state.num_raw, state.num_new, state.has_last, *caches]


def check_no_future(policy: Policy, spaces: Spaces, batch: HistoryBatch) -> None:
    """Editing what comes after any decision changes nothing up to it, through the latents neither."""
    one = batch.rows(torch.zeros(batch.length, dtype=torch.int64))  # row i is edited after its decision i
    edited = edit_after(one, random_batch(spaces, size=batch.length, length=batch.length, seed=3))
    gaps = (policy(one).ask(policy.head) - policy(edited).ask(policy.head)).abs().amax(-1)
    early = torch.ones_like(gaps).tril().bool()
    worst = float(gaps[early].max())
    first = torch.nonzero((gaps > TOLERANCE) & early).tolist()[:1]
    allowed = TOLERANCE if policy.context.by_row else 0.0  # there an edit may change how many windows pass together
    require(
        "no future", worst <= allowed, f"editing what follows a decision changes it by {worst:.2g} (row, t: {first})"
    )


def _check_prefix(policy: Policy, spaces: Spaces, batch: HistoryBatch) -> None:
    """Every decision depends on the latents, also those before the first write."""
    if not policy.context.num_latents:
        return
    stirred = _wrapped(policy.spec, _Stirred).build(spaces, seed=1).eval()
    moved = (stirred(batch).ask(stirred.head) - policy(batch).ask(policy.head)).abs().amax(-1)
    blind = torch.nonzero(moved == 0)[:, 1].unique().tolist()
    require("no decision without latents", not blind, f"other latents change nothing at the decisions {blind}")


@frozen
class _WrappedSpec:
    """Builds the compressor of the spec *inner*, wrapped."""

    inner: Any
    wrap: Callable[[Compressor], Compressor]

    @property
    def num_latents(self) -> int:
        return int(self.inner.num_latents)

    def build(self, width: int) -> Compressor:
        return self.wrap(self.inner.build(width))


def _wrapped(spec: PolicySpec, wrap: Callable[[Compressor], Compressor]) -> PolicySpec:
    """Return the spec of the same policy, with the same weights, whose compressor is wrapped."""
    return evolve(spec, compressor=_WrappedSpec(spec.compressor, wrap))


class _Stirred(Wrapped):
    """Writes as ever, but what is read is noise."""

    def read(self, state: State) -> Tensor:
        prefix = self.inner.read(state)
        return torch.randn(prefix.shape, generator=torch.Generator().manual_seed(0))


def _check_writes(policy: Policy, batch: HistoryBatch) -> None:
    """A pass does the writes that were asked for, one before every decision at which the rolling context says so."""
    law, context = "writes asked for are writes done", policy.context
    for length in (*(context.length_of(wanted) for wanted in (0, 1, 2)), batch.length):
        num_raw = num_new = asked = torch.zeros(batch.size, dtype=torch.int64)
        for t in range(length):
            ended = (batch.terminations | batch.truncations)[:, t - 1] & (t > 0)
            due = context.due(num_raw, num_new, ended)
            asked, num_new = asked + due, torch.where(due, 1, num_new + 1)
            num_raw = torch.where(due, num_raw.clamp(max=context.carry), num_raw) + 1
        wanted, done = asked.tolist(), policy(batch.at(slice(0, length))).windows.num_writes.tolist()
        require(law, done == wanted, f"{wanted} wanted, {done} done in {length} decisions")
        if not context.by_row:
            wanted = [context.num_writes(length)] * batch.size
            require(law, done == wanted, f"{wanted} expected, {done} done in {length} decisions")


def check_mask(policy: Policy, spaces: Spaces, batch: HistoryBatch) -> None:
    """Garbage after a history's end does not reach the loss."""
    spec = ImitationSpec(reconstruction=ReconstructionTerm(weight=0.1))
    objective, weights = spec.build(policy), spec.weights(0.0)
    mask = torch.arange(batch.length) < torch.tensor([batch.length, policy.context.first_segment - 2, 0])[:, None]
    ended = evolve(batch, mask=mask)
    dirty = padded_with_garbage(ended, random_batch(spaces, size=3, length=batch.length, seed=4))
    num_targets = float(mask.sum())
    losses, others = objective(ended, num_targets, weights), objective(dirty, num_targets, weights)
    for name, value in losses.items():
        require("padding is invisible", bool(value.isfinite()), f"'{name}' is not finite where a history has ended")
        same("padding is invisible", others[name], value, f"'{name}' with garbage after the end and without")


def _check_gradients(spec: PolicySpec, spaces: Spaces, batch: HistoryBatch) -> None:
    """The last decisions' loss reaches every write within the horizon on which they depend, and none beyond it."""
    policy = _wrapped(spec, _Spy).build(spaces, seed=1)
    law, spy = "gradients reach the newest writes and stop at the horizon", policy.compressor
    if not policy.context.num_latents:
        return

    def decided(horizon: int | None, stirred: int | None = None) -> tuple[Tensor, Windows]:
        spy.tokens, spy.stirred = [], stirred
        decisions = policy(batch, horizon=horizon, moment=Moment(shared_seed=0))  # the same windows each time
        return decisions.ask(policy.head), decisions.windows

    with torch.no_grad():
        plain, windows = decided(None)
        is_last = (torch.arange(batch.length) >= windows.newest[:, None])[..., None]  # b t 1
        moved = [decided(None, i)[0] - plain for i in range(len(spy.tokens))]
    matters = torch.stack([(gap * is_last).flatten(1).any(1) for gap in moved])  # write b
    require(law, bool(matters.any(0).all()), f"the newest decisions depend on none of {len(matters)} writes")
    age = windows.num_writes - torch.arange(len(matters))[:, None]  # write b; 1: the newest; below: no such write
    for horizon in (1, 2, None):
        (decided(horizon)[0] * is_last).square().mean().backward(inputs=spy.tokens)
        reached = torch.zeros_like(matters)
        for index, tokens in enumerate(spy.tokens):
            reached[index, age[index] > 0] = False if tokens.grad is None else tokens.grad.flatten(1).any(1)
        wanted = matters & (age <= (horizon or len(matters)))
        what = f"with horizon {horizon}, writes reached are {reached.T.tolist()}, wanted {wanted.T.tolist()} (by row)"
        require(law, torch.equal(reached, wanted), what)
    decided(None)[0].square().mean().backward(inputs=list(spy.inner.parameters()))
    dead = [name for name, p in spy.inner.named_parameters() if p.grad is None or not bool(p.grad.any())]
    require(law, not dead, f"no gradient reaches {', '.join(dead)}")


class _Spy(Wrapped):
    """Lets a compressor work, and keeps the tokens of each write as leaves whose gradient can be read.

    Those of the write numbered *stirred* are moved a little.
    """

    def __init__(self, inner: Compressor) -> None:
        super().__init__(inner)
        self.tokens: list[Tensor] = []
        self.stirred: int | None = None

    def read(self, state: State) -> Tensor:
        return self.inner.read(state)

    def write(self, state: State, segment: Segment) -> tuple[State, dict[str, Tensor]]:
        tokens = segment.tokens.detach()
        if len(self.tokens) == self.stirred:
            tokens = tokens + 0.01 * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))
        self.tokens.append(tokens.requires_grad_(True))
        return self.inner.write(state, evolve(segment, tokens=self.tokens[-1]))


def _check_round_trip(policy: Policy, batch: HistoryBatch) -> None:
    """A released policy decides as before."""
    with TemporaryDirectory() as folder:
        save_policy(folder, policy, train_task_ids=("a/b",), card="")
        loaded = load_policy(folder)
    law, weights = "spec and weights round-trip", loaded.state_dict()
    require(law, loaded.spec == policy.spec, f"spec became {loaded.spec}")
    for name, value in policy.state_dict().items():
        same(law, weights[name], value, f"weights '{name}'", 0)
    same(law, loaded(batch).ask(loaded.head), policy(batch).ask(policy.head), "parameters")
