"""HDF5 as XLand-100B has it (arXiv 2406.08973): a group per task, arrays ``(histories, T)``, a task's id in attributes.

``states (histories, T, ...)``, ``actions rewards dones (histories, T)``, maybe ``expert_actions``. In that world an
episode that earns a reward at its end is terminated by it, and any other is cut off.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cccad_data.errors import DataError
from cccad_data.history import TaskHistories
from cccad_data.interchange import Found, Wishes, check_groups, fitting, foreign_header
from cccad_data.interchange.episodes import UNKNOWN_LAST, laid_end_to_end
from cccad_data.store import open_shard, sound

SETTINGS: dict[str, Any] = {}
_ARRAYS = ("states", "actions", "rewards", "dones")


def read(source: Path, _wishes: Wishes) -> Found:
    """Return the histories of an XLand-100B file, a task at a time. Observations are features of 256 values each."""
    notes = [UNKNOWN_LAST]
    with open_shard(source) as file, sound(source, "not groups as XLand-100B has them"):
        groups = sorted(file, key=lambda name: (len(name), name))
        check_groups(source, file, groups, _ARRAYS)
        if not groups:
            raise DataError(f"{source}: has no groups")
        num_actions = 1 + max(int(file[name]["actions"][...].max()) for name in groups)
        horizon = max(_longest(file[name]["dones"][...]) for name in groups)
        features = int(np.prod(file[groups[0]]["states"].shape[2:], dtype=np.int64))
    world = {
        "env": {"kind": "xland", "name": source.stem},
        "spaces": {
            "observation": {"kind": "multi-discrete", "sizes": [256] * features},
            "action": {"kind": "discrete", "n": num_actions},
        },
        "horizon": horizon,
    }
    header = foreign_header("xland", source, world, last_observations="repeated")
    return Found(header=header, tasks=_tasks(source, groups, header["spaces"], notes), notes=notes)


def _longest(dones: Any) -> int:
    """Return the length of the longest whole episode; *dones* are ``(histories, T)``."""
    ends = (np.flatnonzero(row) + 1 for row in dones.astype(bool))
    return max((int(np.diff(found, prepend=0).max()) for found in ends if len(found)), default=1)


def _tasks(source: Path, groups: list[str], named: Mapping[str, Any], notes: list[str]) -> Iterator[TaskHistories]:
    left = 0
    with h5py.File(source, "r") as file:
        for name in groups:
            with sound(source, f"group {name!r} cannot be read"):
                task = _task(file[name], name, named)
            left += file[name]["rewards"].size - task.num_env_steps
            yield task
    notes += [f"{left:,} env steps of unfinished episodes are left out"] * (left > 0)


def _task(group: h5py.Group, name: str, named: Mapping[str, Any]) -> TaskHistories:
    world = [str(group.attrs[key]) for key in ("env-id", "benchmark-id") if key in group.attrs]
    ruleset = group.attrs.get("ruleset-id")
    task_id = "/".join([*world, f"group-{name}" if ruleset is None else f"ruleset-{ruleset}"])
    lives = []
    for history in range(len(group["rewards"])):
        rewards, dones = group["rewards"][history], group["dones"][history].astype(bool)
        life = {
            "observations": fitting(named["observation"], group["states"][history]),
            "actions": fitting(named["action"], group["actions"][history]),
            "rewards": rewards,
            "terminations": dones & (rewards > 0),
            "truncations": dones & (rewards <= 0),
        }
        if "expert_actions" in group:
            life["optimal_actions"] = group["expert_actions"][history].astype(life["actions"].dtype)
        lives.append(life)
    return laid_end_to_end(task_id, {} if ruleset is None else {"ruleset": int(ruleset)}, lives)
