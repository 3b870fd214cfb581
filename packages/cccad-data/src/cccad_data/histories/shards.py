"""One shard, `cccad-history/1`: an HDF5 file that stands alone, written whole or not at all.

::

    attribute format   "cccad-history/1"
    /header            JSON as bytes: env spec, spaces, tasks, held-out ids, split, source spec, seed, versions
    /tasks/00000       one group per task, in the header's order; attribute task_id
        observations   t o     actions     t       rewards             t  float32
        terminations   t       truncations t       final_observations  n o
        episode_ends   n       history_ends m      optimal_actions     t  (optional)

Arrays hold all histories of a task end to end, for thousands of tiny datasets are slow in HDF5. Every dataset is
chunked and checksummed (fletcher32), and compressed with gzip, or with lzf where it repeats much, or not at all: then
the lazy columns read it at once from its place in the file. Rows as wide as images are compressed with gzip where that
halves them. A row of a space of parts is its leaves, one behind the other. HDF5's own structures carry checksums as
well, in its 1.10 layout.
"""

import io
import itertools
import json
import os
import socket
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from cccad_data.affordable import excess
from cccad_data.errors import DataError, HistoryFileError, StorageError
from cccad_data.histories import columns
from cccad_data.histories.containment import check_all, check_dataset, check_link
from cccad_data.histories.header import FORMAT, Header, check_format, check_header
from cccad_data.histories.history import ARRAYS, TaskHistories
from cccad_data.histories.owner import lock
from cccad_data.plain import Array, Fields, Table
from cccad_data.spaces import num_features

COMPRESSIONS = ("lzf", "gzip", "none")

_KINDS = {"rewards": "f", "terminations": "b", "truncations": "b", "episode_ends": "iu", "history_ends": "iu"}
_PACKED_CHUNK_BYTES, _PLAIN_CHUNK_BYTES = 1 << 15, 1 << 20  # little is unpacked in vain; much is read in one go
_IMAGE_BYTES, _IMAGE_CHUNK_BYTES = 1 << 10, 1 << 17  # from so wide a row on; frames that follow one another are alike
_SAMPLE_BYTES, _LEAST_SHRINKAGE = 1 << 14, 8  # lzf, some 100 MB/s where little repeats, is for what deflate makes tiny
_PARTIALS = itertools.count()
_DAMAGE = (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, SystemError, MemoryError)
"What h5py and json raise over bytes that make no sense."


def write_shard(path: Path, header: Fields, histories: Sequence[TaskHistories], compression: str = "lzf") -> None:
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


def _layout(array: Array, compression: str) -> Table:
    row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
    is_shuffled = array.dtype.itemsize > 1 and (compression == "gzip" or array.dtype.kind != "f")
    repeats = _repetition(array, is_shuffled)
    if compression == "lzf" and row_bytes >= _IMAGE_BYTES and array.ndim == 2 and repeats >= 2:
        rows = min(len(array), max(_IMAGE_CHUNK_BYTES // row_bytes, 1))
        fast = {"compression": "gzip", "compression_opts": 1, "shuffle": array.dtype.itemsize > 1}
        return {"chunks": (rows, *array.shape[1:]), **fast}
    is_small = array.nbytes < 2 * _SAMPLE_BYTES
    is_plain = compression == "none" or (compression == "lzf" and not is_small and repeats <= _LEAST_SHRINKAGE)
    rows = min(len(array), max((_PLAIN_CHUNK_BYTES if is_plain else _PACKED_CHUNK_BYTES) // row_bytes, 1))
    packed = {} if is_plain else {"compression": compression, "shuffle": is_shuffled}
    return {"chunks": (rows, *array.shape[1:]), **packed}


def _repetition(array: Array, is_shuffled: bool) -> float:
    """Return by how much deflate shrinks a sample of an array."""
    flat, size = array.reshape(-1), array.dtype.itemsize
    row_bytes = size * int(np.prod(array.shape[1:], dtype=np.int64))
    num_bytes = max(_SAMPLE_BYTES, min(4 * row_bytes, _IMAGE_CHUNK_BYTES) if row_bytes >= _IMAGE_BYTES else 0)
    sample = flat[len(flat) // 2 :][: num_bytes // size].view(np.uint8).reshape(-1, size)
    text = (sample.T if is_shuffled else sample).tobytes()
    return len(text) / max(len(zlib.compress(text, 1)), 1)


def write_json(path: Path, content: Fields) -> None:
    """Write *content* to *path* whole or not at all."""
    with whole_file(path) as handle:
        handle.write(json_bytes(content, path, indent=1) + b"\n")


def json_bytes(content: Fields, path: Path, indent: int | None = None) -> bytes:
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
    with _opened(path) as file:
        return header_of(file, path)


def read_shard(path: Path, *, lazy: bool = False) -> tuple[Header, list[TaskHistories]]:
    """Return the header and the histories of the shard at *path*; *lazy* ones stay on the disk until they are asked.

    Raises HistoryFileError, as `read_header` does, and when a task is missing, damaged or contradicts itself.
    """
    with _opened(path) as file:
        header = header_of(file, path)
        return header, [read_task(file, path, header, index, lazy=lazy) for index in range(len(header["tasks"]))]


def declared_bytes(path: Path) -> int:
    """Return how many bytes the arrays of a shard are in memory; raises HistoryFileError where that cannot be."""
    with _opened(path) as file, sound(path, "its structure is damaged"):
        return check_all(file, path)


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
    """Open an HDF5 file for reading; raises HistoryFileError when that is impossible, or it leads to other files."""
    file = _opened(path)
    try:
        with sound(path, "its structure is damaged"):
            check_all(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _opened(path: Path) -> h5py.File:
    if not path.is_file():
        raise HistoryFileError(f"{path}: there is no such history file")
    with sound(path, "not a whole HDF5 file (cut off, or something else)"):
        return h5py.File(path, "r", locking="best-effort")  # some network file systems know no locks


def header_of(file: h5py.File, path: Path) -> Header:
    """Return the header of an open shard; raises HistoryFileError when it is not one of ours."""
    with sound(path, "the header cannot be read"):
        check_format(file.attrs.get("format"), path)
        header = json.loads(bytes(_dataset(file, "header", path, "u", 1)[...]))
        check_header(header, path)
    return dict(header)


def _dataset(group: h5py.Group, name: str, path: Path, kinds: str, ndim: int | None = None) -> h5py.Dataset:
    """Return a dataset of an open group that may be read: its bytes are here, and of a dtype of one of these kinds."""
    check_link(group, name, path)
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset):
        raise HistoryFileError(f"{path}: {dataset.name!r} is not a dataset")
    check_dataset(dataset.id, path, dataset.name)
    if dataset.dtype.kind not in kinds or (ndim is not None and dataset.ndim != ndim):
        raise HistoryFileError(f"{path}: {dataset.name!r} has dtype {dataset.dtype} and shape {dataset.shape}")
    return dataset


def read_task(file: h5py.File, path: Path, header: Header, index: int, *, lazy: bool = False) -> TaskHistories:
    """Return the histories of the task *index* of an open shard, *lazy* ones with columns that stay on the disk."""
    task, name = header["tasks"][index], f"tasks/{index:05d}"
    task_id = task["task_id"]
    with sound(path, f"task {task_id!r} is damaged (checksum)"):
        group = _group(file, path, name, task_id)
        named = [array for array in (*ARRAYS, "optimal_actions") if array in ARRAYS or array in group]
        datasets = {}
        for array in named:
            kinds = _KINDS.get(array, "iuf")
            datasets[array] = _dataset(group, array, path, kinds, 1 if array in _KINDS else None)
            _check_width(datasets[array], array, header["spaces"], path)
        num_bytes = 0 if lazy else sum(dataset.nbytes for dataset in datasets.values())
        if words := excess(f"the histories of task {task_id!r}", num_bytes):
            raise HistoryFileError(f"{path}: {words}; open them with lazy=True")
        arrays = {
            array: columns.stored(path, dataset) if lazy and array != "history_ends" else dataset[...]
            for array, dataset in datasets.items()
        }
        histories = TaskHistories(task_id=task_id, params=task["params"], **arrays)
        bad = np.flatnonzero(np.zeros(1) if lazy else ~np.isfinite(histories.rewards))
    if len(bad):
        raise HistoryFileError(f"{path}: the reward of task {task_id!r} at env step {bad[0]:,} is not a finite number")
    return histories


def _group(file: h5py.File, path: Path, name: str, task_id: str) -> h5py.Group:
    """Return the group of a task, which has all its arrays."""
    check_link(file, "tasks", path)
    if name in file:
        check_link(file["tasks"], name.removeprefix("tasks/"), path)
    if name not in file or file[name].attrs.get("task_id") != task_id:
        raise HistoryFileError(f"{path}: task {task_id!r} is in the header, but group {name!r} does not hold it")
    missing = [array for array in ARRAYS if array not in file[name]]
    if missing:
        raise HistoryFileError(f"{path}: task {task_id!r} lacks {', '.join(map(repr, missing))}")
    return file[name]


def _check_width(dataset: h5py.Dataset, name: str, named_spaces: Fields, path: Path) -> None:
    """Hold the features of an array against its space."""
    if name in _KINDS:
        return
    space = named_spaces["observation" if name.endswith("observations") else "action"]
    is_flat = space["kind"] == "discrete" and not name.endswith("observations")
    right = () if is_flat else (num_features(space),)
    if dataset.shape[1:] != right:
        raise HistoryFileError(
            f"{path}: {dataset.name!r} has the shape {dataset.shape}, but {dict(space)!r:.80} needs {('...', *right)}"
        )
