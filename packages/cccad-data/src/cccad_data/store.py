"""One shard, ``cccad-history/1``: an HDF5 file that stands alone, written whole or not at all.

::

    attribute format   "cccad-history/1"
    /header            JSON as bytes: env spec, spaces, tasks, held-out ids, split, source spec, seed, versions
    /tasks/00000       one group per task, in the header's order; attribute task_id
        observations   t o     actions     t       rewards             t  float32
        terminations   t       truncations t       final_observations  n o
        episode_ends   n       history_ends m      optimal_actions     t  (optional)

Arrays hold all histories of a task end to end, for thousands of tiny datasets are slow in HDF5. Every dataset is
chunked, compressed (lzf) and checksummed (fletcher32).
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cccad_data.errors import DataError, HistoryFileError
from cccad_data.history import ARRAYS, TaskHistories

FORMAT = "cccad-history/1"
HEADER_KEYS = ("env", "spaces", "horizon", "tasks", "held_out_task_ids", "split", "source", "seed", "versions")

Header = dict[str, Any]
_CHUNK_ROWS = 1 << 16


def write_shard(path: Path, header: Mapping[str, Any], histories: Sequence[TaskHistories]) -> None:
    """Write one shard under a temporary name, flush it to the disk, then rename it to *path*.

    Raises HistoryFileError when a reward is not a number.
    """
    for task in histories:
        if not np.isfinite(task.rewards).all():
            raise HistoryFileError(f"{path}: a reward of task {task.task_id!r} is not a finite number")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # an orphan of a killed run may still be writing
    with h5py.File(partial, "w") as file:
        file.attrs["format"] = FORMAT
        file.create_dataset("header", data=np.frombuffer(json.dumps(header).encode(), np.uint8))
        for index, task in enumerate(histories):
            group = file.create_group(f"tasks/{index:05d}")
            group.attrs["task_id"] = task.task_id
            for name, array in task.arrays().items():
                chunks = (min(len(array), _CHUNK_ROWS), *array.shape[1:])
                shuffle = array.dtype.itemsize > 1
                group.create_dataset(
                    name, data=array, chunks=chunks, compression="lzf", shuffle=shuffle, fletcher32=True
                )
    _flush(partial)
    os.replace(partial, path)
    _flush(path.parent)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write *content* to *path* whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _flush(partial)
    os.replace(partial, path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_header(path: Path) -> Header:
    """Return the header of the shard at *path*.

    Raises HistoryFileError when the file is missing, cut off, of another format, or has no whole header.
    """
    with open_shard(path) as file:
        return header_of(file, path)


def read_shard(path: Path) -> tuple[Header, list[TaskHistories]]:
    """Return the header and the histories of the shard at *path*.

    Raises HistoryFileError, as `read_header` does, and when a task is missing, damaged or contradicts itself.
    """
    with open_shard(path) as file:
        header = header_of(file, path)
        return header, [read_task(file, path, index, task) for index, task in enumerate(header["tasks"])]


def open_shard(path: Path) -> h5py.File:
    """Open a shard for reading; raises HistoryFileError when that is impossible."""
    if not path.is_file():
        raise HistoryFileError(f"{path}: there is no such history file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise HistoryFileError(f"{path}: not a whole HDF5 file (cut off, or something else): {error}") from error


def header_of(file: h5py.File, path: Path) -> Header:
    """Return the header of an open shard; raises HistoryFileError when it is not one of ours."""
    found = file.attrs.get("format")
    if found != FORMAT:
        raise HistoryFileError(f"{path}: the format is {found!r}; this version of cccad-data reads {FORMAT!r} only")
    try:
        header = json.loads(bytes(file["header"][...]))
    except (KeyError, OSError, ValueError) as error:
        raise HistoryFileError(f"{path}: the header cannot be read: {error}") from error
    check_header(header, path)
    return dict(header)


def check_header(header: Mapping[str, Any], path: Path) -> None:
    """Raise HistoryFileError unless *header* has every key of the format."""
    missing = [key for key in HEADER_KEYS if key not in header]
    if missing:
        raise HistoryFileError(f"{path}: the header lacks {', '.join(map(repr, missing))}")


def read_task(file: h5py.File, path: Path, index: int, task: Mapping[str, Any]) -> TaskHistories:
    """Return the histories of the task *index* of an open shard."""
    task_id, name = task["task_id"], f"tasks/{index:05d}"
    if name not in file or file[name].attrs.get("task_id") != task_id:
        raise HistoryFileError(f"{path}: task {task_id!r} is in the header, but group {name!r} does not hold it")
    group = file[name]
    missing = [array for array in ARRAYS if array not in group]
    if missing:
        raise HistoryFileError(f"{path}: task {task_id!r} lacks {', '.join(map(repr, missing))}")
    try:
        arrays = {array: group[array][...] for array in (*ARRAYS, "optimal_actions") if array in group}
        histories = TaskHistories(task_id=task_id, params=task["params"], **arrays)
    except OSError as error:
        raise HistoryFileError(f"{path}: task {task_id!r} is damaged (checksum): {error}") from error
    except DataError as error:
        raise HistoryFileError(f"{path}: {error}") from error
    bad = np.flatnonzero(~np.isfinite(histories.rewards))
    if len(bad):
        raise HistoryFileError(f"{path}: the reward of task {task_id!r} at env step {bad[0]:,} is not a finite number")
    return histories
