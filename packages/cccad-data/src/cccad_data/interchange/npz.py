"""NumPy's own archive: ours with a `header` (JSON as bytes) and `00000/observations` and so on, or flat arrays.

Flat arrays of others are named as in `cccad_data.interchange.flat`.
"""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from cccad_data.errors import DataError
from cccad_data.histories.containment import MOST_SHRINKAGE
from cccad_data.histories.dataset import Histories
from cccad_data.histories.history import ARRAYS, TaskHistories
from cccad_data.histories.shards import json_bytes, whole_file
from cccad_data.interchange import Found, Wishes, flat, our_header, reading
from cccad_data.plain import Array, Fields

SETTINGS = flat.SETTINGS
TAKES_ENV = TAKES_MANY = True


def read(sources: Sequence[Path], wishes: Wishes) -> Found:
    """Return what `write` wrote, as it was, or the histories in flat arrays."""
    archives = {source: _Archive(source) for source in sources}
    ours = [source for source, archive in archives.items() if "header" in archive.names]
    if ours and len(sources) > 1:
        raise DataError(f"{ours[0]}: an export of ours is imported alone; 'merge' makes one set of several")
    if not ours:
        for source, archive in archives.items():
            if not any(f"/{name}".endswith("/rewards") for name in archive.names):
                raise DataError(f"{source}: lacks 'rewards', which flat arrays have, and has no 'header' of ours")
        return flat.read("npz", lambda source: nullcontext(archives[source]), sources, wishes)
    if wishes.env is not None or any(wishes.settings[name] != SETTINGS[name] for name in SETTINGS):
        raise DataError(f"{ours[0]}: an export of ours brings its own family; leave out the task family and settings")
    archive = archives[ours[0]]
    header = our_header(archive.read("header").tobytes(), ours[0])
    return Found(header=header, tasks=_tasks(archive, header))


def _tasks(archive: "_Archive", header: Fields) -> Iterator[TaskHistories]:
    for index, task in enumerate(header["tasks"]):
        has_optimal = f"{index:05d}/optimal_actions" in archive.names
        names = (*ARRAYS, "optimal_actions") if has_optimal else ARRAYS
        with reading(archive.source, f"task {task['task_id']!r} cannot be read"):
            arrays = {name: archive.read(f"{index:05d}/{name}") for name in names}
            histories = TaskHistories(task_id=task["task_id"], params=task["params"], **arrays)
        yield histories


class _Archive:
    """A zip file of arrays, whose members are looked at before they are read."""

    def __init__(self, source: Path) -> None:
        self.source = source
        with reading(source, "no readable npz"), zipfile.ZipFile(source) as archive:
            self.names = {info.filename.removesuffix(".npy") for info in archive.infolist()}

    def read(self, name: str) -> Array:
        """Return an array; raises DataError when it is missing, packed in an unknown way, or not what it declares."""
        with reading(self.source, f"no readable npz: {name!r}"), zipfile.ZipFile(self.source) as archive:
            info = archive.getinfo(f"{name}.npy")
            if info.file_size > MOST_SHRINKAGE * max(info.compress_size, 1):
                raise DataError(f"{self.source}: {name!r} declares {info.file_size:,} bytes, which cannot be in it")
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, is_fortran, dtype = read(member)
                num_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
                kinds = "biuf" if "header" in self.names else "biufU"  # texts say whose rows are
                if dtype.kind not in kinds or num_bytes != info.file_size - member.tell():
                    raise DataError(f"{self.source}: {name!r} declares {list(shape)} numbers of {dtype}; it has others")
                flat = np.frombuffer(member.read(), dtype)
                return flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)


def write(histories: Histories, out: Path) -> None:
    """Write an archive that `numpy.load` reads, a task at a time in memory."""
    header = np.frombuffer(json_bytes(histories.header, out), np.uint8)
    with whole_file(out) as handle, zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "header", header)
        for index, task in enumerate(histories):
            for name, array in task.arrays().items():
                _add(archive, f"{index:05d}/{name}", np.asarray(array))


def _add(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)
