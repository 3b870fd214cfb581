"""D4RL's flat arrays in HDF5 (arXiv 2004.07219): one long history of one task, in the order of the file.

``observations actions rewards terminals``, and where there are any ``timeouts next_observations``. Discrete actions are
whole numbers of one dimension.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cccad_data.errors import DataError
from cccad_data.interchange import Found, Wishes, box_around, fitting, foreign_header
from cccad_data.interchange.episodes import UNKNOWN_LAST, laid_end_to_end
from cccad_data.store import open_shard, sound

SETTINGS = {"task_id": ""}
_NAMES = {"observations": "observations", "actions": "actions", "rewards": "rewards", "terminals": "terminations"}


def read(source: Path, wishes: Wishes) -> Found:
    """Return the histories of a D4RL file. Bounds of boxes are those of the data."""
    with open_shard(source) as file, sound(source, "not flat arrays as D4RL has them"):
        life = _life(file, source)
    task_id = str(wishes.settings.get("task_id") or f"d4rl/{source.stem}")
    actions = life["actions"]
    if actions.dtype.kind in "iu" and actions.ndim == 1:
        action: dict[str, Any] = {"kind": "discrete", "n": int(actions.max()) + 1}
    else:
        action = box_around(actions.min(axis=0), actions.max(axis=0))
    known = [life["observations"], *(life[name] for name in ("next_observations",) if name in life)]
    observation = box_around(np.min([o.min(axis=0) for o in known], 0), np.max([o.max(axis=0) for o in known], 0))
    for name, space in (("actions", action), *((name, observation) for name in life if name.endswith("observations"))):
        life[name] = fitting(space, life[name])
    task = laid_end_to_end(task_id, {}, [life])
    world = {
        "env": {"kind": "d4rl", "name": source.stem},
        "spaces": {"observation": observation, "action": action},
        "horizon": int(np.diff(task.episode_ends, prepend=0).max()),
    }
    notes = [] if "next_observations" in life else [UNKNOWN_LAST]
    left = len(life["rewards"]) - task.num_env_steps
    notes += [f"the last {left:,} env steps, of an unfinished episode, are left out"] * (left > 0)
    header = foreign_header(
        "d4rl", source, world, last_observations="repeated" if notes[:1] == [UNKNOWN_LAST] else "true"
    )
    return Found(header=header, tasks=[task], notes=notes)


def _life(file: h5py.File, source: Path) -> dict[str, Any]:
    missing = [name for name in _NAMES if name not in file]
    if missing:
        raise DataError(f"{source}: lacks {', '.join(map(repr, missing))}, which D4RL's files have")
    life = {ours: file[theirs][...] for theirs, ours in _NAMES.items()}
    length = len(life["rewards"])
    life["truncations"] = file["timeouts"][...] if "timeouts" in file else np.zeros(length, bool)
    if "next_observations" in file:
        life["next_observations"] = file["next_observations"][...]
    life = {name: array.astype("f4") if array.dtype.kind == "f" else array for name, array in life.items()}
    for name, array in life.items():
        if len(array) != length:
            raise DataError(f"{source}: {name!r} has {len(array):,} env steps, but 'rewards' has {length:,}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{source}: {name!r} holds numbers that are not finite")
        if name.endswith("observations"):
            life[name] = array.reshape(length, -1)
    for name in ("terminations", "truncations"):
        life[name] = life[name].astype(bool)
    return life
