"""Families of tasks for in-context reinforcement learning, with a split, an optimum and vector environments.

Importing this package registers every environment with gymnasium, from `cccad/Bandit-v0` to
`cccad/TMaze-v0`.

Letters in shapes: `t` time, `a` actions, `o` observation features, `e` environments stepped together.
"""

from cccad_envs.bandit import BanditSpec
from cccad_envs.dark_key_to_door import DarkKeyToDoorSpec
from cccad_envs.darkroom import DarkroomSpec
from cccad_envs.darkroom_permuted import DarkroomPermutedSpec
from cccad_envs.errors import ActionError, NotResetError, SettingError, TransitionError, UnknownTaskError
from cccad_envs.family import Split, TaskFamily
from cccad_envs.frozen_maps import FrozenMapsSpec
from cccad_envs.large_darkroom import LargeDarkroomSpec
from cccad_envs.point_robot import PointRobotSpec
from cccad_envs.recall import RecallSpec
from cccad_envs.registration import register_environments
from cccad_envs.rows import RowsEnv
from cccad_envs.single import SingleEnv
from cccad_envs.switching_darkroom import SwitchingDarkroomSpec
from cccad_envs.t_maze import TMazeSpec
from cccad_envs.tasks import Task

__all__ = [
    "ActionError",
    "BanditSpec",
    "DarkKeyToDoorSpec",
    "DarkroomPermutedSpec",
    "DarkroomSpec",
    "FrozenMapsSpec",
    "LargeDarkroomSpec",
    "NotResetError",
    "PointRobotSpec",
    "RecallSpec",
    "RowsEnv",
    "SettingError",
    "SingleEnv",
    "Split",
    "SwitchingDarkroomSpec",
    "TMazeSpec",
    "Task",
    "TaskFamily",
    "TransitionError",
    "UnknownTaskError",
]

register_environments()
