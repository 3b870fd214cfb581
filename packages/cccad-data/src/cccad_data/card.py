"""A set of histories on one page: what is in it, how well its source learned, and where it comes from."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cccad_data.dataset import Histories, learning_curve

_EDGE_EPISODES = 10


def card(path: Path, histories: Histories, family: Any = None) -> str:
    """Return the card of *histories* read from *path*; with *family*, returns are held against its optimum."""
    return "\n".join(_lines(path, histories, family))


def _lines(path: Path, histories: Histories, family: Any) -> Iterator[str]:
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
    yield from _returns(histories, family)
    yield f"  source     {_named(header['source'])}; seed {header['seed']}"
    yield f"  written by {_fields(header['versions'])}"


def _returns(histories: Histories, family: Any) -> Iterator[str]:
    """Say how the source did in its first and in its last episodes."""
    curves = learning_curve(histories)
    early = np.array([curve[:_EDGE_EPISODES].mean() for curve in curves.values()])
    late = np.array([curve[-_EDGE_EPISODES:].mean() for curve in curves.values()])
    yield f"  returns    {early.mean():.3f} in the first {_EDGE_EPISODES} episodes, {late.mean():.3f} in the last"
    if family is None:
        yield "             the task family is not installed, so there is no optimum to compare with"
        return
    tasks = [family.task(task_id) for task_id in curves]
    optimal = np.array([family.optimal_return(task) for task in tasks])
    random = np.array([family.random_return(task) for task in tasks])
    normalised = (late - random) / (optimal - random)
    worst = int(normalised.argmin())
    yield f"  optimum    {optimal.mean():.3f}; a random policy has {random.mean():.3f}"
    yield (
        f"  normalised {normalised.mean():.3f} in the last {_EDGE_EPISODES} episodes; "
        f"worst task {tasks[worst].task_id} with {normalised[worst]:.3f}"
    )


def _named(fields: Mapping[str, Any]) -> str:
    rest = _fields({key: value for key, value in fields.items() if key != "kind"})
    return f"{fields['kind']} ({rest})" if rest else str(fields["kind"])


def _fields(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in fields.items())
