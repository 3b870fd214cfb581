"""Dark key-to-door: the agent must find a hidden key, then a hidden door; each pays once."""

from attrs import frozen

from cccad_envs.family import whole
from cccad_envs.grid import MOST_CELLS_A_SIDE, Grid
from cccad_envs.landmarks import LandmarkFamily, Rules

RULES = Rules(name="dark-key-to-door", landmarks=("key", "door"), is_used_up=True)


@frozen(kw_only=True)
class DarkKeyToDoorSpec:
    """A square room with a hidden key and a hidden door; the key pays 1 once, then the door pays 1 once.

    The agent starts at the centre and sees only its own cell (x, y), not whether it has the key. Actions: +x, -x, +y,
    -y, stay; walls clip. The door pays only after the key. An episode is cut off at the horizon and never terminates.
    One task per ordered pair of different cells. Source: arXiv 2210.14215.
    """

    size: int = whole(9, at_least=2, at_most=MOST_CELLS_A_SIDE, tells="cells along each side of the room")
    horizon: int = whole(50, at_least=1, tells="env steps in an episode")

    def build(self) -> LandmarkFamily:
        """Return the family of all places for key and door in this room."""
        return LandmarkFamily(self, RULES, Grid(self.size, self.size))
