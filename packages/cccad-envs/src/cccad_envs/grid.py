"""The geometry of a room: where the five moves lead, how far cells are apart, how a random walk spreads.

A cell is the number `x * height + y`; walls clip. Actions: 0 is +x, 1 is -x, 2 is +y, 3 is -y, 4 stays.
"""

from functools import cached_property
from typing import TypeVar

import numpy as np
from attrs import field, frozen, validators
from numpy.typing import NDArray

from cccad_envs.plain import Array
from cccad_envs.spaces import feature_type

Number = TypeVar("Number", int, NDArray[np.int64])
MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0]])
STAY = 4
# The move that brings an agent nearer, by the signs of what is missing in x and in y (plus one): x first, then y.
MOST_CELLS_A_SIDE = 1 << 30
_MOST_TABLED_CELLS = 1 << 20
NEARER = np.array([[1, 1, 1], [3, STAY, 2], [0, 0, 0]])


@frozen(slots=False)
class Grid:
    """A room of *width* times *height* cells."""

    width: int = field(validator=validators.ge(2))
    height: int = field(validator=validators.ge(2))

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def num_cells(self) -> int:
        """The number of cells."""
        return self.width * self.height

    @property
    def centre(self) -> int:
        """The middle cell; in an even room the one of the four nearest the far corner."""
        return self.cell(self.width // 2, self.height // 2)

    def cell(self, x: Number, y: Number) -> Number:
        """Return the number of the cell at (x, y), or of many."""
        return x * self.height + y

    @cached_property
    def coordinates(self) -> Array:
        """(x, y) of every cell, `cells 2`, in the type of observations."""
        both = np.indices((self.width, self.height)).reshape(2, -1).T
        return np.ascontiguousarray(both, dtype=feature_type([self.width, self.height]))

    def points(self, cells: NDArray[np.int64]) -> Array:
        """Return (x, y) of *cells*, `... 2`, in the type of observations."""
        if self.num_cells <= _MOST_TABLED_CELLS:
            return self.coordinates.take(cells, axis=0)
        both = np.stack(np.divmod(cells, self.height), axis=-1)
        return both.astype(feature_type([self.width, self.height]), copy=False)

    @cached_property
    def neighbours(self) -> NDArray[np.int64]:
        """The cell that each move leads to, flat: entry `cell * 5 + action`."""
        moved = self.coordinates.astype(np.int64)[:, None, :] + MOVES  # cells a 2
        x, y = np.moveaxis(moved.clip(0, [self.width - 1, self.height - 1]), -1, 0)
        cells: NDArray[np.int64] = x * self.height + y
        return cells.ravel()

    def moved(self, cells: NDArray[np.int64], actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where *actions* lead from *cells*, any one shape."""
        if self.num_cells <= _MOST_TABLED_CELLS:
            return self.neighbours.take(cells * len(MOVES) + actions)
        x, y = np.divmod(cells, self.height)
        by_x, by_y = np.moveaxis(MOVES[actions], -1, 0)
        return self.cell((x + by_x).clip(0, self.width - 1), (y + by_y).clip(0, self.height - 1))

    def around(self, cell: int, radius: int) -> tuple["Grid", int, int]:
        """Return the room of all cells that *radius* moves from *cell* can reach, and its first x and y in this one."""
        x, y = divmod(cell, self.height)
        first_x, first_y = max(x - radius, 0), max(y - radius, 0)
        last_x, last_y = min(x + radius, self.width - 1), min(y + radius, self.height - 1)
        return Grid(last_x - first_x + 1, last_y - first_y + 1), first_x, first_y

    def nearer(self, cells: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the actions that bring *cells* nearer to *targets*: x first, then y, and stay once there."""
        x, y = np.divmod(cells, self.height)
        target_x, target_y = np.divmod(targets, self.height)
        actions: NDArray[np.int64] = NEARER[np.sign(target_x - x) + 1, np.sign(target_y - y) + 1]
        return actions

    def distances(self, cells: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of moves from *cells* to *targets*."""
        x, y = np.divmod(cells, self.height)
        target_x, target_y = np.divmod(targets, self.height)
        moves: NDArray[np.int64] = np.abs(target_x - x) + np.abs(target_y - y)
        return moves

    def spread(self, mass: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where probability *mass*, `... cells`, lies after one uniformly random move."""
        before = mass.reshape(*mass.shape[:-1], self.width, self.height)
        after = before.copy()  # stay
        for axis in (-2, -1):
            old, new = np.moveaxis(before, axis, 0), np.moveaxis(after, axis, 0)
            new[1:] += old[:-1]
            new[-1] += old[-1]
            new[:-1] += old[1:]
            new[0] += old[0]
        return after.reshape(mass.shape) / len(MOVES)
