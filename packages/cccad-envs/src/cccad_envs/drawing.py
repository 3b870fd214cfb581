"""Pictures of a room, with the landmarks that the agent cannot see; x runs right and y runs up."""

import numpy as np
from numpy.typing import NDArray

from cccad_envs.grid import Grid

CELL_PIXELS = 16
FLOOR, LINE, AGENT = (245, 245, 240), (205, 205, 200), (40, 90, 200)
GREEN, YELLOW, BROWN, ICE = (60, 160, 75), (225, 170, 30), (150, 75, 40), (120, 190, 225)
COLOURS = {
    "goal": GREEN,
    "key": YELLOW,
    "door": BROWN,
    "first": GREEN,
    "second": BROWN,
    "mean": GREEN,
    "symbol": YELLOW,
    "hole": ICE,
}
NOWHERE = -1  # the cell of an agent that is not in the picture


def text_of(grid: Grid, agent: int, marks: dict[int, str]) -> str:
    """Return the room as lines: the agent is `@`, a landmark left to reach is its initial, `*` is both."""
    cells = np.full(grid.num_cells, ".")
    for cell, name in marks.items():
        cells[cell] = name[0].upper()
    if agent != NOWHERE:
        cells[agent] = "*" if agent in marks else "@"
    rows = cells.reshape(grid.width, grid.height).T[::-1]
    return "\n".join(" ".join(row) for row in rows) + "\n"


def image_of(grid: Grid, agent: int, marks: dict[int, str]) -> NDArray[np.uint8]:
    """Return the room as an image, `height width 3`: the agent is a smaller blue square upon its cell."""
    pixels = np.empty((grid.num_cells, CELL_PIXELS, CELL_PIXELS, 3), dtype=np.uint8)  # cell row column colour
    pixels[:] = LINE
    pixels[:, 1:, 1:] = FLOOR
    for cell, name in marks.items():
        pixels[cell, 1:, 1:] = COLOURS[name]
    if agent != NOWHERE:
        middle = slice(CELL_PIXELS // 4 + 1, -CELL_PIXELS // 4)
        pixels[agent, middle, middle] = AGENT
    rooms = pixels.reshape(grid.width, grid.height, *pixels.shape[1:])[:, ::-1]  # x y row column colour
    return rooms.transpose(1, 2, 0, 3, 4).reshape(grid.height * CELL_PIXELS, grid.width * CELL_PIXELS, 3)


def frame_of(mode: str, grid: Grid, agent: int, marks: dict[int, str]) -> NDArray[np.uint8] | str:
    """Return the room as text (`ansi`) or as an image (`rgb_array`)."""
    return (text_of if mode == "ansi" else image_of)(grid, agent, marks)
