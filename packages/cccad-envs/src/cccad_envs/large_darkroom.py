"""Large Darkroom: a Darkroom that is larger than what a window holds, and need not be square."""

from attrs import frozen

from cccad_envs.family import whole
from cccad_envs.grid import MOST_CELLS_A_SIDE, Grid
from cccad_envs.landmarks import LandmarkFamily, Rules

RULES = Rules(name="large-darkroom", landmarks=("goal",), is_used_up=False)


@frozen(kw_only=True)
class LargeDarkroomSpec:
    """A Darkroom of any width and height, 20x20 with 100 env steps unless told otherwise.

    As in Darkroom, the agent starts at the centre, sees only its own cell (x, y), and gains 1 on every env step that
    ends on the hidden goal. One task per cell. A room of 40x20 with a horizon of 800 has episodes longer than any usual
    window. Source: arXiv 2210.14215.
    """

    width: int = whole(20, at_least=2, at_most=MOST_CELLS_A_SIDE, tells="cells in x")
    height: int = whole(20, at_least=2, at_most=MOST_CELLS_A_SIDE, tells="cells in y")
    horizon: int = whole(100, at_least=1, tells="env steps in an episode")

    def build(self) -> LandmarkFamily:
        """Return the family of all goals in this room."""
        return LandmarkFamily(self, RULES, Grid(self.width, self.height))
