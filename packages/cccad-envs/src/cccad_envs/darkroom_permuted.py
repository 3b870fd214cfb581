"""Permuted Darkroom: each task has its own order of the actions, so that no habit carries over from other tasks."""

import itertools

import numpy as np
from attrs import frozen

from cccad_envs.family import MOST_SEED, drawn_words, whole
from cccad_envs.grid import MOST_CELLS_A_SIDE, Grid
from cccad_envs.landmarks import AS_NAMED, LandmarkFamily, Rules

ALL = tuple(itertools.permutations(AS_NAMED))


@frozen(kw_only=True)
class DarkroomPermutedSpec:
    """A Darkroom in which each task has its own order of the five actions as well as its own hidden goal.

    In the task `darkroom-permuted-9x9/goal-1-2-actions-30214` action 0 makes move 3, which is -y. One task per goal
    and permutation; the permutations are drawn from all 120 by a Philox generator whose key is the seed.
    """

    size: int = whole(9, at_least=2, at_most=MOST_CELLS_A_SIDE, tells="cells along each side of the room")
    horizon: int = whole(20, at_least=1, tells="env steps in an episode")
    num_permutations: int = whole(20, at_least=1, at_most=len(ALL), tells="orders of the actions among the tasks")
    permutation_seed: int = whole(0, at_least=0, at_most=MOST_SEED, tells="which permutations are drawn")

    def build(self) -> LandmarkFamily:
        """Return the family of all goals in this room, with every permutation drawn."""
        drawn = np.argsort(drawn_words(self.permutation_seed, len(ALL)), kind="stable")[: self.num_permutations]
        permutations = tuple(ALL[i] for i in drawn)
        rules = Rules(name="darkroom-permuted", landmarks=("goal",), is_used_up=False, permutations=permutations)
        return LandmarkFamily(self, rules, Grid(self.size, self.size))
