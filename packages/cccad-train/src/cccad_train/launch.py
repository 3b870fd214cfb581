"""Several processes: start them, own them to the end, and agree with them on when to stop."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import IO, Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, broadcast_object_list
from attrs import frozen
from cccad_data.process import SIGNALS, Stopped, unstopped
from torch import distributed

from cccad_train.variables import PARENT, LaunchError, Place

GRACE_S = 5.0
"What processes are left when one is lost: gloo tells them at once, but they may evaluate, or wait on a device."
PEER_LOST = 75
"Exit code of a process that lost the others, and leaves it to its owner to say why."
PATIENCE = timedelta(days=1)
"How long processes wait while one collects or evaluates."
KEPT = "what was saved is kept, and --resume goes on from the last checkpoint"
ORDERLY = tuple(128 + each for each in SIGNALS)
"Exit codes of a process that was asked to stop."


class LostProcessError(ValueError):
    """One of several processes is gone before its time."""


def relaunch(argv: Sequence[str], num_processes: int) -> int:
    """Run this command as *num_processes* processes and return the exit code; they end when this process does.

    Raises Stopped when it was asked to stop, and so were they; LostProcessError when one of them was killed.
    """
    open_store: Any = vars(distributed)["TCPStore"]  # which torch does not list as its own
    store = open_store("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)
    everyone = {"WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes, "MASTER_ADDR": "127.0.0.1"}
    everyone |= {"MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True, PARENT: os.getpid()}
    texts = {name: str(value) for name, value in everyone.items()}
    environment = {"TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ, **texts}
    command = [sys.executable, "-m", "cccad_train", *argv]
    with ExitStack() as stack, unstopped() as asked:
        ranks = []
        for rank in range(num_processes):
            errors = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace")) if rank else None
            env = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = subprocess.Popen(command, env=env, stderr=errors, process_group=0)  # Ctrl-C is ours to pass on
            ranks.append(_Rank(rank=rank, process=process, errors=errors))
        lost, number = _wait(ranks, asked), asked()
        if lost is None:
            return 0
        if (code := int(ranks[0].process.returncode)) in ORDERLY:  # it has said what is kept
            return code
        if number:
            raise Stopped(number)
        return _exit_code(lost, ranks)


@frozen
class _Rank:
    """One of the processes; of all but the first, what they print as errors is held back."""

    rank: int
    process: "subprocess.Popen[bytes]"
    errors: IO[str] | None


def _wait(ranks: Sequence[_Rank], asked: Callable[[], int]) -> _Rank | None:
    """Return when all have ended, with the first that failed by itself; the others are given little time then."""
    lost: _Rank | None = None
    passed_on, deadline = False, float("inf")
    while True:
        codes = [each.process.poll() for each in ranks]
        failed = [each for each, code in zip(ranks, codes, strict=True) if code]
        lost = lost or next((each for each in failed if each.process.returncode != PEER_LOST), None)
        if None not in codes:
            return lost or next(iter(failed), None)
        if asked() and not passed_on:
            passed_on = True
            for each in ranks:
                each.process.send_signal(asked())
        is_over = bool(codes[0]) or any(code not in (None, 0, *ORDERLY) for code in codes)
        if is_over and deadline == float("inf"):
            deadline = time.monotonic() + GRACE_S
        if time.monotonic() > deadline:
            for each in ranks:
                each.process.kill()
        time.sleep(0.05)


def _exit_code(lost: _Rank, ranks: Sequence[_Rank]) -> int:
    """Return the exit code of the process that failed first, saying what it said; raises if it was killed."""
    code = int(lost.process.returncode)
    if code < 0 or code == PEER_LOST:
        end = "lost the others" if code > 0 else f"was killed by {signal.Signals(-code).name}"
        hint = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
        raise LostProcessError(f"process {lost.rank} of {len(ranks)} {end}{hint}; {KEPT}")
    if lost.errors is not None and ranks[0].process.returncode != code:  # else the first has said the same
        lost.errors.seek(0)
        sys.stderr.write(lost.errors.read())
    return code


def build_accelerator(device: str, num_threads: int = 1, num_processes: int = 1) -> Accelerator:
    """Return the accelerator; raises LaunchError when there is no such device, or not one for each process."""
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise LaunchError("--device cuda: torch finds no CUDA device here; leave it out, or --device cpu")
    if num_processes > 1:
        if has_cuda and device != "cpu":
            local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            if local_size > (count := torch.cuda.device_count()):
                raise LaunchError(f"{local_size} processes on {count} CUDA devices; start {count}, or use --device cpu")
            os.environ.setdefault("LOCAL_RANK", str(int(os.environ["RANK"]) % count))
        else:
            device = "cpu"
            os.environ.setdefault("LOCAL_RANK", "0")
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=[unused, patience])
    torch.set_num_threads(num_threads)
    if num_processes != accelerator.num_processes:
        raise LaunchError(f"{num_processes} processes were started but {accelerator.num_processes} are connected")
    return accelerator


def as_main(value: Any) -> Any:
    """Return what *value* is in the main process: others may see a shared folder as it was a moment ago."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


class Agreement:
    """Asked by every process after every update whether to stop: all of them hear the same answer, a signal or 0."""

    def __init__(self, asked: Callable[[], int], accelerator: Accelerator) -> None:
        self.asked, self.is_alone, self.number = asked, accelerator.num_processes == 1, 0
        self.group: Any = None
        if not self.is_alone and accelerator.device.type != "cpu":  # a device would have to be waited for
            self.group = distributed.new_group(backend="gloo", timeout=PATIENCE)

    def __call__(self) -> int:
        """Return the signal that any of them got."""
        self.number = self.asked()
        if not self.is_alone:
            flag = torch.tensor([self.number])
            distributed.all_reduce(flag, distributed.ReduceOp.MAX, group=self.group)
            self.number = int(flag)
        return self.number


@contextmanager
def connected(place: Place) -> Iterator[None]:
    """Inside, the loss of another process is one sentence: the owner's, or without one LostProcessError."""
    try:
        yield
    except RuntimeError as error:
        words = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")
        is_lost = isinstance(error, distributed.DistError) or any(word in str(error) for word in words)
        if place.num_processes == 1 or not is_lost:
            raise
        if place.is_owned:
            sys.exit(PEER_LOST)
        raise LostProcessError(f"process {place.rank} of {place.num_processes} lost another; {KEPT}") from None
