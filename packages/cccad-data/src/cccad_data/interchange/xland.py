"""HDF5 as XLand-100B has it (arXiv 2406.08973): a group per task, arrays `(histories, T)`, a task's id in attributes.

`states (histories, T, ...)`, `actions rewards dones (histories, T)`, maybe `expert_actions`. In that environment an
episode that earns a reward at its end is terminated by it, and any other is cut off.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from cccad_data.errors import DataError
from cccad_data.histories.history import TaskHistories
from cccad_data.histories.shards import open_shard
from cccad_data.interchange import Found, Wishes, foreign_header, reading
from cccad_data.interchange.episodes import UNKNOWN_LAST, laid_end_to_end
from cccad_data.interchange.hdf5 import check_groups, member
from cccad_data.narrow import Border, narrow
from cccad_data.plain import Array, Fields, Table

SETTINGS: Table = {"name": "", "n": 0, "horizon": 0, "terminations": "rewarded"}
_ARRAYS = {"states": None, "actions": 2, "rewards": 2, "dones": 2}
_TERMINATIONS = {
    "rewarded": "an episode that earns a reward in its last env step is taken as terminated, any other as cut off",
    "all": "every episode is taken as terminated",
    "none": "every episode is taken as cut off",
}


def read(sources: Sequence[Path], wishes: Wishes) -> Found:
    """Return the histories of an XLand-100B file, a task at a time. Observations are features of 256 values each."""
    (source,), settings = sources, wishes.settings
    if settings["terminations"] not in _TERMINATIONS:
        choices = ", ".join(_TERMINATIONS)
        raise DataError(f"the setting 'terminations' is one of {choices}: {settings['terminations']!r}")
    notes = [UNKNOWN_LAST, f"{_TERMINATIONS[settings['terminations']]}; the setting 'terminations' says otherwise"]
    with reading(source, "not groups as XLand-100B has them"), open_shard(source) as file:
        groups = sorted(file, key=lambda name: (len(name), name))
        if not groups:
            raise DataError(f"{source}: has no groups")
        check_groups(source, file, dict.fromkeys(groups, _ARRAYS))
        num_actions = settings["n"] or 1 + max(int(file[name]["actions"][...].max()) for name in groups)
        longest = max(_longest(file[name]["dones"][...]) for name in groups)
        features = {int(np.prod(file[name]["states"].shape[2:], dtype=np.int64)) for name in groups}
    if len(features) > 1:
        raise DataError(f"{source}: the states of its groups differ in size: {sorted(features)}")
    if settings["horizon"] and longest > settings["horizon"]:
        horizon = f"the setting 'horizon' is {settings['horizon']:,}"
        raise DataError(f"{source}: an episode has {longest:,} env steps, but {horizon}")
    assumed = [f"'n' = {num_actions}"] * (not settings["n"]) + [f"'horizon' = {longest}"] * (not settings["horizon"])
    notes += [f"taken from the data: {', '.join(assumed)}; the settings of these names say otherwise"] * bool(assumed)
    environment = {
        "env": {"kind": "xland", "name": settings["name"] or source.stem},
        "spaces": {
            "observation": {"kind": "multi-discrete", "sizes": [256] * features.pop()},
            "action": {"kind": "discrete", "n": num_actions},
        },
        "horizon": settings["horizon"] or longest,
    }
    header = foreign_header("xland", sources, environment, last_observations="repeated")
    return Found(header=header, tasks=_tasks(source, groups, environment, settings, notes), notes=notes)


def _longest(dones: Array) -> int:
    """Return the length of the longest whole episode; *dones* are `(histories, T)`."""
    ends = (np.flatnonzero(row) + 1 for row in dones.astype(bool))
    return max((int(np.diff(places, prepend=0).max()) for places in ends if len(places)), default=1)


def _tasks(
    source: Path, groups: list[str], environment: Fields, settings: Fields, notes: list[str]
) -> Iterator[TaskHistories]:
    left = 0
    borders = {side: Border(space) for side, space in environment["spaces"].items()}
    with h5py.File(source, "r") as file:
        for name in groups:
            with reading(source, f"group {name!r} cannot be read"):
                task = _task(source, file[name], name, borders, settings["terminations"])
            left += file[name]["rewards"].size - task.num_env_steps
            yield task
    notes += [f"{left:,} env steps of unfinished episodes are left out"] * (left > 0)


def _task(source: Path, group: h5py.Group, name: str, borders: Mapping[str, Border], kind: str) -> TaskHistories:
    origin = [str(group.attrs[key]) for key in ("env-id", "benchmark-id") if key in group.attrs]
    ruleset = group.attrs.get("ruleset-id")
    task_id = "/".join([*origin, f"group-{name}" if ruleset is None else f"ruleset-{ruleset}"])
    lives: list[dict[str, Array]] = []
    best = member(group, "expert_actions", source, ndim=2) if "expert_actions" in group else None
    for history in range(len(group["rewards"])):

        def where(array: str, history: int = history) -> str:
            return f"{source}: {array!r} of group {name!r}, history {history}"

        rewards = narrow(group["rewards"][history], np.float32, where("rewards"))
        dones = narrow(group["dones"][history], np.bool_, where("dones"))
        ended = {"rewarded": dones & (rewards > 0), "all": dones, "none": np.zeros_like(dones)}[kind]
        life = {
            "observations": borders["observation"](group["states"][history], where("states")),
            "actions": borders["action"](group["actions"][history], where("actions")),
            "rewards": rewards,
            "terminations": ended,
            "truncations": dones & ~ended,
        }
        if best is not None:
            life["optimal_actions"] = borders["action"](best[history], where("expert_actions"))
        lives.append(life)
    return laid_end_to_end(task_id, {} if ruleset is None else {"ruleset": int(ruleset)}, lives)
