"""Jobs in spawned processes; the results are those of one process."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from attrs import field, frozen, validators

from cccad_data.jobs.job import RETRIES, Outcome, Outcomes, Work
from cccad_data.process import end_with


@frozen(kw_only=True)
class ProcessesSpec:
    """Run the jobs in spawned processes of one thread each."""

    num_workers: int = field(
        default=2, validator=validators.ge(1), metadata={"help": "processes that work at the same time"}
    )

    def build(self) -> "Processes":
        """Return the executor."""
        return Processes(self.num_workers)


class Processes:
    """Spawned workers, each of one thread; where one dies, another takes its place and begins its job again."""

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers

    def run(self, work: Work, jobs: Sequence[object], progress: Callable[[int, int], None]) -> Outcomes:
        """Yield the outcome of every job as it ends."""
        waiting = list(enumerate(jobs))[::-1]
        retries = [RETRIES] * len(jobs)
        workers: dict[Connection, _Worker] = {}
        try:
            while waiting or workers:
                while waiting and len(workers) < self.num_workers:
                    worker = _Worker(work)
                    worker.give(*waiting.pop())
                    workers[worker.connection] = worker
                for connection in wait(list(workers)):
                    worker = workers[connection]  # type: ignore[index]
                    kind, content = worker.receive()
                    if kind == "progress":
                        progress(worker.index, content)
                        continue
                    if kind == "died" and retries[worker.index]:
                        retries[worker.index] -= 1
                        waiting.append((worker.index, jobs[worker.index]))
                    else:
                        yield content
                    if kind != "died" and waiting:
                        worker.give(*waiting.pop())
                    else:
                        del workers[worker.connection]
                        worker.stop()
        finally:
            for worker in workers.values():
                worker.kill()


class _Worker:
    """A spawned process and this end of the pipe to it."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        with _one_thread(), _deaf():
            self.process.start()
        theirs.close()
        self.index = -1

    def give(self, index: int, job: object) -> None:
        self.index = index
        try:
            self.connection.send((index, job))
        except BrokenPipeError:  # it died before its first job; receive() will say so
            return

    def receive(self) -> tuple[str, Any]:
        try:
            message: tuple[str, Any] = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            failure = f"the worker process died with exit code {self.process.exitcode}, as did {RETRIES} before it\n"
            return "died", Outcome(self.index, failure=failure)
        return message

    def stop(self) -> None:
        """Let the process end by itself: it stops when its pipe is closed."""
        self.connection.close()
        self.process.join()

    def kill(self) -> None:
        self.process.kill()
        self.stop()


def _serve(work: Work, connection: Connection) -> None:
    """Do jobs until the other end of the pipe is gone, or the process that holds it."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with(parent.pid, at_once=False)
    while True:
        try:
            index, job = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            outcome = Outcome(index, work(job, lambda done: connection.send(("progress", done))))
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this job's outcome
            outcome = Outcome.of(index, error)
        try:
            connection.send(("outcome", outcome))
        except (BrokenPipeError, ConnectionResetError):
            return


@contextmanager
def _deaf() -> Iterator[None]:
    """Make a process that is spawned inside deaf to a Ctrl-C, which the terminal sends to all; its owner ends it."""
    resource_tracker.ensure_running()  # which starts with the first process, and would open its ears
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Make a process that is spawned inside use one thread for NumPy and torch, which read this when first imported."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
