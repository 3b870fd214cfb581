"""The earlier code's HDF5: nothing says which task a group is, so that it is inferred from what the group earned.

Groups `0`, `1`, ... of `states next_states (T, streams, o)` and `actions rewards dones (T, streams)`. A group
is imported when exactly one task of the family gives all its rewards, moves and ends. Its `next_states` at the end of
an episode are the next one's first, and are replaced by where the action led. Its loader shuffles the groups to choose
what to train on, its evaluation shuffles the goals, by the same seed: what is in both is reported.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from cccad_data.collecting.collection import spec_dict
from cccad_data.errors import DataError
from cccad_data.families.registered import the_family
from cccad_data.family import KnowsDynamics, RepeatableFamily, Replayable, Task, TaskFamily
from cccad_data.histories.history import TaskHistories
from cccad_data.histories.shards import open_shard
from cccad_data.interchange import Found, Wishes, foreign_header, reading
from cccad_data.interchange.episodes import laid_end_to_end
from cccad_data.interchange.hdf5 import check_groups
from cccad_data.narrow import Border, narrow
from cccad_data.plain import Array, Fields
from cccad_data.spaces import all_plain

SETTINGS = {"env_split_seed": 0, "train_env_ratio": 0.9}
TAKES_ENV = True
_ARRAYS = {"states": None, "actions": None, "rewards": 2, "next_states": None, "dones": 2}
_TELLING_EPISODES = 8  # so many rewarded episodes rule out nearly all tasks


def read(sources: Sequence[Path], wishes: Wishes) -> Found:
    """Return the histories of the groups whose task can be inferred; without a wish, the family is `darkroom`."""
    (source,) = sources
    if not 0 <= wishes.settings["train_env_ratio"] <= 1:
        raise DataError(f"the setting 'train_env_ratio' is from 0 to 1: {wishes.settings['train_env_ratio']!r}")
    family = _repeatable(the_family(wishes.env or {"kind": "darkroom"}))
    held_out = [task.task_id for task in family.split(**wishes.split).held_out]
    with reading(source, "not groups as the earlier code wrote them"), open_shard(source) as file:
        groups = sorted((name for name in file if name.isdecimal()), key=int)
        check_groups(source, file, dict.fromkeys(groups, _ARRAYS))
    if not groups:
        raise DataError(f"{source}: has no groups '0', '1', ... as the earlier code wrote them")
    environment = {
        "env": spec_dict(family.name, family.spec),
        "spaces": all_plain(family.spaces),
        "horizon": family.horizon,
        "held_out_task_ids": held_out,
        "split": dict(wishes.split),
    }
    notes: list[str] = []
    return Found(
        header=foreign_header("legacy", sources, environment),
        tasks=_tasks(source, groups, family, set(held_out), wishes.settings, notes),
        notes=notes,
    )


def _repeatable(family: TaskFamily) -> RepeatableFamily:
    if not isinstance(family, KnowsDynamics) or not isinstance(family, Replayable):
        raise DataError(
            f"the format 'legacy' needs a task family with 'next_observations' and 'replay', not {family.name!r}"
        )
    return family


def _tasks(
    source: Path,
    groups: list[str],
    family: RepeatableFamily,
    held_out: set[str],
    settings: Fields,
    notes: list[str],
) -> Iterator[TaskHistories]:
    goals: dict[str, str] = {}  # task id -> group
    with h5py.File(source, "r") as file:
        for name in groups:
            with reading(source, f"group {name!r} cannot be read"):
                group = _Group(file[name], family, f"{source}: group {name!r}")
                fitting_tasks = group.tasks()
            if len(fitting_tasks) != 1:
                notes.append(f"group {name!r} is left out: {group.doubt(fitting_tasks)}")
                continue
            (task,) = fitting_tasks
            if task.task_id in goals:
                raise DataError(f"{source}: groups {goals[task.task_id]!r} and {name!r} are both {task.task_id!r}")
            goals[task.task_id] = name
            if group.num_left_out:
                notes.append(f"group {name!r}: {group.num_left_out:,} env steps of unfinished episodes are left out")
            if task.task_id in held_out:
                notes.append(f"group {name!r} is left out: {task.task_id!r} is held out by the split")
            else:
                yield group.histories(task)
    notes.append(_leaks(family, {int(group): task_id for task_id, group in goals.items()}, settings))


class _Group:
    """One group: its streams one after the other, as far as their episodes are whole."""

    def __init__(self, group: h5py.Group, family: RepeatableFamily, where: str) -> None:
        self.family = family
        arrays = {name: np.swapaxes(group[name][...], 0, 1) for name in _ARRAYS}  # streams T ...
        dones = narrow(arrays["dones"], np.bool_, f"{where}, 'dones'")
        lengths = dones.shape[1] - np.argmax(dones[:, ::-1], axis=1)
        self.lengths = np.where(dones.any(axis=1), lengths, 0)
        kept = np.arange(dones.shape[1]) < self.lengths[:, None]
        self.num_left_out = int((~kept).sum())
        self.dones, self.rewards = dones[kept], narrow(arrays["rewards"][kept], np.float32, f"{where}, 'rewards'")
        observation = Border(family.spaces["observation"])
        self.observations = observation(arrays["states"][kept], f"{where}, 'states'")
        self.following = observation(arrays["next_states"][kept], f"{where}, 'next_states'")
        self.actions = Border(family.spaces["action"])(arrays["actions"][kept], f"{where}, 'actions'")
        self.ends = np.flatnonzero(self.dones) + 1

    def tasks(self) -> list[Task]:
        """Return the tasks that give everything that is recorded; none when nothing was ever earned."""
        lengths = np.diff(self.ends, prepend=0)
        earned = np.add.reduceat(self.rewards, self.ends - lengths) if len(self.ends) else np.zeros(0)
        telling = np.zeros(len(self.ends), bool)
        telling[np.flatnonzero(earned)[:_TELLING_EPISODES]] = True
        if not telling.any():
            return []
        rows = np.repeat(telling, lengths)
        return [
            task
            for task in self.family.tasks
            if self._replay(task, rows) is not None and self._replay(task, np.ones_like(rows)) is not None
        ]

    def _replay(self, task: Task, rows: Array) -> tuple[Array, Array, Array] | None:
        """Return where the actions led, terminations and truncations, or None when *task* is not what was played."""
        here, actions, dones = self.observations[rows], self.actions[rows], self.dones[rows]
        led_to = self.family.next_observations(task, here, actions).astype(here.dtype)
        if (led_to != self.following[rows])[~dones].any():
            return None
        ends = np.flatnonzero(dones) + 1
        rewards, terminations, truncations = self.family.replay(task, here, actions, led_to, ends)
        if (rewards != self.rewards[rows]).any() or ((terminations | truncations) != dones).any():
            return None
        return led_to, terminations, truncations

    def histories(self, task: Task) -> TaskHistories:
        """Return the streams as the histories of *task*, with the true last observations."""
        replayed = self._replay(task, np.ones(len(self.rewards), bool))
        assert replayed is not None
        cuts = np.cumsum(self.lengths)[:-1]
        names = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
        columns = (self.observations, self.actions, self.rewards, *replayed)
        streams = zip(*(np.split(column, cuts) for column in columns), strict=True)
        lives = [dict(zip(names, stream, strict=True)) for stream in streams if len(stream[0])]
        return laid_end_to_end(task.task_id, task.params, lives)

    def doubt(self, tasks: list[Task]) -> str:
        """Say why no task can be named."""
        if len(self.ends) == 0:
            return "it has no whole episode"
        if not self.rewards.any():
            return "it never earned a reward, so that nothing tells its task"
        if not tasks:
            return f"no task of {self.family.name} gives its rewards, moves and ends of episodes"
        return f"{len(tasks):,} tasks fit it, {tasks[0].task_id!r} and {tasks[1].task_id!r} among them"


def _leaks(family: TaskFamily, goals: Mapping[int, str], settings: Fields) -> str:
    """Say which goals its evaluation plays though its loader trains on them; *goals* are those of the groups."""
    seed, ratio = settings["env_split_seed"], settings["train_env_ratio"]
    order = list(range(len(family.tasks)))
    random.Random(seed).shuffle(order)
    num_train = round(len(order) * ratio)
    trained = {goals[group] for group in order[:num_train] if group in goals}
    evaluated = [family.tasks[place].task_id for place in order[num_train:]]
    leaks = [task_id for task_id in evaluated if task_id in trained]
    named = f": {', '.join(leaks)}" if leaks else ""
    return (
        f"with env_split_seed {seed} and train_env_ratio {ratio} the earlier code trains on {len(leaks)} of the "
        f"{len(evaluated)} tasks that it evaluates{named}"
    )
