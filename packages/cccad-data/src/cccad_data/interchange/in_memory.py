"""Histories that a program has in memory become a dataset of a task family."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from attrs import evolve

from cccad_data.family import TaskFamily
from cccad_data.histories.history import TaskHistories
from cccad_data.interchange import Wishes, lives, write_found
from cccad_data.interchange.lives import Life, gathered
from cccad_data.plain import Fields

_FROM = Path("python")


def write_own(
    tasks: Sequence[TaskHistories], out: Path | str, *, env: TaskFamily | Fields, **wishes: Fields
) -> list[str]:
    """Write *tasks* into the new dataset folder *out*, held against the family *env*; return what there is to say.

    Args:
        tasks: Histories, as from `TaskHistories.from_episodes`; those of held-out tasks are left out.
        out: A new folder.
        env: The family itself, or its `kind` and fields.
        wishes: `split`, `settings`: see `Wishes`.

    Raises:
        DataError: They contradict the family; every place is named. Then nothing is written.
    """
    wish = Wishes(env=env, **wishes)
    wish = evolve(wish, settings={**lives.SETTINGS, **wish.settings})
    notes: list[str] = []
    all_lives = [life for task in tasks for life in _lives(task)]
    result = gathered("python", [_FROM], all_lives, wish, notes, last_observations="true")
    return write_found(str(_FROM), result, out)


def _lives(task: TaskHistories) -> Iterator[Life]:
    for index, history in enumerate(task):
        names = ("observations", "actions", "rewards", "terminations", "truncations", "optimal_actions")
        arrays = {name: array for name, array in history.arrays().items() if name in names}
        arrays["next_observations"] = history.next_observations()
        yield Life(source=_FROM, task_id=task.task_id, arrays=arrays, place=partial(_place, index))


def _place(history: int, env_step: int) -> str:
    return f"history {history}, env step {env_step:,}"
