"""Pictures of a room for people: they show the landmarks that the agent cannot see. x runs right and y runs up."""

import numpy as np
from numpy.typing import NDArray

CELL_PIXELS = 16
FLOOR, LINE, AGENT = (245, 245, 240), (205, 205, 200), (40, 90, 200)
COLOURS = {"goal": (60, 160, 75), "key": (225, 170, 30), "door": (150, 75, 40)}


def text_of(size: int, agent: int, marks: dict[int, str]) -> str:
    """Return the room as *size* lines: the agent is ``@``, a landmark left to reach is its initial, ``*`` is both."""
    cells = np.full(size * size, ".")
    for cell, name in marks.items():
        cells[cell] = name[0].upper()
    cells[agent] = "*" if agent in marks else "@"
    rows = cells.reshape(size, size).T[::-1]
    return "\n".join(" ".join(row) for row in rows) + "\n"


def image_of(size: int, agent: int, marks: dict[int, str]) -> NDArray[np.uint8]:
    """Return the room as an image, ``height width 3``: the agent is a smaller blue square upon its cell."""
    pixels = np.empty((size, size, CELL_PIXELS, CELL_PIXELS, 3), dtype=np.uint8)  # x y row column colour
    pixels[:] = LINE
    pixels[:, :, 1:, 1:] = FLOOR
    for cell, name in marks.items():
        pixels[cell // size, cell % size, 1:, 1:] = COLOURS[name]
    margin = CELL_PIXELS // 4
    pixels[agent // size, agent % size, margin + 1 : -margin, margin + 1 : -margin] = AGENT
    rows = pixels[:, ::-1].transpose(1, 2, 0, 3, 4)  # y row x column colour
    return rows.reshape(size * CELL_PIXELS, size * CELL_PIXELS, 3)
