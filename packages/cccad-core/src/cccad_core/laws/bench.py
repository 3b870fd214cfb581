"""The laws of a compressor alone: explicit state, rows apart, padding invisible, bounds kept, costs as declared."""

from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from cccad_core.compressors.base import Compressor, Segment, State
from cccad_core.laws.law import require, same
from cccad_core.memory.backbone import Backbone

NUM_WRITES, FEW_WRITES = 1_000, 100  # of the law "bounded state"


@frozen
class Bench:
    """A compressor *under* test, and a small backbone for those that write with one."""

    under: Compressor
    width: int
    num_latents: int
    backbone: Backbone

    @classmethod
    def of(cls, spec: Any, width: int, num_heads: int = 2) -> "Bench":
        """Build what *spec* describes, and a backbone of one layer."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            backbone = Backbone(width, num_layers=1, num_heads=num_heads, mlp_ratio=2, window=8).eval()
            built = spec.build(width)
        is_whole = isinstance(built, Compressor)
        require("a compressor is built", is_whole, f"build() returns {type(built).__name__}, which is no Compressor")
        agreed = getattr(built, "num_latents", None) == spec.num_latents
        require("declared size", agreed, f"the spec has num_latents = {spec.num_latents}, what it builds has not")
        return cls(built.eval(), width, spec.num_latents, backbone)

    def tokens(self, *, size: int = 3, length: int = 6, seed: int = 0) -> Tensor:
        """Return noise, `b s d`."""
        return torch.randn(size, length, self.width, generator=torch.Generator().manual_seed(seed))

    def write(self, state: State, tokens: Tensor, mask: Tensor | None = None) -> tuple[State, dict[str, Tensor]]:
        """Fold *tokens* in."""
        written = self.under.write(state, Segment(tokens=tokens, mask=mask, think=self.backbone.think))
        is_pair = isinstance(written, tuple) and len(written) == 2 and all(isinstance(part, dict) for part in written)
        what = "write() must return a pair: the new state, and losses by name, each a dictionary"
        require("explicit state", is_pair, what)
        return written

    @torch.no_grad()
    def check(self) -> None:
        """Check every law of a compressor alone; raises LawBroken."""
        self.check_state()
        self.check_padding()
        self.check_costs()
        self.check_bounded()

    @torch.no_grad()
    def check_quickly(self) -> None:
        """Check what would spoil a run's numbers without a word; takes a few tenths of a second."""
        self.check_state()
        self.check_padding()
        self.check_bounded(FEW_WRITES)

    def check_state(self) -> None:
        """The state is explicit and whole, what is handed in stays as it was, and rows do not mix."""
        read, tokens, other = self.under.read, self.tokens(), self.tokens(seed=1)
        before = self.under.begin(3)
        self._check_shape("begin", before)
        kept, prefix = {name: value.clone() for name, value in before.items()}, read(before)
        after, losses = self.write(before, tokens)
        what = f"its fields change from {sorted(before)} to {sorted(after)}"
        require("explicit state", set(after) == set(before), what)
        self._check_shape("write", after)
        same("explicit state", read(before), prefix, "two reads of one state, a write between,", 0)
        for name, value in losses.items():
            require("losses by row", value.shape == (3,), f"loss '{name}' has shape {tuple(value.shape)}, not (3,)")
        self.write(after, other)
        again, _ = self.write(self.under.begin(3), tokens)
        for name in after:
            same("explicit state", again[name], after[name], f"'{name}' of one write, done twice,", 0)
            same("explicit state", before[name], kept[name], f"'{name}' handed to a write, before and after it,", 0)
        changed, _ = self.write(before, torch.cat([tokens[:1], other[1:2], tokens[2:]]))
        for name in after:
            both = changed[name][[0, 2]], after[name][[0, 2]]
            same("rows do not mix", *both, f"rows 0 and 2 of '{name}', when row 1's segment changes,", 0)

    def _check_shape(self, when: str, state: State) -> None:
        values = state.values() if isinstance(state, dict) else [None]
        whole = all(isinstance(value, Tensor) and value.shape[:1] == (3,) for value in values)
        require("explicit state", whole, f"what {when}() returns must be tensors by name, rows first")
        prefix = self.under.read(state)
        require("declared size", isinstance(prefix, Tensor), f"read() returns {type(prefix).__name__}, not a tensor")
        shape, wanted = tuple(prefix.shape), (3, self.num_latents, self.width)
        require("declared size", shape == wanted, f"after {when}() read() gives {shape}, not {wanted}")
        is_finite = bool(prefix.isfinite().all())
        require("finite values", is_finite, f"after {when}() read() gives values that are no finite numbers")

    def check_padding(self) -> None:
        """What a mask hides changes nothing, and a masked write equals a shorter one; row 2 is padding throughout."""
        law, tokens, begun = "padding is invisible", self.tokens(), self.under.begin(3)
        mask = torch.arange(6) < torch.tensor([6, 4, 0])[:, None]
        garbage = torch.where(mask[..., None], tokens, 1e3 * self.tokens(seed=1))
        masked, _ = self.write(begun, tokens, mask)
        dirty, _ = self.write(begun, garbage, mask)
        for row, length in ((0, 6), (1, 4)):
            short, _ = self.write(begun, tokens[:, :length])
            for name in masked:
                same(law, masked[name][row], short[name][row], f"'{name}' with padding and without")
        for name, value in masked.items():
            require(law, bool(value.isfinite().all()), f"'{name}' is not finite after padding alone")
            same(law, dirty[name], value, f"'{name}' with garbage in the padding and without")

    def check_costs(self) -> None:
        """A write costs what is declared within a tenth, backbone included where it is used; a state, to the byte."""
        for length in (4, 40):
            with torch.enable_grad(), FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
                state, _ = self.write(self.under.begin(3), self.tokens(length=length))
            counted, declared = counter.get_total_flops() / 3, self.under.flops_per_write(length)
            declared += self.backbone.flops(self.under.num_thought(length))
            what = f"a write of {length} tokens takes {counted:.0f} operations, {declared} are declared"
            require("costs are as declared", abs(counted - declared) <= 0.1 * counted, what)
            held, declared = _num_bytes(state) // 3, self.under.state_bytes
            require("costs are as declared", held == declared, f"a state takes {held} bytes, {declared} are declared")

    def check_bounded(self, num_writes: int = NUM_WRITES) -> None:
        """The state neither grows nor overflows over many writes, though every segment pulls the same way."""
        law, segments = "bounded state", [self.tokens(size=2, length=4, seed=seed) + 1.0 for seed in range(7)]
        state = self.under.begin(2)
        num_bytes, early = _num_bytes(state), 0.0
        for index in range(num_writes):
            state, _ = self.write(state, segments[index % len(segments)])
            held = _num_bytes(state)
            require(law, held == num_bytes, f"it grows from {num_bytes} to {held} bytes in {index + 1} writes")
            if index + 1 == num_writes // 10:
                early = self._largest(state)
        late = self._largest(state)
        what = f"values reach {late:.3g} after {num_writes} writes, from {early:.3g} after {num_writes // 10}"
        require(law, late <= max(30.0, 2 * early), what)

    def _largest(self, state: State) -> float:
        """Return the largest magnitude in a state and its prefix, infinite if one is no number; counts are exempt."""
        values = [value for value in (*state.values(), self.under.read(state)) if value.is_floating_point()]
        return max((float(v.abs().nan_to_num(nan=torch.inf).max()) for v in values if v.numel()), default=0.0)


def _num_bytes(state: State) -> int:
    return sum(value.numel() * value.element_size() for value in state.values())


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


# Torch's counter leaves this one out.
_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}  # noqa: SLF001
