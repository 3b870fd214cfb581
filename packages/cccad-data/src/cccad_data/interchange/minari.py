"""Minari datasets (Farama's format for offline RL): an episode each, its task and history among its ``options``.

What we export carries our header in the dataset's metadata and comes back as it was. Any other Minari dataset becomes
one task with one history, its episodes in their order. Minari is the extra ``[minari]``.
"""

import itertools
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from cccad_data import spaces
from cccad_data.dataset import Histories
from cccad_data.errors import DataError, StorageError
from cccad_data.header import check_header
from cccad_data.history import TaskHistories
from cccad_data.interchange import Found, Wishes, box_around, fitting, foreign_header
from cccad_data.interchange.episodes import laid_end_to_end

SETTINGS = {"task_id": ""}
_HEADER = "cccad_history_header"
_ROOT = "MINARI_DATASETS_PATH"


def read(source: Path, wishes: Wishes) -> Found:
    """Return the histories of a Minari dataset: its folder, or its id in Minari's own place."""
    minari = _library()
    folder = source / "data" if (source / "data").is_dir() else source
    try:
        dataset = minari.MinariDataset(folder) if folder.is_dir() else minari.load_dataset(str(source))
    except (OSError, LookupError, ValueError) as error:
        raise DataError(f"{source}: no Minari dataset: {error}") from error
    text = dataset.storage.metadata.get(_HEADER)
    if text is not None:
        header = json.loads(text)
        check_header(header, source)
        return Found(header=header, tasks=_ours(dataset, header))
    world = {
        "env": {"kind": "minari", "name": dataset.id},
        "spaces": {"observation": _plain(dataset.observation_space), "action": _plain(dataset.action_space)},
    }
    task = _foreign(dataset, str(wishes.settings.get("task_id") or dataset.id), world["spaces"])
    horizon = int(np.diff(task.episode_ends, prepend=0).max())
    header = foreign_header("minari", source, {**world, "horizon": horizon})
    left = dataset.total_steps - task.num_env_steps
    notes = [f"{left:,} env steps of an unfinished last episode are left out"] * (left > 0)
    return Found(header=header, tasks=[task], notes=notes)


def _library() -> Any:
    try:
        return import_module("minari")
    except ImportError as error:
        raise DataError("this needs Minari; install cccad-data[minari]") from error


def _ours(dataset: Any, header: Mapping[str, Any]) -> Iterator[TaskHistories]:
    """Yield the tasks of an export of ours."""
    rows = zip(dataset.iterate_episodes(), dataset.storage.get_episode_metadata(dataset.episode_indices), strict=True)
    grouped = itertools.groupby(rows, key=lambda row: str(row[1]["options"]["task_id"]))
    for task, (task_id, episodes) in zip(header["tasks"], grouped, strict=True):
        if task["task_id"] != task_id:
            raise DataError(f"the episodes of task {task['task_id']!r} are not where they should be: {task_id!r} is")
        lives = [
            _life([episode for episode, _ in found], header["spaces"])
            for _, found in itertools.groupby(episodes, key=lambda row: int(row[1]["options"]["history"]))
        ]
        yield laid_end_to_end(task_id, task["params"], lives)


def _foreign(dataset: Any, task_id: str, named: Mapping[str, Any]) -> TaskHistories:
    episodes = list(dataset.iterate_episodes())
    for episode in episodes[:-1]:
        if not (episode.terminations[-1] or episode.truncations[-1]):
            raise DataError(f"episode {episode.id} of {dataset.id!r} neither terminates nor is truncated")
    return laid_end_to_end(task_id, {}, [_life(episodes, named)])


def _life(episodes: list[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    seen = [fitting(named["observation"], np.asarray(episode.observations)) for episode in episodes]
    life = {
        "observations": np.concatenate([rows[:-1] for rows in seen]),
        "next_observations": np.concatenate([rows[1:] for rows in seen]),
        "actions": fitting(named["action"], np.concatenate([episode.actions for episode in episodes])),
    }
    for name in ("rewards", "terminations", "truncations"):
        life[name] = np.concatenate([getattr(episode, name) for episode in episodes])
    if all("optimal_actions" in (episode.infos or {}) for episode in episodes):
        best = np.concatenate([episode.infos["optimal_actions"] for episode in episodes])
        life["optimal_actions"] = fitting(named["action"], best)
    return life


def write(histories: Histories, out: Path) -> None:
    """Write a Minari dataset whose id is the name of the folder *out*, a task at a time in memory."""
    minari = _library()
    if not re.fullmatch(r"[-_\w]+-v\d+", out.name):
        raise DataError(f"Minari wants a name such as 'darkroom-ppo-v0' for its dataset: {out.name!r}")
    before = os.environ.get(_ROOT)
    os.environ[_ROOT] = str(out.parent)
    try:
        _write(minari, histories, out.name)
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise StorageError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        del os.environ[_ROOT]
        os.environ.update({} if before is None else {_ROOT: before})


def _write(minari: Any, histories: Histories, name: str) -> None:
    space = import_module("minari.serialization").deserialize_space
    observation, action = (space(_serialized(histories.spaces[kind])) for kind in ("observation", "action"))
    buffers = ([*_episodes(minari.data_collector.EpisodeBuffer, task)] for task in histories)
    with warnings.catch_warnings(action="ignore"):  # it misses authors, a link and an environment of Gymnasium's
        dataset = minari.create_dataset_from_buffers(
            name,
            next(buffers),
            observation_space=observation,
            action_space=action,
            algorithm_name=histories.header["source"]["kind"],
            jpeg_encoding=False,
        )
    for buffer in buffers:
        dataset.update_dataset_from_buffer(buffer)
    dataset.storage.update_metadata({_HEADER: json.dumps(histories.header)})


def _episodes(make: Any, task: TaskHistories) -> Iterator[Any]:
    for index, life in enumerate(task):
        begin = 0
        for end, final in zip(life.episode_ends.tolist(), np.asarray(life.final_observations), strict=True):
            part = slice(begin, end)
            yield make(
                options={"task_id": task.task_id, "history": index},
                observations=np.concatenate([life.observations[part], final[None]]),
                actions=life.actions[part],
                rewards=life.rewards[part],
                terminations=life.terminations[part],
                truncations=life.truncations[part],
                infos=None if life.optimal_actions is None else {"optimal_actions": life.optimal_actions[part]},
            )
            begin = end


def _serialized(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return *space* as Minari writes spaces down."""
    if space["kind"] == "discrete":
        return {"type": "Discrete", "n": space["n"], "start": 0, "dtype": "int64"}
    dtype = str(spaces.dtype(space))
    if space["kind"] == "multi-discrete":
        return {
            "type": "MultiDiscrete",
            "nvec": list(space["sizes"]),
            "start": [0] * len(space["sizes"]),
            "dtype": dtype,
        }
    bounds = {
        name: np.broadcast_to(np.asarray(space[name], float), space["shape"]).tolist() for name in ("low", "high")
    }
    return {"type": "Box", "shape": list(space["shape"]), "dtype": dtype, **bounds}


def _plain(space: Any) -> dict[str, Any]:
    """Return a space of Minari's as a plain dictionary."""
    kind = type(space).__name__
    if kind == "Discrete" and int(space.start) == 0:
        return {"kind": "discrete", "n": int(space.n)}
    if kind == "MultiDiscrete":
        return {"kind": "multi-discrete", "sizes": np.ravel(space.nvec).tolist()}
    if kind == "Box":
        most = np.finfo(np.float32).max  # JSON has no infinity
        return box_around(*(np.clip(bound.ravel().astype(float), -most, most) for bound in (space.low, space.high)))
    raise DataError(f"the space {space} is none of discrete from 0, multi-discrete, box; it cannot be imported")
