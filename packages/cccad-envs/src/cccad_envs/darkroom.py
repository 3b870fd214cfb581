"""Darkroom: a room with one hidden goal, which pays on every env step that ends on it."""

from attrs import frozen

from cccad_envs.family import whole
from cccad_envs.grid import MOST_CELLS_A_SIDE, Grid
from cccad_envs.landmarks import LandmarkFamily, Rules

RULES = Rules(name="darkroom", landmarks=("goal",), is_used_up=False)


@frozen(kw_only=True)
class DarkroomSpec:
    """A square room with a hidden goal; every env step that ends on the goal pays 1.

    The agent starts at the centre and sees only its own cell (x, y). Actions: +x, -x, +y, -y, stay; walls clip. An
    episode is cut off at the horizon and never terminates. One task per cell. Source: arXiv 2210.14215.
    """

    size: int = whole(9, at_least=2, at_most=MOST_CELLS_A_SIDE, tells="cells along each side of the room")
    horizon: int = whole(20, at_least=1, tells="env steps in an episode")

    def build(self) -> LandmarkFamily:
        """Return the family of all goals in this room."""
        return LandmarkFamily(self, RULES, Grid(self.size, self.size))
