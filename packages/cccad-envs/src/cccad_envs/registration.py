"""The worlds under gymnasium's own names, for ``gymnasium.make`` and ``gymnasium.make_vec``."""

from typing import Any

import attrs
import gymnasium

from cccad_envs.dark_key_to_door import DarkKeyToDoorSpec
from cccad_envs.darkroom import DarkroomSpec
from cccad_envs.family import Task
from cccad_envs.landmarks import LandmarkFamily
from cccad_envs.rows import RowsEnv
from cccad_envs.single import SingleEnv

WORLDS: dict[str, type[DarkroomSpec] | type[DarkKeyToDoorSpec]] = {
    "cccad/Darkroom-v0": DarkroomSpec,
    "cccad/DarkKeyToDoor-v0": DarkKeyToDoorSpec,
}
FIRST_TASKS: dict[str, dict[str, tuple[int, int]]] = {
    "cccad/Darkroom-v0": {"goal": (0, 0)},
    "cccad/DarkKeyToDoor-v0": {"key": (0, 0), "door": (1, 1)},
}


def register_worlds() -> None:
    """Make every world known to gymnasium; doing it twice is harmless."""
    for name, first_task in FIRST_TASKS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point="cccad_envs.registration:make_single",
                vector_entry_point="cccad_envs.registration:make_rows",
                kwargs={"world": name, **first_task},
            )


def make_single(world: str, render_mode: str | None = None, **settings: Any) -> SingleEnv:
    """Return one environment of *world*; *settings* are the fields of its spec and the places of its landmarks."""
    family, task = _family_and_task(world, settings)
    return family.make(task, render_mode=render_mode)


def make_rows(world: str, num_envs: int = 1, render_mode: str | None = None, **settings: Any) -> RowsEnv:
    """Return *num_envs* rows that all play the task that *settings* describe."""
    family, task = _family_and_task(world, settings)
    return family.make_vec([task] * num_envs, render_mode=render_mode)


def _family_and_task(world: str, settings: dict[str, Any]) -> tuple[LandmarkFamily, Task]:
    spec_class = WORLDS[world]
    fields = {name: settings[name] for name in attrs.fields_dict(spec_class) if name in settings}
    family = spec_class(**fields).build()
    return family, family.place(**{name: place for name, place in settings.items() if name not in fields})
