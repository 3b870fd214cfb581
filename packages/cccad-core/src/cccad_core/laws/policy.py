"""The laws of a whole policy: what an agent decides is what training saw, and nothing comes from the future."""

from tempfile import TemporaryDirectory

import torch
from attrs import evolve
from torch import Tensor

from cccad_core.agent import Agent, AgentState
from cccad_core.artefact import load_policy, save_policy
from cccad_core.batch import HistoryBatch
from cccad_core.laws.compressed import check_gradients, check_prefix, check_writes
from cccad_core.laws.law import TOLERANCE, require, same
from cccad_core.laws.noise import SPACES, edit_after, padded_with_garbage, random_batch
from cccad_core.memory.base import Decisions, Rebuildable
from cccad_core.memory.compressed import Compressed
from cccad_core.objectives.imitation import ImitationSpec
from cccad_core.objectives.terms import ReconstructionTerm
from cccad_core.policy import Policy, PolicySpec
from cccad_core.spaces import Spaces

MOST_EDITED = 100  # of the law "no future": decisions after which a history is edited


def check_policy(spec: PolicySpec, *, spaces: Spaces = SPACES) -> None:
    """Check every law that a whole policy must keep; raises LawBroken."""
    policy = spec.build(spaces, seed=1).eval()
    length = max(policy.memory.length_of(3) - 1, room_of(policy) + 6)
    batch = random_batch(spaces, size=3, length=length, seed=2)
    with torch.no_grad():
        if isinstance(policy.memory, Compressed):
            check_writes(policy, batch)
            check_prefix(policy, batch)
        check_no_future(policy, spaces, batch)
        check_lives(policy, batch)
        _check_reset(policy, batch)
        check_mask(policy, spaces, batch)
        _check_round_trip(policy, batch)
    if isinstance(policy.memory, Compressed):
        check_gradients(spec, spaces, batch)


def room_of(policy: Policy) -> int:
    """Return how many decisions an empty window has room for, or a stretch without a write has."""
    memory = policy.memory
    return memory.context.first_segment if isinstance(memory, Compressed) else memory.length_of(0)


def relive(agent: Agent, batch: HistoryBatch, *, restart_at: int | None = None) -> tuple[Tensor, AgentState]:
    """Take *batch* one decision at a time, the recorded actions forced; return parameters, `b t a`, and the state.

    Before decision *restart_at* row 1 begins a new life.
    """
    state, parameters = agent.begin(batch.size), []
    for t in range(batch.length):
        if t == restart_at:
            agent.reset(state, torch.tensor([1]))
        parameters.append(live_on(agent, state, batch, t))
    return torch.stack(parameters, 1), state


def live_on(agent: Agent, state: AgentState, batch: HistoryBatch, t: int) -> Tensor:
    """Take decision *t* of *batch*, the recorded action forced, and what it led to; return parameters, `b a`."""
    parameters = agent.decide(state, batch.observations[:, t])
    state.last.actions[:, 0] = batch.actions[:, t]
    ended = batch.terminations[:, t], batch.truncations[:, t]
    agent.observe(state, batch.rewards[:, t], *ended, batch.next_observations[:, t])
    return parameters


def check_lives(policy: Policy, batch: HistoryBatch) -> None:
    """A life of the agent, cached or not, is the training pass, whatever happens to other lives beside it."""
    restart = room_of(policy) + 2  # after a write, within a window: rows write apart from then on
    dense, memory = policy(batch), policy.memory
    plain, state = relive(Agent(policy, memory.uncached() if isinstance(memory, Compressed) else None), batch)
    cached, staggered = relive(Agent(policy), batch, restart_at=restart)
    same("one decision at a time equals the training pass", plain, dense.ask(policy.head), "parameters")
    same("cached equals uncached", cached[:, :restart], plain[:, :restart], "parameters")
    later = policy(batch.at(slice(restart, None)))
    what = "decisions of rows 0 and 2, when row 1 begins anew,"
    same("rows do not mix", cached[[0, 2], restart:], plain[[0, 2], restart:], what)
    what = "decisions of a reset row and of a training pass from there"
    same("a reset row is a fresh row", cached[1, restart:], later.ask(policy.head)[1], what)
    done, wanted = state.num_writes.tolist(), num_writes(dense).tolist()
    require("writes asked for are writes done", done == wanted, f"{done} in lives, {wanted} in the pass")
    done, wanted[1] = staggered.num_writes.tolist(), int(num_writes(later)[1])
    require("writes asked for are writes done", done == wanted, f"{done} in staggered lives, {wanted} in the pass")


def num_writes(decisions: Decisions) -> Tensor:
    """Return the writes of a pass in each row, `b`."""
    if decisions.writes is None:
        return torch.zeros(len(decisions.hidden[0]), dtype=torch.int64)
    return decisions.writes.num_writes


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
    return [*state.memory.tensors().values(), state.has_last, state.num_decisions]


def check_no_future(policy: Policy, spaces: Spaces, batch: HistoryBatch) -> None:
    """Editing what comes after any decision changes nothing up to it, through the latents neither."""
    at = torch.linspace(0, batch.length - 1, min(batch.length, MOST_EDITED)).round().long()
    one = batch.rows(torch.zeros_like(at))  # row i is edited after its decision at[i]
    edited = edit_after(one, random_batch(spaces, size=len(at), length=batch.length, seed=3), at)
    gaps = (policy(one).ask(policy.head) - policy(edited).ask(policy.head)).abs().amax(-1)
    early = torch.arange(batch.length) <= at[:, None]
    worst = float(gaps[early].max())
    first = torch.nonzero((gaps > TOLERANCE) & early).tolist()[:1]
    is_exact = isinstance(policy.memory, Compressed) and not policy.memory.context.by_row
    allowed = 0.0 if is_exact else TOLERANCE  # where rows write apart, an edit changes how many windows pass together
    require(
        "no future", worst <= allowed, f"editing what follows a decision changes it by {worst:.2g} (row, t: {first})"
    )


def check_mask(policy: Policy, spaces: Spaces, batch: HistoryBatch) -> None:
    """Garbage after a history's end does not reach the loss."""
    folds = isinstance(policy.memory, Rebuildable)
    spec = ImitationSpec(reconstruction=ReconstructionTerm(weight=0.1 if folds else 0.0))
    objective, weights = spec.build(policy), spec.weights(0.0)
    mask = torch.arange(batch.length) < torch.tensor([batch.length, max(1, room_of(policy) - 2), 0])[:, None]
    ended = evolve(batch, mask=mask)
    dirty = padded_with_garbage(ended, random_batch(spaces, size=3, length=batch.length, seed=4))
    num_targets = float(mask.sum())
    losses, others = objective(ended, num_targets, weights), objective(dirty, num_targets, weights)
    for name, value in losses.items():
        require("padding is invisible", bool(value.isfinite()), f"'{name}' is not finite where a history has ended")
        same("padding is invisible", others[name], value, f"'{name}' with garbage after the end and without")


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
