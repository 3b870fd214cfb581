"""NumPy's own archive: ours with a `header` (JSON as bytes) and `00000/observations` and so on, or flat arrays.

Flat arrays of others are named as in `cccad_data.interchange.flat`, with `TASK/` before them where there are several
tasks. `history_ends` cuts them into lives; `episode_ends` and `final_observations` stand for flags and for
`next_observations`.
"""

import itertools
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cccad_data.errors import DataError
from cccad_data.histories.containment import MOST_SHRINKAGE
from cccad_data.histories.dataset import Histories
from cccad_data.histories.history import ARRAYS, OFFSETS, TaskHistories
from cccad_data.histories.shards import json_bytes, whole_file
from cccad_data.interchange import Found, Wishes, lives, our_header, reading
from cccad_data.interchange.episodes import UNKNOWN_LAST
from cccad_data.interchange.flat import FLAGS, MAYBE, NEEDED, as_sentences, life_of
from cccad_data.interchange.lives import Life, gathered, task_of
from cccad_data.plain import Array, Fields

SETTINGS = lives.SETTINGS
TAKES_ENV = TAKES_MANY = True
_PER_STEP = (*NEEDED, *MAYBE, *FLAGS)


def read(sources: Sequence[Path], wishes: Wishes) -> Found:
    """Return what `write` wrote, as it was, or the histories in flat arrays."""
    archives = {source: _Archive(source) for source in sources}
    ours = [source for source, archive in archives.items() if "header" in archive.names]
    if ours and len(sources) > 1:
        raise DataError(f"{ours[0]}: an export of ours is imported alone; 'merge' makes one set of several")
    if not ours:
        notes: Counter[str] = Counter()
        all_lives = [life for index in range(len(sources)) for life in _flat(archives, index, wishes, notes)]
        last = "repeated" if UNKNOWN_LAST in +notes else "true"
        return gathered("npz", sources, all_lives, wishes, as_sentences(notes), last_observations=last)
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


def _flat(archives: Mapping[Path, "_Archive"], index: int, wishes: Wishes, notes: Counter[str]) -> Iterator[Life]:
    """Yield the lives of one archive of others."""
    source, archive = list(archives.items())[index]
    prefixes = sorted({name.removesuffix("rewards") for name in archive.names if f"/{name}".endswith("/rewards")})
    if not prefixes:
        raise DataError(f"{source}: lacks 'rewards', which flat arrays have, and has no 'header' of ours")
    for prefix in prefixes:
        task_id = prefix.rstrip("/") or task_of(index, f"npz/{source.stem}", wishes, len(archives))
        names = (*_PER_STEP, "final_observations", *OFFSETS)
        arrays = {name: archive.read(prefix + name) for name in names if prefix + name in archive.names}
        for part in _cut(source, arrays):
            yield life_of(source, task_id, part, wishes.settings, notes)


def _cut(source: Path, arrays: dict[str, Array]) -> Iterator[dict[str, Array]]:
    """Yield the arrays of each history, with flags and next observations in the place of offsets."""
    length = len(arrays["rewards"]) if arrays["rewards"].ndim else 0
    for name in OFFSETS:
        if name not in arrays:
            continue
        ends = arrays[name]
        is_sound = ends.ndim == 1 and ends.dtype.kind in "iu" and len(ends) > 0 and ends[0] >= 1 and ends[-1] <= length
        if not is_sound or (np.diff(ends.astype(np.int64)) < 1).any():
            raise DataError(f"{source}: {name!r} must be whole numbers that rise from at least 1 to {length:,} at most")
    if "episode_ends" in arrays:
        at_end = np.zeros(length, bool)
        at_end[arrays["episode_ends"].astype(int) - 1] = True
        if not set(arrays) & set(FLAGS):
            arrays["truncations"] = at_end
        final, shown = arrays.get("final_observations"), arrays.get("observations")
        if final is not None and shown is not None and "next_observations" not in arrays:
            if final.shape != (int(at_end.sum()), *shown.shape[1:]) or len(shown) != length:
                raise DataError(f"{source}: 'final_observations' must have one for each of 'episode_ends'")
            following = np.concatenate([shown[1:], shown[-1:]])
            following[at_end] = final
            arrays["next_observations"] = following
    begins = [0, *arrays.get("history_ends", np.array([length])).tolist()]
    for begin, end in itertools.pairwise(begins):
        yield {name: array[begin:end] for name, array in arrays.items() if name in _PER_STEP and array.ndim}


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
                if dtype.kind not in "biuf" or num_bytes != info.file_size - member.tell():
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
