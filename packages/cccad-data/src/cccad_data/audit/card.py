"""A set of histories on one page: what is in it, how well its source learned, and where it comes from."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cccad_data import spaces
from cccad_data.errors import DataError, FamilyError
from cccad_data.families.registered import family_errors
from cccad_data.family import HasOptimum, TaskFamily, optimal_returns, random_returns
from cccad_data.histories.dataset import Histories, early_late_returns, learning_curve
from cccad_data.histories.shards import whole_file
from cccad_data.plain import Fields

_EDGE_EPISODES = 10
_MOST_STATES = 1 << 20


def card(path: Path, histories: Histories, family: TaskFamily | None = None) -> str:
    """Return the card of *histories* read from *path*; with *family*, returns are held against its optimum."""
    return "\n".join(_lines(path, histories, family))


def _lines(path: Path, histories: Histories, family: TaskFamily | None) -> Iterator[str]:
    header = histories.header
    episodes = sum(task.num_episodes for task in histories)
    files = sorted(path.rglob("*.h5")) if path.is_dir() else [path]
    size_bytes = sum(file.stat().st_size for file in files)
    yield f"{path}: {header['format']}, {len(files)} shard{'s' if len(files) > 1 else ''}, {size_bytes:,} bytes"
    yield f"  family     {_named(header['env'])}"
    observation, action = (_named(header["spaces"][kind]) for kind in ("observation", "action"))
    yield f"  spaces     observation {observation}; action {action}"
    yield f"  tasks      {len(histories):,} collected, {len(histories.held_out_task_ids):,} held out"
    yield f"  split      {_fields(header['split'])}"
    yield (
        f"  histories  {histories.num_histories:,} of {histories.num_env_steps:,} env steps and {episodes:,} episodes; "
        f"{size_bytes / histories.num_env_steps:.2f} bytes per env step"
    )
    yield from _coverage(histories)
    yield from _returns(histories, family)
    yield f"  source     {_named(header['source'])}; seed {header['seed']}"
    yield f"  written by {_fields(header['versions'])}"


def _returns(histories: Histories, family: TaskFamily | None) -> Iterator[str]:
    """Say how the source did in its first and in its last episodes."""
    curves = learning_curve(histories)
    early = np.array([curve[:_EDGE_EPISODES].mean() for curve in curves.values()])
    late = np.array([curve[-_EDGE_EPISODES:].mean() for curve in curves.values()])
    yield f"  returns    {early.mean():.3f} in the first {_EDGE_EPISODES} episodes, {late.mean():.3f} in the last"
    is_ours = family is not None and family.horizon == histories.header["horizon"]
    if family is None or not is_ours or not spaces.all_alike(family.spaces, histories.spaces):
        why = "not installed" if family is None else "installed with other spaces or another horizon"
        yield f"             the task family is {why}, so there is no optimum to compare with"
        return
    try:
        with family_errors(histories.header["env"]["kind"]):
            tasks = [family.task(task_id) for task_id in curves]
            optimal, random = optimal_returns(family, tasks), random_returns(family, tasks)
    except FamilyError as error:
        yield f"             there is no optimum to compare with: {error}"
        return
    with np.errstate(all="ignore"):  # a task whose optimum is what chance gets
        normalised = (late - random) / (optimal - random)
    worst = int(normalised.argmin())
    yield f"  optimum    {optimal.mean():.3f}; a random policy has {random.mean():.3f}"
    yield (
        f"  normalised {normalised.mean():.3f} in the last {_EDGE_EPISODES} episodes; "
        f"worst task {tasks[worst].task_id} with {normalised[worst]:.3f}"
    )


def _coverage(histories: Histories) -> Iterator[str]:
    """Say how much of the observation space a task's histories have seen, where it is discrete and small enough."""
    space = histories.spaces["observation"]
    sizes = spaces.sizes(space) if spaces.is_discrete(space) else ()
    if not sizes or np.prod(sizes, dtype=float) > _MOST_STATES:
        return
    counts = []
    for task in histories:
        observations = np.asarray(task.observations)
        if spaces.outside(space, observations).any():
            yield f"  coverage   unknown: {task.task_id} has observations outside their space, see `cccad-data verify`"
            return
        counts.append(len(np.unique(np.ravel_multi_index(tuple(observations.astype(np.int64).T), sizes))))
    shares = np.array(counts) / np.prod(sizes)
    yield f"  coverage   {shares.mean():.3f} of the observations in the mean task, {shares.min():.3f} in the least"


def draw(file: Path, histories: Histories, family: TaskFamily | None = None) -> None:
    """Draw the learning curves to *file*, whose ending says the format; with *family*, the optimum as well.

    Raises DataError when matplotlib is missing or does not know that ending, StorageError when it cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError("a plot needs matplotlib; install it beside cccad-data") from error
    curves = learning_curve(histories)
    length = min(map(len, curves.values()))
    table = np.array([curve[:length] for curve in curves.values()])
    episodes = np.arange(1, length + 1)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.fill_between(episodes, table.min(axis=0), table.max(axis=0), alpha=0.2, label="all tasks")
    left.plot(episodes, table.mean(axis=0), label="mean of the tasks")
    if family is not None and isinstance(family, HasOptimum):
        with family_errors(histories.header["env"]["kind"]):
            optimum = optimal_returns(family, [family.task(task_id) for task_id in curves]).mean()
        left.axhline(optimum, color="black", linestyle=":", label="mean optimum")
    left.set(xlabel="episode of a history", ylabel="return")
    left.legend()
    early, late = np.array([*early_late_returns(histories, num_episodes=_EDGE_EPISODES).values()]).T
    right.scatter(early, late, s=12)
    right.axline((0.0, 0.0), slope=1.0, color="black", linestyle=":")
    right.set(
        xlabel=f"return of the first {_EDGE_EPISODES} episodes", ylabel=f"of the last {_EDGE_EPISODES}; a dot a task"
    )
    ending = file.suffix.lstrip(".") or "png"
    if ending not in figure.canvas.get_supported_filetypes():
        raise DataError(f"{file}: a plot cannot be written as {ending!r}; try .png or .svg")
    with whole_file(file) as handle:
        figure.savefig(handle, format=ending)


def _named(fields: Fields) -> str:
    rest = _fields({key: value for key, value in fields.items() if key not in {"kind", "origin", "sha256"}})
    return f"{fields['kind']} ({rest})" if rest else str(fields["kind"])


def _fields(fields: Fields) -> str:
    fields = {key: f"of {len(value)}" if key == "parts" else value for key, value in fields.items()}
    return ", ".join(f"{key} {value}" for key, value in fields.items())
