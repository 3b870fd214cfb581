"""Datasets that are written in one go, whole or not at all: what was imported, and several collections made one."""

import glob
import itertools
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from attrs import evolve

from cccad_data.errors import DataError, StorageError
from cccad_data.histories import shards
from cccad_data.histories.dataset import MANIFEST, SHARD, Histories
from cccad_data.histories.history import OFFSETS, TaskHistories
from cccad_data.histories.owner import OWNER, owned, owner_of
from cccad_data.plain import Fields, Table

_UNIT_TASKS, _UNIT_ENV_STEPS = 64, 1 << 24
_ALIKE = ("env", "spaces", "horizon", "split", "held_out_task_ids")


def write_dataset(
    out: Path | str, header: Fields, tasks: Iterable[TaskHistories], *, compression: str = "gzip"
) -> Path:
    """Write a dataset folder of *tasks*, a unit at a time in memory, and return it.

    Raises DataError when *out* is there already or no task is given, StorageError when the disk does not take it, and
    whatever *tasks* raises; then nothing is left at *out*.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out} is there already; choose a new folder")
    for left_by_a_kill in out.parent.glob(f"{glob.escape(out.name)}.*.partial"):
        if (left_by_a_kill / OWNER).is_file() and not owner_of(left_by_a_kill):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
    partial = out.with_name(f"{out.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        with owned(partial):
            _write(partial, header, tasks, compression)
            _rename(partial, out)
            (out / OWNER).unlink()
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return out


def _write(out: Path, header: Fields, tasks: Iterable[TaskHistories], compression: str) -> None:
    units: list[Table] = []
    listed: list[Table] = []
    for unit in _units(tasks):
        named = [{"task_id": task.task_id, "params": dict(task.params), "split": "train"} for task in unit]
        shard = SHARD.format(len(units))
        shards.write_shard(out / shard, {**header, "tasks": named}, unit, compression)
        units.append({"shard": shard, "task_ids": [task["task_id"] for task in named], "done": True})
        listed.extend(named)
    if not listed:
        raise DataError("there are no histories to write")
    shards.write_json(out / MANIFEST, {**header, "tasks": listed, "units": units})


def _rename(partial: Path, out: Path) -> None:
    try:
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror or error}") from error


def _units(tasks: Iterable[TaskHistories]) -> Iterator[list[TaskHistories]]:
    """Yield the tasks in groups that fit into memory."""
    unit: list[TaskHistories] = []
    for task in tasks:
        if unit and (len(unit) == _UNIT_TASKS or sum(t.num_env_steps for t in [*unit, task]) > _UNIT_ENV_STEPS):
            yield unit
            unit = []
        unit.append(task)
    if unit:
        yield unit


def merge(out: Path | str, paths: Sequence[Path | str], *, compression: str = "gzip") -> Path:
    """Merge datasets (folders or shards) of the same family and split into the dataset folder *out*, and return it.

    A task that several of them have gets the histories of all, in order, if their sources or seeds differ.

    Raises DataError when they do not fit together, or a task of one source and seed is there twice, and what
    `write_dataset` raises.
    """
    sets = [(str(path), Histories.open(path, lazy=True)) for path in paths]
    if not sets:
        raise DataError("there is nothing to merge")
    first, header = sets[0][0], sets[0][1].header
    for path, histories in sets[1:]:
        differing = [key for key in _ALIKE if histories.header[key] != header[key]]
        if differing:
            raise DataError(f"{path} cannot be merged with {first}: their {differing[0]!r} differ")
    origins = [_origins(histories.header) for _, histories in sets]
    distinct: list[Table] = []
    for origin in itertools.chain(*origins):
        distinct += [dict(origin)] * (origin not in distinct)
    if len(distinct) > 1:
        header = {**header, "source": {"kind": "merge", "parts": distinct}}
    return write_dataset(out, header, _merged(sets, origins), compression=compression)


def _origins(header: Fields) -> list[Table]:
    """Return the sources and seeds that a dataset comes from."""
    if header["source"]["kind"] == "merge":
        return list(header["source"]["parts"])
    return [{"source": header["source"], "seed": header["seed"]}]


def _merged(sets: Sequence[tuple[str, Histories]], origins: Sequence[Sequence[Fields]]) -> Iterator[TaskHistories]:
    places: dict[str, list[tuple[int, TaskHistories]]] = {}
    for index, (_, histories) in enumerate(sets):
        for task in histories:
            for earlier, other in places.setdefault(task.task_id, []):
                twice = [origin for origin in origins[index] if origin in origins[earlier]]
                if twice:
                    raise DataError(
                        f"task {task.task_id!r} of source {twice[0]['source']['kind']!r} and seed {twice[0]['seed']} "
                        f"is in {sets[earlier][0]} and in {sets[index][0]}; merge it once"
                    )
                if dict(task.params) != dict(other.params):
                    raise DataError(
                        f"task {task.task_id!r} is {other.params} in {sets[earlier][0]}, but {task.params} in "
                        f"{sets[index][0]}"
                    )
            places[task.task_id].append((index, task))
    for places_of_task in places.values():
        yield _end_to_end([task for _, task in places_of_task])


def _end_to_end(tasks: Sequence[TaskHistories]) -> TaskHistories:
    """Return the histories of one task as one, in memory."""
    shared = set.intersection(*({*task.arrays()} for task in tasks))
    if any({*task.arrays()} != shared for task in tasks):
        raise DataError(f"task {tasks[0].task_id!r} has 'optimal_actions' in some of the datasets only")
    births = np.cumsum([0, *(task.num_env_steps for task in tasks[:-1])])
    arrays: Table = {name: np.concatenate([task.arrays()[name] for task in tasks]) for name in shared}
    for name in OFFSETS:
        arrays[name] += np.repeat(births, [len(task.arrays()[name]) for task in tasks])
    return evolve(tasks[0], **arrays)
