"""Jobs as tasks of a Ray cluster: the results are those of one process, and a node that is lost loses nothing."""

import socket
from collections.abc import Callable, Sequence
from importlib import import_module

from attrs import field, frozen, validators

from cccad_data.errors import JobError
from cccad_data.jobs.job import RETRIES, Outcome, Outcomes, Work, attempt, silent

_IN_FLIGHT = 1000  # jobs that the cluster knows of at a time


@frozen(kw_only=True)
class RaySpec:
    """Run the jobs on a Ray cluster, whose nodes must all see the folder that is written under the same path."""

    address: str = field(
        default="local",
        metadata={
            "help": "of a cluster, such as 10.0.0.1:6379; 'auto' for the one that this machine is part of, 'local' to "
            "start one here"
        },
    )
    cpus_per_unit: float = field(
        default=1.0, validator=validators.gt(0.0), metadata={"help": "CPUs that a job is given"}
    )

    def build(self) -> "Ray":
        """Return the executor."""
        return Ray(self)


class Ray:
    """One Ray task per job, begun again where its node or its process is lost. Progress is reported job by job."""

    def __init__(self, spec: RaySpec) -> None:
        self.spec = spec

    def run(self, work: Work, jobs: Sequence[object], progress: Callable[[int, int], None]) -> Outcomes:
        """Yield the outcome of every job as it ends, on the cluster that is connected already if there is one.

        Raises JobError when Ray is not installed, or there is no cluster at the address.
        """
        try:
            ray = import_module("ray")
        except ImportError as error:
            raise JobError("the executor 'ray' needs Ray; install cccad-data[ray]") from error
        is_ours = not ray.is_initialized()
        if is_ours:
            try:
                self._refuse_silence()
                ray.init(address=self.spec.address, log_to_driver=False)
            except Exception as error:  # a bare one, where Ray does not come up in time
                raise JobError(f"there is no Ray cluster at {self.spec.address!r}: {error}") from error
        remote = ray.remote(num_cpus=self.spec.cpus_per_unit, max_retries=RETRIES)(attempt)
        waiting = list(enumerate(jobs))[::-1]
        running: dict[object, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < _IN_FLIGHT:
                    index, job = waiting.pop()
                    running[remote.remote(work, index, job, silent)] = index
                (ended,), _ = ray.wait(list(running), num_returns=1)
                index = running.pop(ended)
                try:
                    outcome = ray.get(ended)
                except ray.exceptions.RayError as error:
                    outcome = Outcome(index, failure=f"{error}\n")
                yield outcome
        finally:
            for unfinished in running:
                ray.cancel(unfinished, force=True)
            if is_ours:
                ray.shutdown()

    def _refuse_silence(self) -> None:
        """Raise OSError when nobody listens at the address; Ray itself goes on trying for minutes."""
        host, _, port = self.spec.address.removeprefix("ray://").rpartition(":")
        if port.isdecimal():
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
