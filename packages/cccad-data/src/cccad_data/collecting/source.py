"""The contract of a source: an algorithm that makes learning histories."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from attrs import AttrsInstance

from cccad_data.family import Task, TaskFamily
from cccad_data.histories.history import TaskHistories


@runtime_checkable
class SourceSpec(AttrsInstance, Protocol):
    """An attrs class whose fields are a source's settings."""

    @property
    def num_envs(self) -> int:
        """Histories per task."""

    @property
    def env_steps(self) -> int:
        """Length of each history."""

    @property
    def tasks_per_unit(self) -> int:
        """Tasks that are collected, and written, together."""

    def build(self) -> "Source":
        """Return the source."""


@runtime_checkable
class Source(Protocol):
    """Produces learning histories."""

    @property
    def name(self) -> str:
        """The name under which the source's spec is registered."""

    @property
    def spec(self) -> SourceSpec:
        """The settings that built the source."""

    def collect(
        self,
        family: TaskFamily,
        tasks: Sequence[Task],
        *,
        seed: int,
        progress: Callable[[int], None] | None = None,
    ) -> list[TaskHistories]:
        """Return the histories of each task; the random numbers depend on *seed* and the task's id alone.

        *progress* gets the env steps done so far.
        """


@runtime_checkable
class SaysWhetherItLearns(Protocol):
    """A source that says whether its histories are meant to improve; without a word, they are."""

    @property
    def learns(self) -> bool:
        """Whether the return is to rise within a history."""
