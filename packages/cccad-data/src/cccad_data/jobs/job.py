"""One job, what becomes of it, and the contract of whoever runs many."""

import traceback
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

from attrs import frozen

from cccad_data.errors import DataError, HaltingError

Progress = Callable[[int], None]
"Takes how much of one job is done, in the units of the job."
Work = Callable[[Any, Progress], object]
"A module-level function: does one job, reports how much of it is done, returns what can be pickled."
RETRIES = 2
"How often a job is begun again whose process was lost; an exception is reported at once, for it would come again."


@frozen
class Outcome:
    """What became of one job: its result, or the traceback of its failure (of a user's mistake, its sentence)."""

    index: int
    result: object = None
    failure: str = ""
    stops: bool = False
    "Whether the others would fail alike, as on a full disk."

    @classmethod
    def of(cls, index: int, error: Exception) -> "Outcome":
        """Return the outcome of a job that raised *error*, which is being handled."""
        text = str(error) if isinstance(error, DataError) else traceback.format_exc()
        return cls(index, failure=text, stops=isinstance(error, HaltingError))


def attempt(work: Work, index: int, job: object, progress: Progress) -> Outcome:
    """Do one job, and return what became of it."""
    try:
        return Outcome(index, work(job, progress))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's outcome
        return Outcome.of(index, error)


def silent(_done: int) -> None:
    """Be the progress of jobs that are done where nobody watches."""


Outcomes = Generator[Outcome, None, None]


class Executor(Protocol):
    """Runs jobs in any order; a job that fails does not stop the others. Closing what it yields stops its workers."""

    def run(self, work: Work, jobs: Sequence[object], progress: Callable[[int, int], None]) -> Outcomes:
        """Yield the outcome of every job as it ends; *progress* gets (job index, how much of it is done)."""
