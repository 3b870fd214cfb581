"""Streams of random numbers, one for each row, so that no row depends on its neighbours.

The generator is SplitMix64 (Steele, Lea and Flood 2014), whose state is one 64-bit word: all rows are moved at once,
and its words are the same on every platform. Shapes: `r` the rows that draw, `c` draws of each.
"""

from typing import final

import numpy as np
from numpy.typing import NDArray

STRIDE = np.uint64(0x9E3779B97F4A7C15)


def scrambled(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return *words*, any shape, each made into a random-looking one; one to one."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


@final
class RowStreams:
    """One stream of random numbers for each of *num_rows* rows."""

    def __init__(self, num_rows: int) -> None:
        """Make the streams; they must be seeded before they are drawn from."""
        self._state = np.zeros(num_rows, dtype=np.uint64)
        self.is_seeded = np.zeros(num_rows, dtype=np.bool_)  # e

    def seed(self, seed: int, rows: NDArray[np.bool_]) -> None:
        """Let the marked rows, `e`, start again: row i with the number *seed* + i."""
        numbers = np.arange(len(rows), dtype=np.uint64) + np.uint64(seed % 2**64)
        self._state[rows] = scrambled(numbers[rows] + STRIDE)
        self.is_seeded |= rows

    def words(self, rows: NDArray[np.bool_], count: int) -> NDArray[np.uint64]:
        """Draw *count* words in each of the marked rows, `r c`."""
        steps = np.arange(1, count + 1, dtype=np.uint64) * STRIDE
        drawn = self._state[rows, None] + steps
        self._state[rows] = drawn[:, -1]
        return scrambled(drawn)

    def uniform(self, rows: NDArray[np.bool_], count: int) -> NDArray[np.float64]:
        """Draw *count* numbers from [0, 1) in each of the marked rows, `r c`."""
        return np.asarray((self.words(rows, count) >> np.uint64(11)) * np.float64(2.0**-53))

    def normal(self, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Draw a standard normal number in each of the marked rows, `r` (Box and Muller)."""
        radius, angle = self.uniform(rows, 2).T
        return np.asarray(np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle))
