"""Lives of foreign files become the tasks of one family, with its spaces and its horizon, as far as they are known.

What the file or a task family does not say is taken from the data, or from the settings, and said in a note.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import frozen

from cccad_data import spaces
from cccad_data.audit.verify import contradictions
from cccad_data.collecting.collection import spec_dict
from cccad_data.errors import DataError
from cccad_data.families.registered import the_family
from cccad_data.family import TaskFamily
from cccad_data.gym_spaces import Adapted
from cccad_data.histories.history import TaskHistories
from cccad_data.interchange import Found, Wishes, foreign_header, reading
from cccad_data.interchange.episodes import laid_end_to_end
from cccad_data.narrow import Border, Where, checked_cast, narrow
from cccad_data.plain import Array, Fields, Parameter, Table

SETTINGS: Table = {
    "task_id": "",
    "task_ids": [],
    "name": "",
    "observation": {},
    "action": {},
    "n": 0,
    "start": 0,
    "clip": False,
    "horizon": 0,
    "ends": "",
    "check": True,
}
"""What every reader of lives can be told; empty, 0 and false leave it to the file or the data.

`task_id` is the task of all lives, `task_ids` those of the sources, one each. `name` is that of the family. `n`
discrete actions count from `start`. `clip` puts what lies outside a box on its bound. No episode is longer than
`horizon`.
`ends`: what ends an episode, by the words of the format. `check`: hold actions, rewards and ends against the family.
"""
_SPACES = ("name", "observation", "action", "n")
_SIDES = {"observations": "observation", "next_observations": "observation"}


@frozen(kw_only=True)
class Life:
    """One learner's life, `t` first: `observations actions rewards terminations truncations`, maybe more.

    Observations and actions are as the file has them. *place* says where an env step is in the file.
    """

    source: Path
    task_id: str
    arrays: Mapping[str, Array]
    place: Callable[[int], str] | None = None

    def where(self, name: str) -> Where:
        """Return the place of an array, for `narrow`."""
        if self.place is None:
            return f"{self.source}: {name!r}"
        place = self.place
        return lambda row: f"{self.source}: {name!r} of {place(row)}"


def task_of(index: int, default: str, wishes: Wishes, count: int) -> str:
    """Return the task of source *index* of *count*, by the settings or the *default*."""
    listed = wishes.settings["task_ids"]
    if listed and len(listed) != count:
        raise DataError(f"the setting 'task_ids' must name the task of each source: it has {len(listed)} for {count}")
    return str(listed[index] if listed else wishes.settings["task_id"] or default)


def gathered(
    form: str,
    sources: Sequence[Path],
    lives: Sequence[Life],
    wishes: Wishes,
    notes: list[str],
    claims: Mapping[str, Adapted] | None = None,
    **facts: object,
) -> Found:
    """Return the tasks of *lives* in one family; *claims* are the spaces that the file says it has.

    Raises DataError when values do not fit the spaces, tasks or episodes not the family, or a life is there twice.
    """
    named, settings = claims or {}, wishes.settings
    family = None if wishes.env is None else the_family(wishes.env)
    void = [name for name in _SPACES if settings[name] and (family is not None or (name == "n" and settings["action"]))]
    if void:
        whose = f"the family {family.name!r}" if family is not None else "the setting 'action'"
        raise DataError(f"{whose} says what {', '.join(map(repr, void))} would say; leave it out")
    _check_twins(lives)
    sides = {side: _Side(side, lives, settings, family, named.get(side)) for side in ("observation", "action")}
    assumed = [side.note for side in sides.values() if side.note]
    read = _all_converted(lives, sides, is_family=family is not None)
    for side in sides.values():
        side.border.precision.check()
        notes += side.notes()
    grouped: dict[str, list[Mapping[str, Array]]] = {}
    for life, arrays in zip(lives, read, strict=True):
        grouped.setdefault(life.task_id, []).append(arrays)
    params, held_out = _family_tasks(family, [*grouped], wishes, sources, notes)
    with reading(sources[0] if len(sources) == 1 else Path(_name(settings, sources)), "its histories"):
        tasks = [laid_end_to_end(name, params.get(name, {}), grouped[name]) for name in grouped if name not in held_out]
    horizon = _horizon(tasks, settings, family, sources, assumed)
    if family is not None and settings["check"]:
        _hold_against(family, tasks, [life for life in lives if life.task_id not in held_out], horizon)
    notes += [f"taken from the data: {', '.join(assumed)}; the settings of these names say otherwise"] * bool(assumed)
    kept = sum(len(arrays["rewards"]) for name in grouped if name not in held_out for arrays in grouped[name])
    left = kept - sum(task.num_env_steps for task in tasks)
    notes += [f"{left:,} env steps at the end, of unfinished episodes, are left out"] * (left > 0)
    origins = {name: side.origin for name, side in sides.items() if side.origin}
    environment = {
        "env": spec_dict(family.name, family.spec) if family else {"kind": form, "name": _name(settings, sources)},
        "spaces": {name: spaces.plain(side.border.space) for name, side in sides.items()},
        "horizon": horizon,
        **({"held_out_task_ids": sorted(held_out), "split": dict(wishes.split)} if family else {}),
    }
    header = foreign_header(form, sources, environment, **facts, **({"origin": origins} if origins else {}))
    return Found(header=header, tasks=tasks, notes=notes)


def _name(settings: Fields, sources: Sequence[Path]) -> str:
    return str(settings["name"] or ", ".join(source.stem for source in sources))


def _check_twins(lives: Sequence[Life]) -> None:
    by_content: dict[bytes, Life] = {}
    for life in lives:
        digest = hashlib.sha256(repr(life.task_id).encode())
        for name in ("observations", "actions", "rewards"):
            digest.update(np.ascontiguousarray(life.arrays[name]).tobytes())
        twin = by_content.setdefault(digest.digest(), life)
        if twin.source != life.source:
            raise DataError(f"{life.source} holds the very history of {life.task_id!r} that {twin.source} holds")


class _Side:
    """Observations or actions: their space, how the file's numbers become elements of it, and what was assumed."""

    def __init__(
        self,
        name: str,
        lives: Sequence[Life],
        settings: Fields,
        family: TaskFamily | None,
        claim: Adapted | None,
    ) -> None:
        self.name, self.claim, self.note = name, claim, ""
        self.origin: Fields = {}
        self._clip, self._num_clipped, self._furthest = settings["clip"], 0, 0.0
        self._start = settings["start"] if name == "action" else 0
        if settings[name]:
            spaces.check(settings[name], f"the setting {name!r}")
        if family is not None:
            space = family.spaces[name]
        elif settings[name]:
            space = settings[name]
        elif name == "action" and settings["n"]:
            space = {"kind": "discrete", "n": settings["n"]}
        elif claim is not None:
            space, self.origin = claim.ours, claim.origin
        else:
            space = self._around(lives)
        self.border = Border(space)

    def _around(self, lives: Sequence[Life]) -> Table:
        """Return the space that the data themselves make: discrete for whole numbers of one column, else a box."""
        arrays = [(life, name, life.arrays[name]) for life in lives for name in self._names if name in life.arrays]
        for life, name, array in arrays:
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"{life.source}: {name!r} holds numbers that are not finite")
            if array.shape[1:] != arrays[0][2].shape[1:]:
                shapes = f"{list(array.shape[1:])}, and elsewhere {list(arrays[0][2].shape[1:])}"
                raise DataError(f"{life.source}: an element of {name!r} has the shape {shapes}")
        low = np.min([array.min(axis=0) for _, _, array in arrays], axis=0)
        high = np.max([array.max(axis=0) for _, _, array in arrays], axis=0)
        if self.name == "action" and all(a.dtype.kind in "iu" and a[0].size == 1 for _, _, a in arrays):
            n = int(high.max()) + 1 - self._start
            if low.min() < self._start:
                raise DataError(f"{lives[0].source}: 'actions' begin at {low.min()}, not at {self._start}; set 'start'")
            unused = f" ({self._start} never occurs: set 'start'?)" if low.min() > self._start else ""
            self.note = f"'n' = {n} discrete actions{unused}"
            return {"kind": "discrete", "n": n}
        is_whole = self.name == "action" and all((array == np.floor(array)).all() for _, _, array in arrays)
        self.note = f"the box {self.name!r} of shape {list(low.shape)}"
        self.note += " (all of them whole: 'n' would make them discrete)" if is_whole and low.size == 1 else ""
        ends = ((low, -np.inf), (high, np.inf))
        rounded = [spaces.outward(np.asarray(end, np.float64), to).tolist() for end, to in ends]
        return {"kind": "box", "shape": list(low.shape), "low": rounded[0], "high": rounded[1]}

    @property
    def _names(self) -> tuple[str, ...]:
        return ("actions", "optimal_actions") if self.name == "action" else ("observations", "next_observations")

    def read(self, values: Array, where: Where) -> Array:
        """Return *values*, as the file has them, as elements of the space."""
        if self.claim is not None:
            values = self.claim.read(values, where if isinstance(where, str) else where(0))
        if self._start:
            values = np.asarray(values, np.int64 if values.dtype.kind in "iu" else np.float64) - self._start
        if self._clip and self.border.space["kind"] == "box" and values.size:
            rows = values.reshape(len(values), -1)
            inside = np.clip(rows, *spaces.bounds(self.border.space))
            self._num_clipped += int((inside != rows).sum())
            self._furthest = max(self._furthest, float(np.abs(inside - rows).max(initial=0)))
            values = inside
        if self.border.space["kind"] == "box":
            checked_cast(values, self.border.dtype, where)  # what float32 cannot hold is not outside the box
        try:
            kept = self.border(values, where)
        except DataError as error:
            is_outside = self.border.space["kind"] == "box" and "not in the space" in str(error)
            raise DataError(f"{error}{'; the setting clip=true puts it on the bound' * is_outside}") from error
        return kept if self.name == "action" else kept.reshape(len(kept), -1)

    def notes(self) -> list[str]:
        """Say what was changed."""
        first = self.claim.start.tolist() if self.claim is not None and self.claim.is_shifted else self._start
        notes = [f"{self.name}s count from 0 here, and from {first} in the file"] if first else []
        if self._num_clipped:
            what = f"{self._num_clipped:,} numbers of {self.name}s, up to {self._furthest:.3g} outside"
            notes.append(f"{what}, are put on the bounds of their box")
        return notes


def _all_converted(lives: Sequence[Life], sides: Mapping[str, _Side], *, is_family: bool) -> list[dict[str, Array]]:
    """Return the arrays of all lives as elements of their spaces; of a family's, all that are not are named at once."""
    read, faults = [], list[str]()
    for life in lives:
        try:
            read.append(_converted(life, sides))
        except DataError as error:
            if not is_family:
                raise
            faults.append(str(error))
    _refuse(faults)
    return read


def _hold_against(family: TaskFamily, tasks: Sequence[TaskHistories], lives: Sequence[Life], horizon: int) -> None:
    """Raise DataError where *family* would have moved, paid or ended otherwise, with every place by file and row."""
    faults = []
    for task in tasks:
        theirs = [life for life in lives if life.task_id == task.task_id and _has_whole_episode(life)]
        for fault in contradictions(task, family, horizon):
            life = None if fault.history is None else theirs[fault.history]
            if life is None or fault.env_step is None:
                faults.append(f"{task.task_id}: {fault.message}")
            elif "next_observations" in life.arrays or not _is_over(life)[fault.env_step]:
                place = f"env step {fault.env_step:,}" if life.place is None else life.place(fault.env_step)
                faults.append(f"{life.source}: {place}, task {task.task_id!r}: {fault.message}")
    _refuse(faults, "; what chance or another version decided is imported with the setting check=false")


def _is_over(life: Life) -> Array:
    return np.asarray(life.arrays["terminations"] | life.arrays["truncations"])


def _has_whole_episode(life: Life) -> bool:
    return bool(_is_over(life).any())


def _refuse(faults: Sequence[str], advice: str = "") -> None:
    """Raise DataError with all *faults*, if there are any: one is a sentence, several are a list."""
    if len(faults) > 1:
        raise DataError(f"{len(faults)} contradictions to the task family{advice}:\n" + "\n".join(faults))
    if faults:
        raise DataError(f"{faults[0]}{advice}")


def _converted(life: Life, sides: Mapping[str, _Side]) -> dict[str, Array]:
    arrays = dict(life.arrays)
    for name, values in life.arrays.items():
        if name == "rewards":
            arrays[name] = narrow(values, np.float32, life.where(name))
        elif name not in {"terminations", "truncations"}:
            arrays[name] = sides[_SIDES.get(name, "action")].read(values, life.where(name))
    return arrays


def _family_tasks(
    family: TaskFamily | None, names: Sequence[str], wishes: Wishes, sources: Sequence[Path], notes: list[str]
) -> tuple[dict[str, Mapping[str, Parameter]], set[str]]:
    """Return the params of the tasks that are *family*'s, and the ids that its split holds out."""
    if family is None:
        return {}, set()
    params, strange = {}, []
    for name in names:
        try:
            params[name] = family.task(name).params
        except LookupError:
            strange.append(name)
    if strange:
        all_of_them = ", ".join(map(repr, strange)) + (" is no task" if len(strange) == 1 else " are no tasks")
        raise DataError(
            f"{sources[0]}: {all_of_them} of {family.name!r}, as {family.tasks[0].task_id!r} is; the setting "
            "'task_id' or 'task_ids' says which is meant"
        )
    held_out = {task.task_id for task in family.split(**wishes.split).held_out}
    notes += [f"task {name!r} is left out: it is held out by the split" for name in names if name in held_out]
    if not set(names) - held_out:
        raise DataError(f"{sources[0]}: all of its tasks are held out by the split: {', '.join(names)}")
    return params, held_out


def _horizon(
    tasks: Sequence[TaskHistories],
    settings: Fields,
    family: TaskFamily | None,
    sources: Sequence[Path],
    assumed: list[str],
) -> int:
    longest = max(int(np.diff(task.episode_ends, prepend=0).max()) for task in tasks)
    wanted = int(family.horizon if family is not None else settings["horizon"])
    if not wanted:
        assumed.append(f"'horizon' = {longest}, the longest episode")
        return longest
    if longest > wanted:
        whose = f"of {family.name!r}" if family is not None else "in the settings"
        raise DataError(f"{sources[0]}: an episode has {longest:,} env steps, but the horizon {whose} is {wanted:,}")
    return wanted
