"""Several processes: start torchrun, and refuse the launcher's silent failures."""

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs


class LaunchError(ValueError):
    """The processes that were asked for are not the ones that run."""


def relaunch(argv: Sequence[str], num_processes: int) -> int:
    """Run this command again as *num_processes* processes and return their exit code."""
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment["ACCELERATE_USE_CPU"] = "1"  # without it torchrun gives unconnected processes of rank 0
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    return subprocess.run([*torchrun, "-m", "cccad_train.cli", *argv], env=environment, check=False).returncode


def build_accelerator(device: str) -> Accelerator:
    """Return the accelerator; raises LaunchError when the launcher's processes do not know of one another."""
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))  # while one process collects or evaluates
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=[unused, patience])
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if wanted != accelerator.num_processes:
        raise LaunchError(
            f"{wanted} processes were started but {accelerator.num_processes} are connected; "
            "start with 'cccad-run --processes N', or set ACCELERATE_USE_CPU=1 on machines without an accelerator"
        )
    return accelerator
