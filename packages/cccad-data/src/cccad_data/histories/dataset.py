"""A set of histories, read from a dataset folder (`manifest.json`, `shards/`) or from a single shard."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cccad_data.affordable import excess, memory_bytes
from cccad_data.errors import HistoryFileError
from cccad_data.histories import shards
from cccad_data.histories.containment import MOST_SHRINKAGE
from cccad_data.histories.header import HEADER_KEYS, read_manifest_file
from cccad_data.histories.history import TaskHistories
from cccad_data.plain import Table

MANIFEST = "manifest.json"
SHARD = "shards/unit-{:04d}.h5"
LAZY_ABOVE_BYTES = 1 << 31
"Datasets with larger files than this stay on the disk unless it is asked otherwise."


@frozen(kw_only=True, eq=False)
class Histories:
    """Learning histories of many tasks, with the header that says where they come from."""

    header: Table
    tasks: tuple[TaskHistories, ...]

    @classmethod
    def open(cls, path: Path | str, *, lazy: bool | None = None) -> "Histories":
        """Read a dataset folder or one `.h5` shard.

        The arrays of *lazy* histories are columns that stay on the disk until they are asked for a stretch (see
        `cccad_data.histories.columns`); without a choice, files of more than `LAZY_ABOVE_BYTES`, or more than half of
        the memory when they are unpacked, are read lazily.

        Raises HistoryFileError when anything is missing, unfinished, damaged or of an unknown format.
        """
        path = Path(path)
        if not path.is_dir():
            header, tasks = shards.read_shard(path, lazy=_is_lazy([path], path, lazy=lazy))
            return cls(header=header, tasks=tuple(tasks))
        manifest = read_manifest(path)
        paths, tasks = finished_shards(path, manifest), []
        lazy = _is_lazy(paths, path, lazy=lazy)
        for shard in paths:
            header, of_shard = shards.read_shard(shard, lazy=lazy)
            differing = [key for key in HEADER_KEYS if key != "tasks" and header[key] != manifest[key]]
            if differing:
                raise HistoryFileError(
                    f"{shard}: {differing[0]!r} is not what {path / MANIFEST} says; collect it again"
                )
            tasks.extend(of_shard)
        if [task.task_id for task in tasks] != [task["task_id"] for task in manifest["tasks"]]:
            raise HistoryFileError(f"{path}: the shards do not hold the tasks that the manifest lists")
        return cls(header={key: manifest[key] for key in ("format", *HEADER_KEYS)}, tasks=tuple(tasks))

    @property
    def task_ids(self) -> tuple[str, ...]:
        """Ids of the tasks that were collected."""
        return tuple(task.task_id for task in self.tasks)

    @property
    def held_out_task_ids(self) -> tuple[str, ...]:
        """Ids of the tasks that were kept out of the collection."""
        return tuple(self.header["held_out_task_ids"])

    @property
    def spaces(self) -> Table:
        """The observation and the action space, as plain dictionaries."""
        return dict(self.header["spaces"])

    @property
    def num_env_steps(self) -> int:
        """Env steps of all tasks together."""
        return sum(task.num_env_steps for task in self.tasks)

    @property
    def num_histories(self) -> int:
        """Histories of all tasks together."""
        return sum(task.num_histories for task in self.tasks)

    def __iter__(self) -> Iterator[TaskHistories]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)


def _is_lazy(paths: Sequence[Path], path: Path, *, lazy: bool | None) -> bool:
    """Choose where nobody has; raises HistoryFileError where what is not lazy would not fit into memory."""
    packed = sum(shard.stat().st_size for shard in paths if shard.is_file())
    if lazy or (lazy is None and packed > LAZY_ABOVE_BYTES):
        return True
    if packed * MOST_SHRINKAGE < memory_bytes() / 2:  # a glance is enough for most
        return False
    unpacked = sum(shards.declared_bytes(shard) for shard in paths)
    if lazy is False and (words := excess("these histories", unpacked)):
        raise HistoryFileError(f"{path}: {words}; open them with lazy=True")
    return lazy is None and unpacked > memory_bytes() / 2


def read_manifest(folder: Path) -> Table:
    """Return `manifest.json` of a dataset folder; raises HistoryFileError when it is not one."""
    return read_manifest_file(folder / MANIFEST)


def finished_shards(folder: Path, manifest: Table) -> list[Path]:
    """Return the shards of a finished collection; raises HistoryFileError when units are missing."""
    units = manifest["units"]
    done = [unit for unit in units if unit["done"]]
    if len(done) < len(units):
        raise HistoryFileError(
            f"{folder}: only {len(done)} of {len(units)} units are collected; collect into this folder again to finish"
        )
    return [folder / unit["shard"] for unit in units]


def learning_curve(histories: Sequence[TaskHistories] | Histories) -> dict[str, NDArray[np.float64]]:
    """Return the source's own learning curve per task: the return of episode 1, 2, ..., the mean over its histories.

    The curve of a task is as long as its shortest history (in episodes).
    """
    curves = {}
    for task in histories:
        counts = task.num_episodes_per_history()
        first = np.cumsum(counts) - counts
        rows = first[:, None] + np.arange(counts.min())[None, :]
        curves[task.task_id] = task.episode_returns()[rows].mean(axis=0)
    return curves


def early_late_returns(
    histories: Sequence[TaskHistories] | Histories, *, num_episodes: int = 10
) -> dict[str, tuple[float, float]]:
    """Return per task the mean return of the first and of the last *num_episodes* episodes of its histories."""
    return {
        task_id: (float(curve[:num_episodes].mean()), float(curve[-num_episodes:].mean()))
        for task_id, curve in learning_curve(histories).items()
    }
