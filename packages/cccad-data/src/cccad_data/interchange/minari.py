"""Minari datasets (Farama's format for offline RL): an episode each, its task and history among its `options`.

What we export carries our header in the dataset's metadata and comes back as it was. Any other Minari dataset becomes
one task with one history, its episodes in their order, unless the episodes are ours. Minari is the extra `[minari]`.
"""

import itertools
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cccad_data.errors import DataError, StorageError
from cccad_data.gym_spaces import Adapted, adapt, restored
from cccad_data.histories.dataset import Histories
from cccad_data.histories.history import TaskHistories
from cccad_data.histories.shards import json_bytes, open_shard
from cccad_data.interchange import Found, Wishes, lives, our_header, reading
from cccad_data.interchange.episodes import laid_end_to_end
from cccad_data.interchange.lives import Life, gathered, task_of
from cccad_data.plain import Fields, Table

SETTINGS = lives.SETTINGS
TAKES_ENV = TAKES_MANY = True
_ENDS = ("", "episodes", "flags")
"For `ends`: every episode of the file is one, or flags within them end some; without, a contradiction is refused."
_HEADER = "cccad_history_header"
_ROOT = "MINARI_DATASETS_PATH"
_PLACE = "cccad_place"
_FLAGS = ("terminations", "truncations")
Episode: TypeAlias = Any
"An episode of Minari's, which ships no types."


def read(sources: Sequence[Path], wishes: Wishes) -> Found:
    """Return the histories of Minari datasets: their folders, or their ids in Minari's own place."""
    if wishes.settings["ends"] not in _ENDS:
        raise DataError(f"the setting 'ends' of 'minari' is 'episodes' or 'flags': {wishes.settings['ends']!r}")
    datasets = [_opened(source) for source in sources]
    headers = [dataset.storage.metadata.get(_HEADER) for dataset in datasets]
    is_told = wishes.env is not None or any(wishes.settings[name] != SETTINGS[name] for name in SETTINGS)
    if len(sources) == 1 and headers[0] is not None and not is_told:
        header = our_header(headers[0], sources[0])
        return Found(header=header, tasks=_ours(sources[0], datasets[0], header))
    claims: dict[str, Adapted] = {}
    all_lives: list[Life] = []
    notes: list[str] = []
    for index, (source, dataset) in enumerate(zip(sources, datasets, strict=True)):
        for side in ("observation", "action"):
            adapted = adapt(getattr(dataset, f"{side}_space"), f"{source}: {side}s")
            if claims.setdefault(side, adapted).theirs != adapted.theirs:
                others = f"{claims[side].theirs!s:.100} in {sources[0]}"
                raise DataError(f"{source}: the {side} space is {adapted.theirs!s:.100}, but {others}")
        with reading(source, "its episodes cannot be read"):
            all_lives += _lives(source, dataset, task_of(index, dataset.id, wishes, len(sources)), wishes, notes)
    return gathered("minari", sources, all_lives, wishes, notes, claims)


def _opened(source: Path) -> Any:
    """Return a dataset that has all that is needed of its folder, looked at before Minari reads it."""
    try:
        minari = import_module("minari")
    except ImportError as error:
        raise DataError("this needs Minari; install cccad-data[minari]") from error
    folder = source / "data" if (source / "data").is_dir() else source
    with reading(source, "no Minari dataset"):
        if not folder.is_dir():
            folder = Path(minari.load_dataset(str(source)).storage.data_path)
        metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        for name in ("observation_space", "action_space"):  # without, Minari makes the environment, whatever that runs
            if not isinstance(metadata.get(name), str):
                raise DataError(f"{source}: the metadata of this Minari dataset lack {name!r}")
        if (main := folder / "main_data.hdf5").is_file() and metadata.get("data_format") == "hdf5":
            _check_inside(source, main)
        dataset = minari.MinariDataset(folder)
    if dataset.total_episodes < 1:
        raise DataError(f"{source}: this Minari dataset has no episodes")
    return dataset


def _check_inside(source: Path, main: Path) -> None:
    if main.stat().st_size == 0:  # as Minari leaves it where no episode was recorded
        raise DataError(f"{source}: this Minari dataset has no episodes")
    open_shard(main).close()  # which looks at what it declares and where that lies


def _ours(source: Path, dataset: Any, header: Fields) -> Iterator[TaskHistories]:
    """Yield the tasks of an export of ours."""
    sides = restored(header)
    rows = zip(dataset.iterate_episodes(), dataset.storage.get_episode_metadata(dataset.episode_indices), strict=True)
    placed = ((episode, _place(episode, metadata)) for episode, metadata in rows)
    grouped = itertools.groupby(placed, key=lambda row: str(row[1]["task_id"]))
    for task in header["tasks"]:
        with reading(source, "its episodes are not those that our export wrote"):
            task_id, episodes = next(grouped)
            if task["task_id"] != task_id:
                raise DataError(f"{source}: the episodes of task {task['task_id']!r} are not where they should be")
            parts = []
            for _, history in itertools.groupby(episodes, key=lambda row: int(row[1]["history"])):
                life = _joined(source, [episode for episode, _ in history])
                arrays = dict(life.arrays)
                for name in set(arrays) - {"rewards", *_FLAGS}:
                    side = sides["action" if "actions" in name else "observation"]
                    arrays[name] = side.read(arrays[name], str(source))
                if sides["action"].ours["kind"] == "discrete":
                    arrays |= {name: arrays[name][:, 0] for name in ("actions", "optimal_actions") if name in arrays}
                parts.append(arrays)
            laid = laid_end_to_end(task_id, task["params"], parts)
        yield laid
    if next(grouped, None) is not None:
        raise DataError(f"{source}: has episodes of tasks that the header of our export does not list")


def _lives(source: Path, dataset: Any, task_id: str, wishes: Wishes, notes: list[str]) -> list[Life]:
    """Return the lives of a dataset of others: one of all episodes, unless the episodes say more."""
    episodes = list(dataset.iterate_episodes())
    steps, declared = sum(len(episode.rewards) for episode in episodes), int(dataset.total_steps)
    if steps != declared:
        raise DataError(f"{source}: its metadata count {declared:,} env steps, its episodes have {steps:,}")
    ends = wishes.settings["ends"]
    episodes = [_sound(source, episode, ends, is_last=episode is episodes[-1]) for episode in episodes]
    metadata = dataset.storage.get_episode_metadata(dataset.episode_indices)
    places = [_place(episode, facts) for episode, facts in zip(episodes, metadata, strict=True)]
    if wishes.settings["task_id"] or not any(places):
        parts = dataset.storage.metadata.get("combined_datasets") or []
        if len(parts) > 1 and not wishes.settings["task_id"]:
            raise DataError(
                f"{source}: Minari combined {', '.join(map(str, parts))}, and nothing says where a history ends; "
                "import them one by one, or make all of it one history by the setting 'task_id'"
            )
        return [_joined(source, episodes, task_id)]
    notes.append(f"{source.name}: tasks and histories are those that the episodes name, as our export wrote them")
    histories: list[tuple[str, list[Episode]]] = []
    last: tuple[str, int, int] = ("", -1, -1)
    for episode, place in zip(episodes, places, strict=True):
        now = (str(place["task_id"]), int(place["history"]), int(place.get("episode", last[2] + 1)))
        if now[:2] != last[:2] or now[2] <= last[2]:
            histories.append((now[0], []))
        histories[-1][1].append(episode)
        last = now
    return [_joined(source, whole, name) for name, whole in histories]


def _place(episode: Episode, metadata: Fields) -> Table:
    """Return task, history and place in it as our export wrote them: among the infos, for Minari drops the options."""
    infos = episode.infos or {}
    if _PLACE in infos:
        return dict(json.loads(np.asarray(infos[_PLACE]).astype(np.uint8).tobytes()))
    options = metadata.get("options")
    return dict(options) if isinstance(options, Mapping) and {"task_id", "history"} <= set(options) else {}


def _sound(source: Path, episode: Episode, ends: str, *, is_last: bool) -> Episode:
    """Return an episode with its flags as *ends* says; refuse one whose arrays or flags contradict one another."""
    where, length = f"{source}: episode {episode.id}", len(episode.rewards)
    sizes = {name: len(getattr(episode, name)) for name in ("actions", *_FLAGS)}
    for name, size in sizes.items():
        if size != length:
            raise DataError(f"{where} has {size} {name} for {length} rewards")
    if len(episode.observations) != length + 1:
        count = len(episode.observations)
        raise DataError(f"{where} has {count} observations for {length} actions; {length + 1} are due")
    over = np.asarray(episode.terminations, bool) | np.asarray(episode.truncations, bool)
    if over[:-1].any() and not ends:
        raise DataError(
            f"{where} is flagged as over after {over.argmax() + 1} of its {length} env steps; 'ends' says whether "
            "'episodes' or 'flags' count"
        )
    if ends == "episodes":
        at_end = np.arange(length) == length - 1
        terminations = at_end & np.asarray(episode.terminations, bool)
        return replace(episode, terminations=terminations, truncations=at_end & ~terminations)
    if not over[-1] and not is_last:
        raise DataError(f"{where} neither terminates nor is truncated; ends=episodes counts it as cut off")
    return episode


def _joined(source: Path, episodes: Sequence[Episode], task_id: str = "") -> Life:
    """Return episodes as one life."""
    shown = [np.asarray(episode.observations) for episode in episodes]
    arrays = {
        "observations": np.concatenate([rows[:-1] for rows in shown]),
        "next_observations": np.concatenate([rows[1:] for rows in shown]),
    }
    for name in ("actions", "rewards", *_FLAGS):
        arrays[name] = np.concatenate([np.asarray(getattr(episode, name)) for episode in episodes])
    if all("optimal_actions" in (episode.infos or {}) for episode in episodes):
        arrays["optimal_actions"] = np.concatenate([episode.infos["optimal_actions"] for episode in episodes])
    ends = np.cumsum([len(episode.rewards) for episode in episodes])

    def place(row: int) -> str:
        index = int(np.searchsorted(ends, row, side="right"))
        return f"episode {episodes[index].id}, env step {row - (ends[index - 1] if index else 0):,}"

    return Life(source=source, task_id=task_id, arrays=arrays, place=place)


def write(histories: Histories, out: Path) -> None:
    """Write a Minari dataset whose id is the name of the folder *out*, whole or not, a task at a time in memory."""
    if not re.fullmatch(r"[-_\w]+-v\d+", out.name):
        raise DataError(f"Minari wants a name such as 'darkroom-ppo-v0' for its dataset: {out.name!r}")
    try:
        minari = import_module("minari")
    except ImportError as error:
        raise DataError("this needs Minari; install cccad-data[minari]") from error
    before, root = os.environ.get(_ROOT), None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        root = Path(tempfile.mkdtemp(prefix=f"{out.name}.", suffix=".partial", dir=out.parent.absolute()))
        os.environ[_ROOT] = str(root)
        _write(minari, histories, out)
        os.replace(root / out.name, out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        os.environ.pop(_ROOT, None)
        os.environ.update({} if before is None else {_ROOT: before})
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)


def _write(minari: Any, histories: Histories, out: Path) -> None:
    sides = restored(histories.header)
    buffers = ([*_episodes(minari.data_collector.EpisodeBuffer, task, sides)] for task in histories)
    with warnings.catch_warnings(action="ignore"):  # it misses authors, a link and an environment of Gymnasium's
        dataset = minari.create_dataset_from_buffers(
            out.name,
            next(buffers),
            observation_space=sides["observation"].theirs,
            action_space=sides["action"].theirs,
            algorithm_name=histories.header["source"]["kind"],
            jpeg_encoding=False,
        )
    for buffer in buffers:
        dataset.update_dataset_from_buffer(buffer)
    dataset.storage.update_metadata({_HEADER: json_bytes(histories.header, out).decode()})


def _episodes(make: Any, task: TaskHistories, sides: Mapping[str, Adapted]) -> Iterator[Episode]:
    for index, life in enumerate(task):
        begin = 0
        for place, (end, final) in enumerate(
            zip(life.episode_ends.tolist(), np.asarray(life.final_observations), strict=True)
        ):
            part = slice(begin, end)
            best = life.optimal_actions
            names = {"task_id": task.task_id, "history": index, "episode": place}
            infos = {_PLACE: np.frombuffer(json.dumps(names).encode(), np.uint8)}
            if best is not None:
                infos["optimal_actions"] = sides["action"].write(np.asarray(best[part]))
            yield make(
                options=names,
                observations=sides["observation"].write(np.concatenate([life.observations[part], final[None]])),
                actions=sides["action"].write(np.asarray(life.actions[part])),
                rewards=life.rewards[part],
                terminations=life.terminations[part],
                truncations=life.truncations[part],
                infos=infos,
            )
            begin = end
