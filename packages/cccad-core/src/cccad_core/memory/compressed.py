"""The compressed window: latents before the newest tokens, read by a backbone, and written when a trigger says so."""

from typing import Annotated, Any

import torch
from attrs import define, field, frozen, validators
from torch import Tensor

from cccad_core.batch import HistoryBatch
from cccad_core.compressors.base import (
    Compressor,
    Segment,
    State,
    Think,
    add_rows,
    detach,
    keep_rows,
    put_rows,
    take_rows,
)
from cccad_core.compressors.gated_query import GatedQuerySpec
from cccad_core.memory.attention import AttentionRecord, Cache
from cccad_core.memory.backbone import Backbone
from cccad_core.memory.base import Decisions, Memory, MemoryState, Tokens
from cccad_core.memory.context import RollingContext
from cccad_core.memory.moment import CALM, Moment
from cccad_core.memory.triggers import FullTrigger
from cccad_core.memory.windows import Windows, Write
from cccad_core.registry import refuse_what_lacks
from cccad_core.specs import Kind


@frozen(kw_only=True)
class CompressedSpec:
    """A window that is folded into latents whenever it is full, read by a decoder-only transformer."""

    window: int = field(default=60, validator=validators.ge(2), metadata={"help": "slots, latents included"})
    carry: int = field(default=0, validator=validators.ge(0), metadata={"help": "raw transitions kept across a write"})
    trigger: Annotated[Any, Kind("trigger")] = field(
        factory=FullTrigger, metadata={"help": "when a write comes before the window is full"}
    )
    compressor: Annotated[Any, Kind("compressor")] = field(
        factory=GatedQuerySpec, metadata={"help": "what becomes of what leaves the window"}
    )
    num_layers: int = field(
        default=2, validator=[validators.ge(1), validators.le(1_000)], metadata={"help": "of the backbone"}
    )
    num_heads: int = field(default=4, validator=validators.ge(1), metadata={"help": "attention heads of the backbone"})
    mlp_ratio: int = field(
        default=4,
        validator=validators.ge(1),
        metadata={"help": "width of the backbone's hidden layers, in widths of the model"},
    )

    def __attrs_post_init__(self) -> None:
        """Check that its parts are whole: raises BrokenPart."""
        refuse_what_lacks(self.trigger, "trigger")
        refuse_what_lacks(self.compressor, "compressor")

    @property
    def num_latents(self) -> int:
        """Latents that stand before the window."""
        return int(self.compressor.num_latents)

    def is_plain(self, width: int) -> bool:
        """Say whether what leaves the window is forgotten, as in plain Algorithm Distillation."""
        return not self.num_latents and bool(self.compressor.build(width).evicts)

    def check(self, width: int, slots: int) -> None:
        """Check sizes against one another: raises ValueError."""
        # Rotary positions turn features of a head by pairs.
        if width % (2 * self.num_heads):
            raise ValueError(f"'width' must be a multiple of 2 * num_heads = {2 * self.num_heads}: {width}")
        self.context(self.num_latents, slots=slots)

    def least_bytes(self, width: int) -> int:
        """Return the bytes of the backbone's matrices and of its tables by position."""
        # Queries, keys, values and output, and both sides of the hidden layer; 4 bytes are those of fp32.
        matrices = self.num_layers * (4 + 2 * self.mlp_ratio) * width**2
        return 4 * (matrices + 2 * self.window * (width // self.num_heads))

    def context(self, num_latents: int, *, slots: int, evicts: bool = True) -> RollingContext:
        """Return the rule of the window, for so many latents and transitions of *slots*; see `RollingContext`."""
        trigger = self.trigger.build()
        return RollingContext(
            window=self.window,
            carry=self.carry,
            trigger=trigger,
            num_latents=num_latents,
            slots=slots,
            evicts=evicts,
        )

    def build(self, width: int, slots: int) -> "Compressed":
        compressor = self.compressor.build(width)
        context = self.context(compressor.num_latents, slots=slots, evicts=compressor.evicts)
        # A compressor may think with the backbone over more than the window shows, and needs positions for it.
        longest = max(self.window, compressor.num_thought(context.first_segment * slots))
        backbone = Backbone(width, self.num_layers, self.num_heads, self.mlp_ratio, longest)
        return Compressed(compressor, backbone, context)


@define(kw_only=True)
class CompressedState(MemoryState):
    """What *b* windows hold.

    `latents` is the compressor's state; `tokens` `b w d` the raw tokens in the window and `num_raw` `b` how many whole
    transitions they are, of which the last `num_new` are not folded yet; `caches` keys and values by layer.
    """

    latents: State
    tokens: Tensor
    num_raw: Tensor
    num_new: Tensor
    caches: list[Cache]


# The fold: one loop over the writes of a pass, whatever their geometry ----------------------------------------------


@define
class Fold:
    """What a fold leaves.

    `reads`: what all rows can read before the first write and after each; `state`: the last of every row; `auxiliary`:
    the compressor's own losses by name, summed over the writes, `b`.
    """

    reads: list[Tensor]
    state: State
    auxiliary: dict[str, Tensor]


@define
class Folded(Fold):
    """What the writes of a pass leave: its `windows`, and the `prefixes` that they show, as they arrange them."""

    windows: Windows
    prefixes: list[Tensor]

    @property
    def num_writes(self) -> Tensor:
        """Writes in each row, `b`, on the CPU."""
        return self.windows.num_writes

    @property
    def most_writes(self) -> int:
        """Writes in the row with the most."""
        return self.windows.most_writes

    def folded(self, batch: HistoryBatch, behind: int) -> list[tuple[Tensor, HistoryBatch]]:
        """Return latents with the transitions that were folded into them; see `Windows.folded`."""
        return self.windows.folded(self.prefixes, batch, behind)


def fold(
    compressor: Compressor, writes: list[Write], state: State, *, think: Think, horizon: int | None = None
) -> Fold:
    """Do every write, from *state* on.

    Gradients of a row's last window reach its *horizon* newest writes (all when None): the input state of every write
    that many rounds back is detached, so the newest writes always learn. Raises ValueError unless horizon >= 1.
    """
    if horizon is not None and horizon < 1:
        raise ValueError(f"'max_gradient_rounds' must be >= 1, or None for all: {horizon}")
    done = Fold([compressor.read(state)], state, {})
    size = len(done.reads[0])
    for write in writes:
        # The state is cut before a write, never what was read after one: each window still teaches the write before it.
        before = _cut(take_rows(done.state, write.rows), write.num_left, horizon)
        segment = Segment(tokens=write.tokens, mask=write.mask, think=think)
        after, losses = compressor.write(before, segment)
        done.state = put_rows(done.state, write.rows, after)
        done.reads.append(compressor.read(done.state))
        for name, loss in losses.items():
            total = done.auxiliary.get(name, loss.new_zeros(size))
            done.auxiliary[name] = add_rows(total, write.rows, loss)
    return done


def _cut(state: State, num_left: int | Tensor, horizon: int | None) -> State:
    """Return *state*, detached in the rows whose *num_left* writes from here on are as many as the horizon allows."""
    if horizon is None:
        return state
    # Counted from the end, so that in every row, however many its writes, the last window has the whole horizon
    # behind it; counted from the birth, what is left over would fall on the newest writes.
    if isinstance(num_left, int):
        return detach(state) if num_left % horizon == 0 else state
    return keep_rows(detach(state), state, num_left % horizon == 0)


# The memory: passes over batches, and lives -------------------------------------------------------------------------


def compressed(memory: Memory[Any]) -> "Compressed":
    """Return *memory*, which must be a compressed one; raises TypeError where it is not."""
    if not isinstance(memory, Compressed):
        raise TypeError(f"a compressed memory is needed, and this is {type(memory).__name__}")
    return memory


class Compressed(Memory[CompressedState]):
    """A backbone that reads the latents of a *compressor* and, behind them, a window that *context* rules.

    Training and lives follow the same context, so a life is the training pass taken one decision at a time.

    Args:
        compressor: what is folded, and how it is read.
        backbone: what decides, and what a compressor may think with.
        context: when a write comes, and what stays raw.
        is_cached: False computes the whole window anew for every decision of a life: the reference, and slow.
    """

    shared = ("backbone",)

    def __init__(
        self, compressor: Compressor, backbone: Backbone, context: RollingContext, *, is_cached: bool = True
    ) -> None:
        super().__init__()
        if compressor.num_latents != context.num_latents:
            raise ValueError(
                f"the window has room for {context.num_latents} latents, "
                f"not for the {compressor.num_latents} of this compressor"
            )
        self.compressor = compressor
        self.backbone = backbone
        self.context, self.is_cached = context, is_cached
        self.is_bounded = context.evicts
        self.num_layers, self.num_heads = len(backbone.blocks), backbone.num_heads

    # The same weights, another way: nothing that they are made of is changed.

    def with_compressor(self, compressor: Compressor) -> "Compressed":
        """Return a memory that writes and reads by another *compressor* with as many latents."""
        return Compressed(compressor, self.backbone, self.context, is_cached=self.is_cached)

    def sliding(self) -> "Compressed":
        """Return a memory whose plain window slides instead of being emptied; see `RollingContext.sliding`."""
        return Compressed(self.compressor, self.backbone, self.context.sliding(), is_cached=self.is_cached)

    def uncached(self) -> "Compressed":
        """Return the slow reference, which computes the whole window anew for every decision of a life."""
        return Compressed(self.compressor, self.backbone, self.context, is_cached=False)

    # A pass over a batch

    def forward(self, tokens: Tokens, *, horizon: int | None = None, moment: Moment = CALM) -> Decisions:
        writes, slots = self.remember(tokens, horizon=horizon, moment=moment), self.context.slots
        shown = writes.windows.shown(writes.prefixes, tokens.history, tokens.queries)
        # Of each transition the first slot decides: at those behind it the action is visible.
        hidden = [self.backbone(*together)[:, ::slots] for together in shown]
        return Decisions(hidden=hidden, in_time=writes.windows.in_time, auxiliary=writes.auxiliary, writes=writes)

    def remember(self, tokens: Tokens, *, horizon: int | None = None, moment: Moment = CALM) -> Folded:
        """Fold the *tokens* of a batch in without deciding anything: what pre-training asks for.

        Rows begin with the learned memory. Where *moment* passes states, some begin with the final state of another row
        of this very batch instead, which takes a fold without gradients before the one that counts.
        """
        size, think = len(tokens.mask), self.backbone.think
        windows = self.context.windows(tokens.flags, moment, tokens.mask.device)
        writes, state = windows.writes(tokens.history, tokens.mask), self.compressor.begin(size)
        if moment.lends(size):
            # Without gradients: what is lent is where a life stands, and through it a row would train the memory of
            # another.
            with torch.no_grad():
                final = fold(self.compressor, writes, state, think=think).state
            torch.clear_autocast_cache()  # or weights that were cast here would get no gradient in the second fold
            state = moment.lend(final, state)
        done = fold(self.compressor, writes, state, think=think, horizon=horizon)
        # Noise on what is shown alone: in the state it would pile up from write to write.
        return Folded(done.reads, done.state, done.auxiliary, windows, moment.blur(windows.prefixes(done.reads)))

    def length_of(self, num_writes: float) -> int:
        return self.context.length_of(num_writes)

    @property
    def state_bytes(self) -> int:
        latents = self.compressor.begin(1)
        example, context = self.compressor.read(latents), self.context
        # In vectors of the model's width: raw tokens, then a key and a value by layer and slot.
        slots = context.first_segment * context.slots + 2 * self.num_layers * context.window
        held = sum(value.numel() * value.element_size() for value in latents.values() if value.dim() > 1)
        return held + slots * example.shape[-1] * example.element_size()

    # Lives, one decision at a time

    def begin(self, size: int) -> CompressedState:
        example = self.compressor.read(self.compressor.begin(1))
        zeros = torch.zeros(size, dtype=torch.int64, device=self.device)
        state = CompressedState(
            latents={name: value.clone() for name, value in self.compressor.begin(size).items()},
            tokens=example.new_zeros(size, self.context.first_segment * self.context.slots, example.shape[-1]),
            # Clones: counters are changed in place, each by itself.
            num_raw=zeros.clone(),
            num_new=zeros.clone(),
            caches=self.backbone.empty_cache(size, self.context.window, example),
            num_writes=zeros.clone(),
        )
        self._show_latents(state, torch.arange(size, device=self.device))
        return state

    def reset(self, state: CompressedState, rows: Tensor) -> None:
        state.latents = put_rows(state.latents, rows, self.compressor.begin(len(rows)))
        for counter in (state.num_raw, state.num_new, state.num_writes):
            counter[rows] = 0
        self._show_latents(state, rows)

    def prepare(self, state: CompressedState, ended: Tensor) -> None:
        full = torch.nonzero(self.context.due(state.num_raw, state.num_new, ended))[:, 0]
        if len(full):
            self._write(state, full)
        if not self.context.evicts:
            # Only here does a window grow: elsewhere a write makes room.
            self._make_room(state)

    def decide(
        self, state: CompressedState, token: Tensor, *, is_query: bool, record: AttentionRecord | None = None
    ) -> Tensor:
        return self._place(state, token, 0, record)  # what settles overwrites a query

    def settle(self, state: CompressedState, tokens: list[Tensor]) -> None:
        # Right-aligned: what a layout decides by, unless it is a query, is the first token of the transition and stays.
        for offset, token in enumerate(tokens, start=self.context.slots - len(tokens)):
            self._place(state, token, offset)
        state.num_raw += 1
        state.num_new += 1

    def _place(
        self, state: CompressedState, token: Tensor, offset: int, record: AttentionRecord | None = None
    ) -> Tensor:
        """Put one token, `b d`, *offset* slots behind every row's raw ones, and return its hidden state, `b 1 d`."""
        rows = torch.arange(len(token), device=token.device)
        place = state.num_raw * self.context.slots + offset
        state.tokens[rows, place] = token
        slots = place + self.context.num_latents
        if record is not None:
            record.slots, record.shares = slots, []
        if self.is_cached:
            return self.backbone.decide(token[:, None], slots, state.caches, record)
        # Younger rows have stale tokens behind theirs, where causal attention hides them.
        shown = torch.cat([self.compressor.read(state.latents), state.tokens[:, : int(place.max()) + 1]], 1)
        hidden = self.backbone.think(shown, torch.arange(shown.shape[1], device=token.device), None)
        return hidden[rows, slots][:, None]

    def _make_room(self, state: CompressedState) -> None:
        """Double the window where a whole life stays in it and has filled it."""
        if (int(state.num_raw.max()) + 1) * self.context.slots <= state.tokens.shape[1]:
            return
        # Doubled, so that a long life copies each of its tokens at most twice on average.
        state.tokens = torch.cat([state.tokens, torch.zeros_like(state.tokens)], 1)
        state.caches = [cache.doubled() for cache in state.caches]
        self.backbone.rotary.reserve(state.caches[0].keys.shape[2])

    def _write(self, state: CompressedState, rows: Tensor) -> None:
        """Fold the new tokens of the lives *rows*, where a write is due, and keep the last few raw."""
        context, slots = self.context, self.context.slots
        # Lives of other ages may write together; those with the same counts fold segments of one length, without
        # padding, as each would alone.
        for num_raw, num_new in torch.stack([state.num_raw, state.num_new], 1)[rows].unique(dim=0).tolist():
            some = rows[(state.num_raw[rows] == num_raw) & (state.num_new[rows] == num_new)]
            tokens = state.tokens[some, (num_raw - num_new) * slots : num_raw * slots]
            segment = Segment(tokens=tokens, think=self.backbone.think)
            written, _ = self.compressor.write(take_rows(state.latents, some), segment)
            state.latents = put_rows(state.latents, some, written)
            kept = min(context.carry, num_raw)
            # Source and target may overlap; indexing by *some* copies the source first.
            state.tokens[some, : kept * slots] = state.tokens[some, (num_raw - kept) * slots : num_raw * slots]
            state.num_raw[some] = kept
        state.num_new[rows] = 0
        state.num_writes[rows] += 1
        self._show_latents(state, rows)

    def _show_latents(self, state: CompressedState, rows: Tensor) -> None:
        """Fill the caches of *rows* with what their windows hold right after a write: latents and carried tokens."""
        if not len(rows):
            return
        # Computed anew, though some were cached: carried tokens now stand at other slots, behind other latents.
        carried = state.tokens[rows, : int(state.num_raw[rows].max()) * self.context.slots]  # no row sees more
        shown = torch.cat([self.compressor.read(take_rows(state.latents, rows)), carried], 1)
        if not shown.shape[1]:
            return
        kept = self.backbone.keys_and_values(shown)
        for cache, (keys, values) in zip(state.caches, kept, strict=True):
            cache.keys[rows, :, : keys.shape[2]] = keys
            cache.values[rows, :, : values.shape[2]] = values
