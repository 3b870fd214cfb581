"""Collection by units: a fixed group of tasks with a seed is collected, written as one shard, and never done twice."""

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import attrs

from cccad_data import spaces
from cccad_data.affordable import excess
from cccad_data.collecting.rise import judge
from cccad_data.collecting.source import Source, SourceSpec
from cccad_data.errors import CollectionError, HistoryFileError, JobError, StorageError
from cccad_data.family import FamilySpec, Task, TaskFamily, TaskSplit
from cccad_data.histories import shards
from cccad_data.histories.dataset import MANIFEST, SHARD, read_manifest
from cccad_data.histories.header import FORMAT, HEADER_KEYS
from cccad_data.histories.owner import owned, remove_abandoned
from cccad_data.jobs.job import Executor
from cccad_data.jobs.portable import packed
from cccad_data.plain import Fields, Table
from cccad_data.process import VERSIONED, versions

_BYTES_PER_LISTED_TASK = 1_500  # its id and params, as objects and as JSON
_BYTES_PER_ENV_STEP, _COPIES = 6, 2  # its reward and flags; as arrays, and as the file that is put together


def collect(
    family: TaskFamily,
    source: Source,
    executor: Executor,
    *,
    out: Path | str,
    split: Fields,
    seed: int,
    max_tasks: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Collect the histories of the train tasks of *family* into the dataset folder *out*, and return it.

    *split* are the arguments of `family.split`; the first *max_tasks* train tasks of the split are collected (all,
    without it). Units that the folder has already are kept. While another process collects into it, this one waits, and
    a warning of the logger `cccad_data.histories.owner` says so. *progress* gets (env steps done, env steps in all).

    Raises CollectionError when the folder holds another collection, or, once all others are done, when units failed;
    at once, and with nothing half-written left behind, when the disk is full; and when all is there, but the return
    does not rise within the histories of a source that is to learn. A warning of the logger
    `cccad_data.collecting.rise` says that it rises little.
    """
    out = Path(out)
    parts = family.split(**split)
    tasks = parts.train[:max_tasks]
    _refuse_excess(family, source, len(tasks), len(parts.held_out))
    header = _header(family, source, parts, tasks, dict(split), seed)
    size = source.spec.tasks_per_unit
    jobs = [
        _Job(family.spec, source.spec, header, slice(first, first + size), out.absolute() / SHARD.format(index))
        for index, first in enumerate(range(0, len(tasks), size))
    ]
    with _swept(out), owned(out, wait=True):
        failures = _collected(out, header, jobs, executor, progress)
        _sweep(out)
    if failures:
        raise CollectionError("\n".join(_lost(out, len(jobs), failures)))
    judge(out, family, source)
    return out


def _refuse_excess(family: TaskFamily, source: Source, num_tasks: int, num_held_out: int) -> None:
    """Raise CollectionError where the list of the tasks, or the histories of one unit, would not fit into memory."""
    listed = (num_tasks + num_held_out) * _BYTES_PER_LISTED_TASK
    if words := excess(f"{num_tasks:,} tasks to collect and {num_held_out:,} held-out ones", listed):
        raise CollectionError(f"{words}: collect fewer of them, or choose a smaller family")
    spec, named = source.spec, family.spaces
    row_bytes = sum(
        spaces.num_features(named[side]) * spaces.dtype(named[side]).itemsize for side in ("observation", "action")
    )
    together = min(spec.tasks_per_unit, num_tasks)
    num_bytes = together * spec.num_envs * spec.env_steps * (row_bytes + _BYTES_PER_ENV_STEP) * _COPIES
    what = f"{together:,} tasks at a time, {spec.num_envs:,} envs and {spec.env_steps:,} env steps"
    if words := excess(what, num_bytes):
        raise CollectionError(f"{words}: lower 'tasks_per_unit', 'num_envs' or 'env_steps' of the source")


def _collected(
    out: Path,
    header: Table,
    jobs: Sequence["_Job"],
    executor: Executor,
    progress: Callable[[int, int], None] | None,
) -> list[tuple[list[str], str]]:
    """Do the units that are not done, in a folder that is ours; return the task ids and the failure of those lost."""
    done = _prepare(out, header, jobs)
    totals = [len(job.task_ids) * job.source_spec.num_envs * job.source_spec.env_steps for job in jobs]
    meter = _Meter(totals, done, progress)
    todo = [index for index, is_done in enumerate(done) if not is_done]
    failures = []
    outcomes = executor.run(_collect_unit, [jobs[i] for i in todo], lambda i, now: meter.update(todo[i], now))
    with closing(outcomes):
        for outcome in outcomes:
            index = todo[outcome.index]
            if outcome.stops:
                raise StorageError(outcome.failure)
            if outcome.failure:
                failures.append((jobs[index].task_ids, outcome.failure))
                continue
            done[index] = True
            shards.write_json(out / MANIFEST, _manifest(header, jobs, done))
            meter.finish(index)
    return failures


@contextmanager
def _swept(out: Path) -> Iterator[None]:
    """Where the disk does not take the data, leave nothing half-written, and say how to go on."""
    try:
        yield
    except JobError as error:
        raise CollectionError(str(error)) from error
    except StorageError as error:
        _sweep(out)
        raise CollectionError(f"{error}; finished units are kept: make room, then collect again to go on") from error


def _sweep(out: Path) -> None:
    """Take away what was being written when its process was lost, and nothing that a living one writes."""
    for pattern in (f"{MANIFEST}.*.partial", "shards/*.partial"):
        for partial in out.glob(pattern):
            remove_abandoned(partial)


@attrs.frozen
class _Job:
    """All that one unit needs, in a form that another process can receive."""

    family_spec: FamilySpec
    source_spec: SourceSpec
    whole: Table
    part: slice
    shard: Path

    def __reduce__(self) -> tuple[Callable[[bytes], object], tuple[bytes]]:
        return _unpacked, (packed(attrs.astuple(self, recurse=False)),)

    @property
    def header(self) -> Table:
        """What is written into the shard: of the tasks, its own alone."""
        return {**self.whole, "tasks": self.whole["tasks"][self.part]}

    @property
    def task_ids(self) -> list[str]:
        return [task["task_id"] for task in self.header["tasks"]]


def _unpacked(content: bytes) -> _Job:
    return _Job(*pickle.loads(content))


def _collect_unit(job: _Job, progress: Callable[[int], None]) -> None:
    family = job.family_spec.build()
    source = job.source_spec.build()
    tasks = [family.task(task_id) for task_id in job.task_ids]
    histories = source.collect(family, tasks, seed=job.whole["seed"], progress=progress)
    shards.write_shard(job.shard, job.header, histories)


class _Meter:
    """Env steps done, over all units."""

    def __init__(
        self, totals: Sequence[int], done: Sequence[bool], progress: Callable[[int, int], None] | None
    ) -> None:
        self.totals, self.progress = totals, progress
        self.done = [total * is_done for total, is_done in zip(totals, done, strict=True)]

    def update(self, index: int, now: int) -> None:
        self.done[index] = now
        if self.progress is not None:
            self.progress(sum(self.done), sum(self.totals))

    def finish(self, index: int) -> None:
        self.update(index, self.totals[index])


def spec_dict(kind: str, spec: attrs.AttrsInstance) -> Table:
    """Return a spec as JSON has it, a dictionary whose `kind` is its registered name: tuples are lists there."""
    plain: Table = json.loads(json.dumps(attrs.asdict(spec)))
    return {"kind": kind, **plain}


def _header(
    family: TaskFamily, source: Source, parts: TaskSplit, tasks: Sequence[Task], split: Table, seed: int
) -> Table:
    """Return all that is known about a collection, as plain JSON."""
    return {
        "format": FORMAT,
        "env": spec_dict(family.name, family.spec),
        "spaces": spaces.all_plain(family.spaces),
        "horizon": family.horizon,
        "tasks": [{"task_id": task.task_id, "params": dict(task.params), "split": "train"} for task in tasks],
        "held_out_task_ids": [task.task_id for task in parts.held_out],
        "split": split,
        "source": spec_dict(source.name, source.spec),
        "seed": seed,
        "versions": versions(*VERSIONED),
    }


def _manifest(header: Fields, jobs: Sequence[_Job], done: Sequence[bool]) -> Table:
    units = [
        {"shard": f"{job.shard.parent.name}/{job.shard.name}", "task_ids": job.task_ids, "done": is_done}
        for job, is_done in zip(jobs, done, strict=True)
    ]
    return {**header, "units": units}


def _prepare(out: Path, header: Table, jobs: Sequence[_Job]) -> list[bool]:
    """Make the folder, or say which of its units are there already."""
    if (out / MANIFEST).exists():
        earlier = read_manifest(out)
        differing = [key for key in header if key != "versions" and earlier[key] != header[key]]
        if differing:
            key = differing[0]
            raise CollectionError(
                f"{out} holds another collection: its {key!r} is {_short(earlier[key])}, not {_short(header[key])}; "
                f"choose another folder or delete this one"
            )
        header["versions"] = earlier["versions"]
    _sweep(out)
    done = [_is_complete(job.shard, job.header) for job in jobs]
    shards.write_json(out / MANIFEST, _manifest(header, jobs, done))
    return done


def _is_complete(shard: Path, header: Fields) -> bool:
    if not shard.exists():
        return False
    try:
        header_there = shards.read_header(shard)
    except HistoryFileError:
        return False
    return all(header_there[key] == header[key] for key in HEADER_KEYS if key != "versions")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."


def _lost(out: Path, num_units: int, failures: Sequence[tuple[list[str], str]]) -> Iterator[str]:
    yield f"{out}: {len(failures)} of {num_units} units failed; the others are kept, collect again to do these"
    for task_ids, failure in failures:
        yield f"unit of {len(task_ids)} tasks, {task_ids[0]} to {task_ids[-1]}:\n{failure}"
