"""Switching Darkroom: the goal alternates between two cells, so that old evidence becomes useful again."""

from attrs import frozen

from cccad_envs.family import whole
from cccad_envs.grid import MOST_CELLS_A_SIDE, Grid
from cccad_envs.landmarks import LandmarkFamily, Rules


@frozen(kw_only=True)
class SwitchingDarkroomSpec:
    """A Darkroom whose hidden goal is one cell for some episodes, then another, then the first again, and so on.

    The agent is never told of a switch. It starts at the centre, sees only its own cell (x, y), and gains 1 on every
    env step that ends on the present goal. Episodes are counted from the birth of a life. One task per ordered pair of
    different cells.
    """

    size: int = whole(9, at_least=2, at_most=MOST_CELLS_A_SIDE, tells="cells along each side of the room")
    horizon: int = whole(20, at_least=1, tells="env steps in an episode")
    num_episodes_each: int = whole(5, at_least=1, tells="episodes with one goal before the other one counts")

    def build(self) -> LandmarkFamily:
        """Return the family of all pairs of goals in this room."""
        rules = Rules(
            name="switching-darkroom",
            landmarks=("first", "second"),
            is_used_up=False,
            num_episodes_each=self.num_episodes_each,
        )
        return LandmarkFamily(self, rules, Grid(self.size, self.size))
