"""Histories that are there already: whether they are of the spec's family, and which of them may be trained on."""

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
from attrs import asdict, evolve
from cccad_core.errors import SpecError
from cccad_core.specs import structure
from cccad_data import Histories, spaces
from cccad_data.family import TaskFamily
from cccad_data.histories.dataset import finished_shards, read_manifest

from cccad_train.run.environments import Environment


def open_existing(
    path: str, own: Environment, max_tasks: int | None, *, lazy: bool | None = None
) -> tuple[Histories, str]:
    """Return the histories at *path* of the first *max_tasks* training tasks, and what there is to say of them.

    Raises HistoryFileError when they are not there, unfinished or damaged, and SpecError when they are of another
    environment or of no training task.
    """
    existing = Histories.open(path, lazy=lazy)
    place, family = f"the histories in {path}", own.family
    if differs := _difference(existing, family):
        raise SpecError([("data.path", f"{place} {differs}")])
    train = {task.task_id for task in own.train}
    wanted = {task.task_id for task in own.train[:max_tasks]}
    tasks = tuple(task for task in existing if task.task_id in wanted)
    if not tasks:
        raise SpecError(
            [("data.path", f"{place} are of no training task of this split, but of {existing.task_ids[0]!r}")]
        )
    num_held_out = len(set(existing.task_ids) - train)
    note = f"{place} are of {len(tasks):,} of {len(wanted):,} training tasks"
    note += f"; those of {num_held_out:,} held-out tasks are left out" if num_held_out else ""
    listed = [task for task in existing.header["tasks"] if task["task_id"] in wanted]
    held_out = [task.task_id for task in family.tasks if task.task_id not in train]
    return evolve(
        existing, header={**existing.header, "tasks": listed, "held_out_task_ids": held_out}, tasks=tasks
    ), note


def _difference(existing: Histories, family: TaskFamily) -> str:
    """Return how the family of *existing* differs from *family*, as the end of a sentence; empty if it does not."""
    env = {name: value for name, value in existing.header["env"].items() if value is not None}
    if (kind := env.pop("kind")) != family.name:
        return f"are of the env {kind!r}, not {family.name!r}"
    theirs, ours = asdict(structure(env, type(family.spec), "the env of the histories")), asdict(family.spec)
    differing = [f"{name} = {theirs[name]!r}, not {ours[name]!r}" for name in ours if theirs[name] != ours[name]]
    if differing:
        return f"are of another env: {', '.join(differing)}"
    if not spaces.all_alike(existing.spaces, family.spaces):
        return f"have the spaces {existing.spaces}, not {family.spaces}"
    for task_id in existing.task_ids:
        try:
            family.task(task_id)
        except LookupError:
            return f"are of tasks that the env does not have, such as {task_id!r}"
    return ""


def content_of(histories: Histories) -> str:
    """Return a hash of all that *histories* hold, in whatever files and compression they lie; reads all of it."""
    sha = hashlib.sha256()
    for task in histories:
        for name, array in task.arrays().items():
            values = np.ascontiguousarray(array)
            sha.update(json.dumps([task.task_id, name, values.dtype.str, values.shape]).encode())
            sha.update(values.data)
    return sha.hexdigest()


def content_of_policy(place: Path) -> str:
    """Return a hash of the weights and the spec of a released policy; its model card may be edited."""
    sha = hashlib.sha256()
    for name in ("model.safetensors", "spec.toml"):
        sha.update((place / name).read_bytes())
    return sha.hexdigest()


def content(path: Path) -> list[str]:
    """Return hashes that stand for the histories at *path*, wherever they lie; reads all of their bytes."""
    shards = [path] if path.is_file() else finished_shards(path, read_manifest(path))
    return [_sha256(shard, shard.stat().st_size, shard.stat().st_mtime_ns) for shard in shards]


@cache
def _sha256(file: Path, _num_bytes: int, _modified_ns: int) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
