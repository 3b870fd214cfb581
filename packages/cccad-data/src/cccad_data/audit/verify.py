"""The audit of histories: every reward and observation is played again, and each fault is named with its place."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from attrs import evolve, frozen

from cccad_data import spaces
from cccad_data.collecting.rise import Rise
from cccad_data.errors import FamilyError, HistoryFileError
from cccad_data.families.registered import family_errors
from cccad_data.family import (
    HasOptimum,
    HasRandomReturn,
    KnowsDynamics,
    Replayable,
    Task,
    TaskFamily,
    has_random_rewards,
    has_random_transitions,
    optimal_returns,
    random_returns,
)
from cccad_data.histories import shards
from cccad_data.histories.dataset import MANIFEST, Histories, finished_shards, read_manifest
from cccad_data.histories.header import HEADER_KEYS
from cccad_data.histories.history import TaskHistories
from cccad_data.plain import Array, Fields, Table

MOST_PLACES = 10
"Places named per task and kind of fault; how many more there are is said with the last."
MOST_REPLAYED_ENV_STEPS = 5_000_000
"Of the histories that a run is given: beyond, one of each task is played again."
OUTLYING_FACTOR = 1e3
"A reward that is larger than so many returns is wrong."
_NOT_LEARNING = {"random", "import"}  # kinds of sources that need not get better
_SHORTEST_COPY_ENV_STEPS = 64  # shorter histories may be alike by chance


@frozen(kw_only=True)
class Fault:
    """One thing that is wrong, and where."""

    file: str
    message: str
    task_id: str = ""
    history: int | None = None
    env_step: int | None = None
    "Env step within the history."

    def __str__(self) -> str:
        place = [self.file, self.task_id]
        place.append("" if self.history is None else f"history {self.history}")
        place.append("" if self.env_step is None else f"env step {self.env_step:,}")
        return f"{', '.join(part for part in place if part)}: {self.message}"


def verify(path: Path | str, family: TaskFamily | None = None) -> list[Fault]:
    """Return everything that is wrong with a dataset folder or a shard; with *family*, rewards and dynamics as well.

    Raises HistoryFileError when the folder or the file cannot be used at all.
    """
    path = Path(path)
    if not path.is_dir():
        return _Audit(shards.read_header(path), family).shards([path])
    manifest = read_manifest(path)
    audit = _Audit(manifest, family)
    faults = audit.shards(finished_shards(path, manifest))
    listed = {task["task_id"] for task in manifest["tasks"]}
    for task_id in sorted(listed - audit.file_of.keys()):
        faults.append(Fault(file=str(path / MANIFEST), task_id=task_id, message="is listed, but no shard has it whole"))
    for task_id in sorted(audit.file_of.keys() - listed):
        faults.append(Fault(file=audit.file_of[task_id], task_id=task_id, message=f"is not listed in {MANIFEST}"))
    return faults


def unchecked(family: TaskFamily) -> list[str]:
    """Return what `verify` cannot check with *family*, a sentence each."""
    gaps = {
        "next_observations": ("where actions lead is not checked", isinstance(family, KnowsDynamics)),
        "replay": ("rewards and the ends of episodes are not checked", isinstance(family, Replayable)),
        "optimal_returns": ("whether learners improved is not checked", isinstance(family, HasOptimum)),
    }
    return [
        f"{what}: the task family {family.name!r} has no {name!r}"
        for name, (what, is_there) in gaps.items()
        if not is_there
    ]


def refuse_faulty(histories: Histories, family: TaskFamily, where: str) -> None:
    """Raise HistoryFileError at the first fault in what a run is to be trained on.

    Spaces, flags and sizes of rewards are checked throughout, and the actions are played again: all of them up to
    `MOST_REPLAYED_ENV_STEPS`, beyond that those of each task's first history.
    """
    is_small = histories.num_env_steps <= MOST_REPLAYED_ENV_STEPS
    for task in histories:
        arrays: Table = {name: np.asarray(array) for name, array in task.arrays().items()}
        held = evolve(task, **arrays)
        faults = [*_within_spaces(where, held, histories.spaces), *_episodes(where, held, histories.header["horizon"])]
        if not faults:
            with family_errors(family.name):
                faults += replayed(where, held if is_small else held.history(0), family)
        if faults:
            raise HistoryFileError(f"{faults[0]}; cccad-data verify names every fault")


def contradictions(task: TaskHistories, family: TaskFamily, horizon: int) -> list[Fault]:
    """Return what *family* says against the histories of one of its tasks: where actions lead, rewards and ends.

    Raises FamilyError when it cannot play them again.
    """
    with family_errors(family.name):
        return [*_episodes("", task, horizon), *replayed("", task, family)]


class _Audit:
    """What is known while shard after shard is looked at."""

    def __init__(self, header: Fields, family: TaskFamily | None) -> None:
        self.header, self.family = header, family
        self.held_out = set(header["held_out_task_ids"])
        parts = header["source"].get("parts", [{"source": header["source"]}])
        self.sources = {part["source"]["kind"] for part in parts}
        self.file_of: dict[str, str] = {}  # task id -> file
        self.copies: dict[bytes, str] = {}  # digest of a history -> where it is

    def shards(self, paths: list[Path]) -> list[Fault]:
        faults = [] if self.family is None else list(self._header_faults(str(paths[0]), self.family))
        for path in paths:
            try:
                with shards.open_shard(path) as file:
                    header = shards.header_of(file, path)
                    faults.extend(self._differences(header, path))
                    for index, task in enumerate(header["tasks"]):
                        try:
                            histories = shards.read_task(file, path, header, index)
                        except HistoryFileError as error:
                            message = str(error).removeprefix(f"{path}: ")
                            faults.append(Fault(file=str(path), task_id=task["task_id"], message=message))
                        else:
                            faults.extend(self._task_faults(str(path), histories))
            except HistoryFileError as error:
                faults.append(Fault(file=str(path), message=str(error).removeprefix(f"{path}: ")))
        return faults

    def _differences(self, header: Fields, path: Path) -> Iterator[Fault]:
        for key in HEADER_KEYS:
            if key != "tasks" and header[key] != self.header[key]:
                yield Fault(file=str(path), message=f"its {key!r} is not that of {MANIFEST}")

    def _header_faults(self, file: str, family: TaskFamily) -> Iterator[Fault]:
        """Hold the header against the installed family."""
        if not spaces.all_alike(self.header["spaces"], family.spaces):
            yield Fault(file=file, message="the spaces in the header are not those of the installed family")
            return  # nor are the tasks
        if self.header["horizon"] != family.horizon:
            yield Fault(file=file, message=f"the horizon in the header is not the family's {family.horizon}")
        try:
            with family_errors(self.header["env"]["kind"]):
                held_out = {task.task_id for task in family.split(**self.header["split"]).held_out}
        except FamilyError as error:
            yield Fault(file=file, message=f"the split in the header cannot be drawn: {error}")
            return
        if held_out != self.held_out:
            differing = min(held_out ^ self.held_out)
            yield Fault(file=file, message=f"the held-out ids are not what the split gives: {differing!r} for one")

    def _task_faults(self, file: str, task: TaskHistories) -> Iterator[Fault]:
        task_id = task.task_id
        if task_id in self.held_out:
            yield Fault(file=file, task_id=task_id, message="is a held-out task, and must not be in the data")
        if task_id in self.file_of:
            yield Fault(file=file, task_id=task_id, message=f"is there twice, in {self.file_of[task_id]} as well")
        self.file_of[task_id] = file
        yield from self._copied(file, task)
        faults = list(_within_spaces(file, task, self.header["spaces"]))
        is_inside = not faults
        faults += _episodes(file, task, self.header["horizon"])
        if self.family is not None and is_inside:
            try:
                with family_errors(self.header["env"]["kind"]):
                    faults += replayed(file, task, self.family)
                    if not faults and not _NOT_LEARNING & self.sources:
                        faults += self._improved(file, task, self.family)
            except FamilyError as error:
                faults.append(Fault(file=file, task_id=task_id, message=f"cannot be played again: {error}"))
        yield from faults

    def _copied(self, file: str, task: TaskHistories) -> Iterator[Fault]:
        for index, history in enumerate(task):
            if history.num_env_steps < _SHORTEST_COPY_ENV_STEPS:
                continue
            digest = hashlib.sha256(history.observations.tobytes() + history.actions.tobytes()).digest()
            if digest in self.copies:
                yield Fault(
                    file=file, task_id=task.task_id, history=index, message=f"is a copy of {self.copies[digest]}"
                )
            self.copies.setdefault(digest, f"{task.task_id}, history {index}")

    def _improved(self, file: str, task: TaskHistories, family: TaskFamily) -> Iterator[Fault]:
        """Hold the last quarter of each history's episodes against the first, beyond two standard errors."""
        if not isinstance(family, HasOptimum):
            return  # who is at the optimum already cannot improve
        rise = Rise.of([task])
        if rise is None:
            return
        best = float(optimal_returns(family, [family.task(task.task_id)])[0])
        if rise.most <= 0 and rise.early < best - 1e-6:
            message = f"does not improve: {rise}; {best:.3f} is best"
            yield Fault(file=file, task_id=task.task_id, message=message)


def replayed(file: str, task: TaskHistories, family: TaskFamily) -> Iterator[Fault]:
    """Play the actions again, as far as the family can tell what they lead to."""
    try:
        original = family.task(task.task_id)
    except LookupError as error:
        yield Fault(file=file, task_id=task.task_id, message=f"the installed family does not know it: {error}")
        return
    if dict(original.params) != dict(task.params):
        yield Fault(file=file, task_id=task.task_id, message=f"has {task.params}, but is {original.params}")
    if isinstance(family, HasOptimum) and isinstance(family, HasRandomReturn):
        declared = [optimal_returns(family, [original]), random_returns(family, [original])]
        yield from _outlying(file, task, float(np.abs(declared).max()))
    if isinstance(family, KnowsDynamics):
        yield from _moved(file, task, original, family, is_random=has_random_transitions(family))
    if isinstance(family, Replayable):
        yield from _paid(file, task, original, family, is_random=has_random_rewards(family))


def _moved(
    file: str, task: TaskHistories, original: Task, dynamics: KnowsDynamics, *, is_random: bool
) -> Iterator[Fault]:
    """Hold the observations against those that the actions lead to."""
    parts = []
    for history in task:
        # Where chance decides what follows, the family is shown what did, and says which can.
        shown = {"recorded": history.next_observations()} if is_random else {}
        parts.append(dynamics.next_observations(original, history.observations, history.actions, **shown))
    led_to, following = np.concatenate(parts), task.next_observations()
    is_wrong = _differs(following, led_to).any(axis=1)
    ends = np.zeros(task.num_env_steps, bool)
    ends[task.episode_ends - 1] = True
    for kind, rows in (
        ("next observation", is_wrong & ~ends),
        ("final observation of an episode", is_wrong & ends),
    ):
        yield from _at(file, task, rows, lambda i, kind=kind: (
            f"the {kind} is {following[i].tolist()}, but the action leads to {led_to[i].tolist()}"
        ))  # fmt: skip


def _paid(file: str, task: TaskHistories, original: Task, rules: Replayable, *, is_random: bool) -> Iterator[Fault]:
    """Hold rewards and flags against those that the task gives."""
    parts = []
    for history in task:
        what = (history.observations, history.actions, history.next_observations(), history.episode_ends)
        parts.append(rules.replay(original, *what, **({"rewards": history.rewards} if is_random else {})))
    names = ("rewards", "terminations", "truncations")
    for name, column in zip(names, zip(*parts, strict=True), strict=True):
        recorded, right = getattr(task, name), np.concatenate(column)
        yield from _at(file, task, _differs(recorded, right), lambda i, name=name, recorded=recorded, right=right: (
            f"the {name.removesuffix('s')} is {recorded[i]}, but the task gives {right[i]}"
        ))  # fmt: skip


def _within_spaces(file: str, task: TaskHistories, named: Fields) -> Iterator[Fault]:
    """Hold values and dtypes against the spaces."""
    ends = np.zeros(task.num_episodes, np.int64) + task.episode_ends - 1
    for name, array in task.arrays().items():
        if name in ("observations", "final_observations", "actions", "optimal_actions"):
            space = named["observation" if name.endswith("observations") else "action"]
            want = spaces.dtype(space)
            rows = np.zeros(task.num_env_steps, bool)
            outside = spaces.outside(space, array)
            rows[ends[outside] if name == "final_observations" else outside] = True
            yield from _at(
                file, task, rows, lambda _, name=name, space=space: f"{name!r} is outside its space {dict(space)}"
            )
        else:
            want = {"rewards": np.dtype(np.float32), "terminations": np.dtype(bool), "truncations": np.dtype(bool)}.get(
                name, np.dtype(np.int64)
            )
        if array.dtype != want:
            yield Fault(file=file, task_id=task.task_id, message=f"{name!r} has dtype {array.dtype}, not {want}")


def _episodes(file: str, task: TaskHistories, horizon: int) -> Iterator[Fault]:
    """Hold the ends of episodes against the flags and the horizon."""
    ends = np.zeros(task.num_env_steps, bool)
    ends[task.episode_ends - 1] = True
    flagged = task.terminations | task.truncations
    yield from _at(file, task, flagged & ~ends, lambda _: "an episode is flagged as over, but goes on")
    yield from _at(file, task, ends & ~flagged, lambda _: "an episode ends without being terminated or truncated")
    lengths = np.diff(task.episode_ends, prepend=0)
    too_long = np.zeros(task.num_env_steps, bool)
    too_long[task.episode_ends[lengths > horizon] - 1] = True
    yield from _at(file, task, too_long, lambda _: f"an episode is longer than the horizon of {horizon} env steps")


def _outlying(file: str, task: TaskHistories, scale: float) -> Iterator[Fault]:
    """Hold the sizes of rewards against the returns that can be had, *scale*."""
    most = OUTLYING_FACTOR * max(1.0, scale)
    rows = ~(np.abs(task.rewards) <= most)
    yield from _at(file, task, rows, lambda i: (
        f"the reward is {task.rewards[i]}, beyond all measure of a task whose best and random returns are "
        f"{scale:.6g} at most"
    ))  # fmt: skip


def _differs(recorded: Array, right: Array) -> Array:
    """Say where *recorded* is not *right*; what is computed in floats may differ in its last digits."""
    if right.dtype.kind == "f" or recorded.dtype.kind == "f":
        return ~np.isclose(recorded, right, rtol=1e-5, atol=1e-6)
    return np.asarray(recorded != right)


def _at(file: str, task: TaskHistories, rows: Array, say: Callable[..., str]) -> Iterator[Fault]:
    """Yield a fault for each marked env step, `t`, the first few of them."""
    marked = np.flatnonzero(rows)
    births = np.concatenate(([0], task.history_ends[:-1]))
    for count, i in enumerate(marked[:MOST_PLACES], start=1):
        history = int(np.searchsorted(task.history_ends, i, side="right"))
        more = f" (and {len(marked) - count:,} more in this task)" if count == MOST_PLACES < len(marked) else ""
        env_step = int(i - births[history])
        message = say(int(i)) + more
        yield Fault(file=file, task_id=task.task_id, history=history, env_step=env_step, message=message)
