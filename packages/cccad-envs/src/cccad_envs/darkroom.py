"""Darkroom: one hidden goal, and every env step that ends on it pays."""

from attrs import field, frozen, validators

from cccad_envs.family import whole_number
from cccad_envs.landmarks import LandmarkFamily, Rules

RULES = Rules(name="darkroom", landmarks=("goal",), is_used_up=False)


@frozen(kw_only=True)
class DarkroomSpec:
    """A square room with a hidden goal; every env step that ends on the goal pays 1.

    The agent starts at the centre and sees only its own cell (x, y). Actions: +x, -x, +y, -y, stay; walls clip. An
    episode is cut off at the horizon and never terminates. One task per cell. Source: arXiv 2210.14215.
    """

    size: int = field(
        default=9, validator=[whole_number, validators.ge(2)], metadata={"help": "cells along each side of the room"}
    )
    horizon: int = field(
        default=20, validator=[whole_number, validators.ge(1)], metadata={"help": "env steps in an episode"}
    )

    def build(self) -> LandmarkFamily:
        """Return the family of all goals in this room."""
        return LandmarkFamily(self, RULES)
