"""The laws of a compressed window: it writes when its context says so, and every decision and write counts."""

from collections.abc import Callable
from typing import Any, cast

import torch
from attrs import evolve, frozen
from torch import Tensor

from cccad_core.batch import HistoryBatch
from cccad_core.compressors.base import Compressor, Segment, State
from cccad_core.laws.law import require
from cccad_core.memory.compressed import Compressed, Folded
from cccad_core.memory.controls import Wrapped
from cccad_core.memory.moment import Moment
from cccad_core.memory.windows import Windows
from cccad_core.policy import Policy, PolicySpec
from cccad_core.spaces import Spaces


def windows_of(policy: Policy, batch: HistoryBatch) -> Windows:
    """Return the windows in which *policy*, whose memory is a compressed one, decides."""
    return cast(Folded, policy(batch).writes).windows


def check_prefix(policy: Policy, batch: HistoryBatch) -> None:
    """Every decision depends on the latents, also those before the first write."""
    if not policy.spec.num_latents:
        return
    stirred = _wrapped(policy.spec, _Stirred).build(policy.spaces, seed=1).eval()
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
    return evolve(spec, memory=evolve(spec.memory, compressor=_WrappedSpec(spec.memory.compressor, wrap)))


class _Stirred(Wrapped):
    """Writes as ever, but what is read is noise."""

    def read(self, state: State) -> Tensor:
        prefix = self.inner.read(state)
        return torch.randn(prefix.shape, generator=torch.Generator().manual_seed(0))


def check_writes(policy: Policy, batch: HistoryBatch) -> None:
    """A pass does the writes that were asked for, one before every decision at which the rolling context says so."""
    law, context = "writes asked for are writes done", cast(Compressed, policy.memory).context
    for length in (*(context.length_of(wanted) for wanted in (0, 1, 2)), batch.length):
        num_raw = num_new = asked = torch.zeros(batch.size, dtype=torch.int64)
        for t in range(length):
            ended = (batch.terminations | batch.truncations)[:, t - 1] & (t > 0)
            due = context.due(num_raw, num_new, ended)
            asked, num_new = asked + due, torch.where(due, 1, num_new + 1)
            num_raw = torch.where(due, num_raw.clamp(max=context.carry), num_raw) + 1
        wanted, done = asked.tolist(), windows_of(policy, batch.at(slice(0, length))).num_writes.tolist()
        require(law, done == wanted, f"{wanted} wanted, {done} done in {length} decisions")
        if not context.by_row:
            wanted = [context.num_writes(length)] * batch.size
            require(law, done == wanted, f"{wanted} told beforehand, {done} done in {length} decisions")


def check_gradients(spec: PolicySpec, spaces: Spaces, batch: HistoryBatch) -> None:
    """The last decisions' loss reaches every write within the horizon on which they depend, and none beyond it."""
    policy = _wrapped(spec, _Spy).build(spaces, seed=1)
    law = "gradients reach the newest writes and stop at the horizon"
    spy = cast(_Spy, cast(Compressed, policy.memory).compressor)
    if not spec.num_latents:
        return

    def decided(horizon: int | None, stirred: int | None = None) -> tuple[Tensor, Windows]:
        spy.tokens, spy.stirred = [], stirred
        decisions = policy(batch, horizon=horizon, moment=Moment(shared_seed=0))  # the same windows each time
        return decisions.ask(policy.head), cast(Folded, decisions.writes).windows

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
