"""Recall: symbols are shown once, time passes, and then each is asked for, which tests memory alone.

How long the filler lasts sets how many writes lie between evidence and question; how many symbols there are sets how
much must be kept. Every cue names its position, so that nothing has to be counted.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Unpack, final

import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray

from cccad_envs.affordable import refuse_too_large
from cccad_envs.drawing import NOWHERE, frame_of
from cccad_envs.family import MOST_SEED, drawn_words, whole
from cccad_envs.grid import Grid
from cccad_envs.numbered import NumberedFamily, number_of
from cccad_envs.plain import Array
from cccad_envs.recorded import Recording
from cccad_envs.rows import Frame, Modes, RowsEnv
from cccad_envs.spaces import multi_discrete
from cccad_envs.tasks import AnyTask, Task, Tasks, in_order

_BYTES_PER_SYMBOL = 150  # of a task: words while it is drawn, its string, and its params


@frozen(kw_only=True)
class RecallSpec:
    """Symbols are shown one by one, then nothing for a while, then each is asked for; a right answer pays 1/num_bits.

    The observation is (cue, symbol). Cue 0 says nothing; cue i from 1 to num_bits shows symbol number i, and cue
    num_bits + i asks for it: the action is the answer. Symbol s is seen as s + 1, and 0 is none. An episode is all of
    this once: 2 num_bits + num_filler env steps. With *resample* each episode shows new symbols, so that an agent can
    never know them from earlier episodes, and tasks are only streams of chance; without, a task is one string.
    """

    num_bits: int = whole(8, at_least=1, at_most=10**6, tells="symbols to remember (bits, where there are two symbols)")
    num_symbols: int = whole(2, at_least=2, at_most=10, tells="different symbols, and actions")
    num_filler: int = whole(20, at_least=0, at_most=10**7, tells="env steps between the last evidence and a question")
    resample: bool = field(
        default=True,
        validator=validators.instance_of(bool),
        metadata={"help": "whether every episode shows new symbols; else they belong to the task"},
    )
    num_tasks: int = whole(
        256, at_least=2, tells="most tasks: streams, or strings of symbols (all, if there are so few)"
    )
    task_seed: int = whole(0, at_least=0, at_most=MOST_SEED, tells="which strings are drawn, if there are more")

    def build(self) -> "RecallFamily":
        """Return the family of all strings, or streams."""
        return RecallFamily(self)


@final
class RecallRows(RowsEnv):
    """Quizzes side by side: all that a row has of its own is the string of its episode, `e num_bits`."""

    def __init__(self, family: "RecallFamily", tasks: Sequence[AnyTask], **modes: Unpack[Modes]) -> None:
        """Give every row the string of its task, where tasks have one."""
        super().__init__(family, tasks, **modes)
        self.family = family
        fixed = 0 if family.spec.resample else family.parameters(tasks)
        self._strings = np.zeros((len(tasks), family.spec.num_bits), dtype=np.int64) + fixed

    def _observe(self) -> Array:
        clock = self._elapsed_env_steps
        symbols = np.where(self.family.shows[clock], self._concerned() + 1, 0)
        return np.stack([self.family.cues[clock], symbols], axis=1).astype(self.single_observation_space.dtype)

    def _restart(self, rows: NDArray[np.bool_]) -> None:
        if self.family.spec.resample:
            words = self._streams.words(rows, self.family.spec.num_bits)
            self._strings[rows] = words % np.uint64(self.family.spec.num_symbols)

    def _advance(self, actions: Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        is_right = self.family.asks[self._elapsed_env_steps] & (actions == self._concerned())
        return is_right * np.float32(1 / self.family.spec.num_bits), np.zeros(self.num_envs, dtype=np.bool_)

    def _best_actions(self) -> NDArray[np.int64]:
        return np.where(self.family.asks[self._elapsed_env_steps], self._concerned(), 0)

    def _draw(self, row: int, mode: str) -> Frame:
        """Show positions from left to right and symbols upwards; a question is in the row above them."""
        spec = self.family.spec
        grid = Grid(max(spec.num_bits, 2), spec.num_symbols + 1)
        string = self._strings[row].tolist()
        marks = {grid.cell(position, symbol): "symbol" for position, symbol in enumerate(string)}
        clock = self._elapsed_env_steps[row]
        cue, position = int(self.family.cues[clock]), int(self.family.positions_concerned[clock])
        height = string[position] if cue <= spec.num_bits else spec.num_symbols
        return frame_of(mode, grid, grid.cell(position, height) if cue else NOWHERE, marks)

    def _concerned(self) -> NDArray[np.int64]:
        """Return the symbol that each row's cue shows or asks for, `e`."""
        positions = self.family.positions_concerned[self._elapsed_env_steps]
        return np.asarray(self._strings[np.arange(self.num_envs), positions])


@final
class RecallFamily(NumberedFamily):
    """Strings of symbols in numeric order, or in drawn order where only some are tasks; or numbered streams of them."""

    spec: RecallSpec
    name = "recall"
    rows_class = RecallRows

    def __init__(self, spec: RecallSpec) -> None:
        """Lay out the episode that *spec* describes."""
        self.spec = spec
        self.horizon = 2 * spec.num_bits + spec.num_filler
        self.spaces = multi_discrete([2 * spec.num_bits + 1, spec.num_symbols + 1], spec.num_symbols)
        shown = np.arange(1, spec.num_bits + 1)
        # What the clock tells, from 0 to the horizon: the cue, whether it shows or asks, and the position concerned.
        self.cues = np.concatenate([shown, np.zeros(spec.num_filler, np.int64), shown + spec.num_bits, [0]])
        self.shows, self.asks = (self.cues >= 1) & (self.cues <= spec.num_bits), self.cues > spec.num_bits
        self.positions_concerned = (self.cues - 1) % spec.num_bits

    @cached_property
    def tasks(self) -> tuple[Task, ...] | Tasks:
        """Every task, in canonical order."""
        spec = self.spec
        if spec.resample:
            return in_order(spec.num_tasks, self._stream, number_of)
        if self._are_all_tasks:
            return in_order(self._num_strings, self._string, self._number)
        return tuple(map(self._task_of, self._drawn()))

    @property
    def _are_all_tasks(self) -> bool:
        """Whether there are so few strings that each is a task."""
        spec = self.spec
        return bool(spec.num_bits < spec.num_tasks.bit_length() and self._num_strings <= spec.num_tasks)

    @property
    def _num_strings(self) -> int:
        return int(self.spec.num_symbols**self.spec.num_bits)

    @property
    def _group(self) -> str:
        return f"recall-{self.spec.num_bits}x{self.spec.num_symbols}"

    def _stream(self, number: int) -> Task:
        return Task(task_id=f"{self._group}/stream-{number:04d}", params={"stream": number})

    def _string(self, number: int) -> Task:
        """Return the task of the string that is *number*, written with as many digits as there are symbols."""
        symbols = []
        for _ in range(self.spec.num_bits):
            number, symbol = divmod(number, self.spec.num_symbols)
            symbols.append(symbol)
        return self._task_of(symbols[::-1])

    def _number(self, task_id: str) -> int:
        return int(task_id.rpartition("/")[2][: self.spec.num_bits], self.spec.num_symbols)

    def _task_of(self, string: Sequence[int]) -> Task:
        params = {f"symbol_{i}": symbol for i, symbol in enumerate(string)}
        return Task(task_id=f"{self._group}/{''.join(map(str, string))}", params=params)

    def optimal_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return 1 for each task, `e`: every answer is right."""
        return np.ones(len(self.parameters(tasks)))

    def random_returns(self, tasks: Sequence[AnyTask]) -> NDArray[np.float64]:
        """Return one over the number of symbols for each task, `e`."""
        return np.full(len(self.parameters(tasks)), 1 / self.spec.num_symbols)

    def _led_to(self, task: AnyTask, observations: Array, actions: Array) -> Array:
        """Return what follows in a history of whole episodes; the symbol is 1 where chance and the end hide it."""
        clock = np.arange(len(observations)) % self.horizon + 1
        symbols = np.maximum(np.append(observations[1:, 1], 1)[: len(observations)], 1)
        (string,) = self.parameters([task])
        if not self.spec.resample:
            symbols = string[self.positions_concerned[clock]] + 1
        return np.stack([self.cues[clock], np.where(self.shows[clock], symbols, 0)], axis=1)

    def _replayed(self, task: AnyTask, recording: Recording) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        clock = np.minimum(recording.clock, self.horizon)
        position = self.positions_concerned[clock]
        (string,) = self.parameters([task])
        if self.spec.resample:
            shown_at = np.minimum(np.arange(len(clock)) - recording.clock + position, len(clock) - 1)
            right = recording.observations[shown_at, 1] - 1
        else:
            right = string[position]
        return self.asks[clock] * (recording.actions == right) * np.float32(1 / self.spec.num_bits), recording.never

    def _drawn(self) -> list[tuple[int, ...]]:
        spec = self.spec
        num_bytes = spec.num_tasks * spec.num_bits * _BYTES_PER_SYMBOL
        refuse_too_large(f"drawing {spec.num_tasks:,} strings of {spec.num_bits:,} symbols", num_bytes)
        drawn: list[tuple[int, ...]] = []
        count = spec.num_tasks
        while len(drawn) < spec.num_tasks:
            words = drawn_words(spec.task_seed, count * spec.num_bits) % spec.num_symbols
            drawn = list(dict.fromkeys(map(tuple, words.reshape(count, -1).tolist())))
            count *= 2
        return drawn[: spec.num_tasks]
