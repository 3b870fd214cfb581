"""Jobs in this process."""

from collections.abc import Callable, Sequence

from attrs import frozen

from cccad_data.jobs.job import Outcomes, Work, attempt


@frozen(kw_only=True)
class InlineSpec:
    """Run the jobs one after another in this process."""

    def build(self) -> "Inline":
        """Return the executor."""
        return Inline()


class Inline:
    """One job after another, here."""

    def run(self, work: Work, jobs: Sequence[object], progress: Callable[[int, int], None]) -> Outcomes:
        """Yield the outcome of every job in order."""
        for index, job in enumerate(jobs):
            yield attempt(work, index, job, lambda done, index=index: progress(index, done))  # type: ignore[misc]
