"""The environments under gymnasium's own names, for `gymnasium.make` and `gymnasium.make_vec`."""

from collections.abc import Callable

import attrs
import gymnasium

from cccad_envs.bandit import BanditSpec
from cccad_envs.dark_key_to_door import DarkKeyToDoorSpec
from cccad_envs.darkroom import DarkroomSpec
from cccad_envs.darkroom_permuted import DarkroomPermutedSpec
from cccad_envs.family import FamilySpec
from cccad_envs.frozen_maps import FrozenMapsSpec
from cccad_envs.landmarks import LandmarkFamily
from cccad_envs.large_darkroom import LargeDarkroomSpec
from cccad_envs.numbered import NumberedFamily
from cccad_envs.plain import Table
from cccad_envs.point_robot import PointRobotSpec
from cccad_envs.recall import RecallSpec
from cccad_envs.rows import RowsEnv
from cccad_envs.single import SingleEnv
from cccad_envs.switching_darkroom import SwitchingDarkroomSpec
from cccad_envs.t_maze import TMazeSpec
from cccad_envs.tasks import Task

# Every environment's spec, and the task that it plays by default.
ENVIRONMENTS: dict[str, tuple[type[FamilySpec], Table]] = {
    "cccad/Darkroom-v0": (DarkroomSpec, {"goal": (0, 0)}),
    "cccad/DarkKeyToDoor-v0": (DarkKeyToDoorSpec, {"key": (0, 0), "door": (1, 1)}),
    "cccad/DarkroomPermuted-v0": (DarkroomPermutedSpec, {"goal": (0, 0), "permutation": 0}),
    "cccad/LargeDarkroom-v0": (LargeDarkroomSpec, {"goal": (0, 0)}),
    "cccad/SwitchingDarkroom-v0": (SwitchingDarkroomSpec, {"first": (0, 0), "second": (1, 1)}),
    "cccad/Bandit-v0": (BanditSpec, {"number": 0}),
    "cccad/Recall-v0": (RecallSpec, {"number": 0}),
    "cccad/PointRobot-v0": (PointRobotSpec, {"number": 0}),
    "cccad/TMaze-v0": (TMazeSpec, {"number": 0}),
    "cccad/FrozenMaps-v0": (FrozenMapsSpec, {"number": 0}),
}


def register_environments() -> None:
    """Make every environment known to gymnasium; doing it twice is harmless."""
    for name, (_, first_task) in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point="cccad_envs.registration:make_single",
                vector_entry_point="cccad_envs.registration:make_rows",
                kwargs={"environment": name, **first_task},
            )


def make_single(environment: str, render_mode: str | None = None, **settings: object) -> SingleEnv:
    """Return one environment of *environment*; *settings* are the fields of its spec and what places its task."""
    family, task = _family_and_task(environment, settings)
    return family.make(task, render_mode=render_mode)


def make_rows(environment: str, num_envs: int = 1, render_mode: str | None = None, **settings: object) -> RowsEnv:
    """Return *num_envs* rows that all play the task that *settings* describe."""
    family, task = _family_and_task(environment, settings)
    return family.make_vec([task] * num_envs, render_mode=render_mode)


def _family_and_task(environment: str, settings: Table) -> tuple[LandmarkFamily | NumberedFamily, Task]:
    spec_class, _ = ENVIRONMENTS[environment]
    fields = {name: settings[name] for name in attrs.fields_dict(spec_class) if name in settings}
    make_spec: Callable[..., FamilySpec] = spec_class
    family = make_spec(**fields).build()
    assert isinstance(family, LandmarkFamily | NumberedFamily)  # these can place a task
    return family, family.place(**{name: place for name, place in settings.items() if name not in fields})
