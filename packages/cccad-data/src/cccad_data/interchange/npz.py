"""NumPy's own archive: ``header`` (JSON as bytes) and ``00000/observations`` and so on, the arrays as they are."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cccad_data.dataset import Histories
from cccad_data.errors import DataError
from cccad_data.header import check_header
from cccad_data.history import ARRAYS, TaskHistories
from cccad_data.interchange import Found, Wishes
from cccad_data.store import whole_file

SETTINGS: dict[str, Any] = {}
_DAMAGE = (OSError, LookupError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


def read(source: Path, _wishes: Wishes) -> Found:
    """Return what `write` wrote."""
    try:
        with np.load(source, allow_pickle=False) as archive:
            header = json.loads(bytes(archive["header"]))
    except _DAMAGE as error:
        raise DataError(f"{source}: no readable npz with a 'header', as the export writes it: {error}") from error
    check_header(header, source)
    return Found(header=header, tasks=_tasks(source, header))


def _tasks(source: Path, header: dict[str, Any]) -> Iterator[TaskHistories]:
    with np.load(source, allow_pickle=False) as archive:
        for index, task in enumerate(header["tasks"]):
            names = [
                name for name in (*ARRAYS, "optimal_actions") if name in ARRAYS or f"{index:05d}/{name}" in archive
            ]
            try:
                arrays = {name: archive[f"{index:05d}/{name}"] for name in names}
                yield TaskHistories(task_id=task["task_id"], params=task["params"], **arrays)
            except _DAMAGE as error:
                raise DataError(f"{source}: task {task['task_id']!r} cannot be read: {error}") from error


def write(histories: Histories, out: Path) -> None:
    """Write an archive that ``numpy.load`` reads, a task at a time in memory."""
    header = np.frombuffer(json.dumps(histories.header).encode(), np.uint8)
    with whole_file(out) as handle, zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "header", header)
        for index, task in enumerate(histories):
            for name, array in task.arrays().items():
                _add(archive, f"{index:05d}/{name}", np.asarray(array))


def _add(archive: zipfile.ZipFile, name: str, array: Any) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)
