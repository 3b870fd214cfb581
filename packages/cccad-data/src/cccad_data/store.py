"""One shard, ``cccad-history/1``: an HDF5 file that stands alone, written whole or not at all.

::

    attribute format   "cccad-history/1"
    /header            JSON as bytes: env spec, spaces, tasks, held-out ids, split, source spec, seed, versions
    /tasks/00000       one group per task, in the header's order; attribute task_id
        observations   t o     actions     t       rewards             t  float32
        terminations   t       truncations t       final_observations  n o
        episode_ends   n       history_ends m      optimal_actions     t  (optional)

Arrays hold all histories of a task end to end, for thousands of tiny datasets are slow in HDF5. Every dataset is
chunked and checksummed (fletcher32), and compressed with gzip, or with lzf where it repeats much, or not at all: then
the lazy columns read it at once from its place in the file. HDF5's own structures carry checksums as well, in its 1.10
layout.
"""

import io
import itertools
import json
import os
import socket
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from cccad_data import columns
from cccad_data.errors import DataError, HistoryFileError, StorageError
from cccad_data.history import ARRAYS, Array, TaskHistories
from cccad_data.owner import lock

FORMAT = "cccad-history/1"
COMPRESSIONS = ("lzf", "gzip", "none")

Header = dict[str, Any]
_HEADER_TYPES: dict[str, type] = {
    "env": dict,
    "spaces": dict,
    "horizon": int,
    "tasks": list,
    "held_out_task_ids": list,
    "split": dict,
    "source": dict,
    "seed": int,
    "versions": dict,
}
HEADER_KEYS = tuple(_HEADER_TYPES)
_KINDS = {"rewards": "f", "terminations": "b", "truncations": "b", "episode_ends": "iu", "history_ends": "iu"}
_PACKED_CHUNK_BYTES, _PLAIN_CHUNK_BYTES = 1 << 15, 1 << 20  # little is unpacked in vain; much is read in one go
_SAMPLE_BYTES, _LEAST_SHRINKAGE = 1 << 14, 8  # lzf, some 100 MB/s where little repeats, is for what deflate makes tiny
_PARTIALS = itertools.count()
_DAMAGE = (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError)
"What h5py and json raise over bytes that make no sense."


def write_shard(
    path: Path, header: Mapping[str, Any], histories: Sequence[TaskHistories], compression: str = "lzf"
) -> None:
    """Write one shard: put together in memory, written under a temporary name, flushed to the disk, then renamed.

    Raises HistoryFileError when a reward is not a number, and StorageError when the disk does not take it.
    """
    for task in histories:
        if not np.isfinite(np.asarray(task.rewards)).all():
            raise HistoryFileError(f"{path}: a reward of task {task.task_id!r} is not a finite number")
    image = io.BytesIO()  # HDF5 itself neither survives a full disk nor says in one line that it is full
    with h5py.File(image, "w", libver="v110") as file:
        file.attrs["format"] = FORMAT
        file.create_dataset("header", data=np.frombuffer(json_bytes(header, path), np.uint8), fletcher32=True)
        for index, task in enumerate(histories):
            group = file.create_group(f"tasks/{index:05d}")
            group.attrs["task_id"] = task.task_id
            for name, array in task.arrays().items():
                held = np.ascontiguousarray(array)
                group.create_dataset(name, data=held, fletcher32=True, **_layout(held, compression))
    with whole_file(path) as handle:
        handle.write(image.getbuffer())


def _layout(array: Array, compression: str) -> dict[str, Any]:
    row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
    is_shuffled = array.dtype.itemsize > 1 and (compression == "gzip" or array.dtype.kind != "f")
    is_plain = compression == "none" or (compression == "lzf" and not _repeats(array, is_shuffled))
    rows = min(len(array), max((_PLAIN_CHUNK_BYTES if is_plain else _PACKED_CHUNK_BYTES) // row_bytes, 1))
    packed = {} if is_plain else {"compression": compression, "shuffle": is_shuffled}
    return {"chunks": (rows, *array.shape[1:]), **packed}


def _repeats(array: Array, is_shuffled: bool) -> bool:
    """Whether an array is small, or deflate finds a sample of it highly repetitive."""
    flat, size = array.reshape(-1), array.dtype.itemsize
    sample = flat[len(flat) // 2 :][: _SAMPLE_BYTES // size].view(np.uint8).reshape(-1, size)
    text = (sample.T if is_shuffled else sample).tobytes()
    return array.nbytes < 2 * _SAMPLE_BYTES or len(zlib.compress(text, 1)) * _LEAST_SHRINKAGE < len(text)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write *content* to *path* whole or not at all."""
    with whole_file(path) as handle:
        handle.write(json_bytes(content, path, indent=1) + b"\n")


def json_bytes(content: Mapping[str, Any], path: Path, indent: int | None = None) -> bytes:
    """Return *content* as JSON; raises HistoryFileError where it holds what JSON has not, such as an infinity."""
    try:
        return json.dumps(content, indent=indent, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise HistoryFileError(f"{path}: its header is not what JSON can hold: {error}") from error


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears at *path* when all is written and on the disk, or not at all.

    Raises StorageError when the disk is full or does not let us.
    """
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened_beside(path) as handle:
            partial = Path(handle.name)
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
        _flush(path.parent)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)  # it is gone if all went well


def _opened_beside(path: Path) -> BinaryIO:
    """Open a new file with a name that no other process and no thread uses, locked for as long as it is written."""
    name = f"{path.name}.{socket.gethostname()}.{os.getpid()}-{next(_PARTIALS)}.partial"
    handle = path.with_name(name).open("xb")
    with suppress(OSError):  # a file system without locks
        lock(handle.fileno())
    return handle


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
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


def read_shard(path: Path, *, lazy: bool = False) -> tuple[Header, list[TaskHistories]]:
    """Return the header and the histories of the shard at *path*; *lazy* ones stay on the disk until they are asked.

    Raises HistoryFileError, as `read_header` does, and when a task is missing, damaged or contradicts itself.
    """
    with open_shard(path) as file:
        header = header_of(file, path)
        return header, [read_task(file, path, index, task, lazy=lazy) for index, task in enumerate(header["tasks"])]


@contextmanager
def sound(path: Path, what: str) -> Iterator[None]:
    """Turn whatever is raised over bytes that make no sense into one sentence."""
    try:
        yield
    except HistoryFileError:
        raise
    except DataError as error:
        raise HistoryFileError(f"{path}: {error}") from error
    except _DAMAGE as error:
        raise HistoryFileError(f"{path}: {what}: {' '.join(str(error).split()) or type(error).__name__}") from error


def open_shard(path: Path) -> h5py.File:
    """Open a shard for reading; raises HistoryFileError when that is impossible."""
    if not path.is_file():
        raise HistoryFileError(f"{path}: there is no such history file")
    with sound(path, "not a whole HDF5 file (cut off, or something else)"):
        return h5py.File(path, "r", locking="best-effort")  # some network file systems know no locks


def header_of(file: h5py.File, path: Path) -> Header:
    """Return the header of an open shard; raises HistoryFileError when it is not one of ours."""
    with sound(path, "the header cannot be read"):
        found = file.attrs.get("format")
        if found != FORMAT:
            raise HistoryFileError(f"{path}: the format is {found!r}; this version of cccad-data reads {FORMAT!r} only")
        header = json.loads(bytes(file["header"][...]))
    check_header(header, path)
    return dict(header)


def check_header(header: Any, path: Path) -> None:
    """Raise HistoryFileError unless *header* has every key of the format, each of its type."""
    if not isinstance(header, dict):
        raise HistoryFileError(f"{path}: the header is no table of names and values")
    missing = [key for key in HEADER_KEYS if key not in header]
    if missing:
        raise HistoryFileError(f"{path}: the header lacks {', '.join(map(repr, missing))}")
    for key, kind in _HEADER_TYPES.items():
        if type(header[key]) is not kind:
            raise HistoryFileError(f"{path}: {key!r} in the header must be a {kind.__name__}: {header[key]!r:.80}")
    merged = header["source"].get("parts", [])
    if not isinstance(merged, list) or not all(isinstance(part, dict) and "seed" in part for part in merged):
        raise HistoryFileError(f"{path}: the 'parts' of 'source' in the header must be a list, each with its 'seed'")
    sources = [header["source"], *(part.get("source") for part in merged)]
    spaces = [header["spaces"].get(name) for name in ("observation", "action")]
    for key, parts in (("env", [header["env"]]), ("source", sources), ("spaces", spaces)):
        if not all(isinstance(part, dict) and isinstance(part.get("kind"), str) for part in parts):
            raise HistoryFileError(f"{path}: {key!r} in the header has no 'kind': {header[key]!r:.80}")
    if not header["tasks"]:
        raise HistoryFileError(f"{path}: the header lists no task")
    for task in header["tasks"]:
        is_whole = isinstance(task, dict) and isinstance(task.get("params"), dict)
        if not is_whole or not isinstance(task.get("task_id"), str):
            raise HistoryFileError(f"{path}: a task in the header has no 'task_id' or no 'params': {task!r:.80}")


def read_task(file: h5py.File, path: Path, index: int, task: Mapping[str, Any], *, lazy: bool = False) -> TaskHistories:
    """Return the histories of the task *index* of an open shard, *lazy* ones with columns that stay on the disk."""
    task_id, name = task["task_id"], f"tasks/{index:05d}"
    with sound(path, f"task {task_id!r} is damaged (checksum)"):
        if name not in file or file[name].attrs.get("task_id") != task_id:
            raise HistoryFileError(f"{path}: task {task_id!r} is in the header, but group {name!r} does not hold it")
        group = file[name]
        missing = [array for array in ARRAYS if array not in group]
        if missing:
            raise HistoryFileError(f"{path}: task {task_id!r} lacks {', '.join(map(repr, missing))}")
        arrays = {}
        for array in (*ARRAYS, "optimal_actions"):
            if array in group:
                kind = group[array].dtype.kind
                if kind not in _KINDS.get(array, "iuf") or (array in _KINDS and group[array].ndim != 1):
                    raise HistoryFileError(f"{path}: {array!r} of task {task_id!r} has dtype {group[array].dtype}")
                is_read = not lazy or array == "history_ends"
                arrays[array] = group[array][...] if is_read else columns.stored(path, group[array])
        histories = TaskHistories(task_id=task_id, params=task["params"], **arrays)
        bad = np.flatnonzero(np.zeros(1) if lazy else ~np.isfinite(histories.rewards))
    if len(bad):
        raise HistoryFileError(f"{path}: the reward of task {task_id!r} at env step {bad[0]:,} is not a finite number")
    return histories
