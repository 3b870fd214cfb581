"""Worlds for in-context reinforcement learning: families of tasks, with a split, an optimum and batched environments.

Importing this package makes ``cccad/Darkroom-v0`` and ``cccad/DarkKeyToDoor-v0`` known to gymnasium.

Letters in shapes: ``t`` time, ``a`` actions, ``o`` observation features, ``e`` environments stepped together.
"""

from cccad_envs.dark_key_to_door import DarkKeyToDoorSpec
from cccad_envs.darkroom import DarkroomSpec
from cccad_envs.errors import ActionError, NotResetError, SettingError, TransitionError, UnknownTaskError
from cccad_envs.family import Split, Task, TaskFamily
from cccad_envs.registration import register_worlds
from cccad_envs.rows import RowsEnv
from cccad_envs.single import SingleEnv

__all__ = [
    "ActionError",
    "DarkKeyToDoorSpec",
    "DarkroomSpec",
    "NotResetError",
    "RowsEnv",
    "SettingError",
    "SingleEnv",
    "Split",
    "Task",
    "TaskFamily",
    "TransitionError",
    "UnknownTaskError",
]

register_worlds()
