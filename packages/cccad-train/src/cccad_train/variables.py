"""What launchers and libraries read from the environment, settled here before any of them is imported.

A process is alone unless a launcher started it: what says otherwise is set aside, and so is whatever would change how
numbers are computed. What is left is recorded in `meta.json`.
"""

import os
import re
from fnmatch import fnmatchcase
from typing import Any

from attrs import frozen

PLACES = """
    RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT NODE_RANK NPROC GROUP_* ROLE_* TORCHELASTIC_*
    PMI_* PMIX_* OMPI_* MV2_* MPI_* FORK_LAUNCHED
"""
"Which process of how many this is, and where the others are."
SETTINGS = """
    ACCELERATE_* FSDP_* FP8_* MEGATRON_LM_* PARALLELISM_CONFIG_* DEEPSPEED_* MIXED_PRECISION TORCHDYNAMO_*
    TORCHINDUCTOR_* TORCH_COMPILE* PYTORCH_JIT* PYTORCH_TENSOREXPR* PJRT_* USE_TORCH_XLA XLA_* TPU_* PT_HPU_*
"""
"How accelerate and torch would run a model instead of as the spec says."
ARITHMETIC = """
    OMP_* GOMP_* KMP_* MKL_* OPENBLAS_* GOTO_* BLIS_* VECLIB_* NUMEXPR_* DNNL_* ONEDNN_* ATEN_* NPY_* TORCH_MKLDNN_*
    TORCH_LINEAR_* TORCH_LINALG_* TORCH_BLAS_* TORCH_CUDNN_* TORCH_ALLOW_TF32_* NVIDIA_TF32_*
"""
"With how many threads, in which order and by which instructions sums are added up."
STAY = "KMP_DUPLICATE_LIB_OK MKL_THREADING_LAYER MKL_SERVICE_FORCE_INTEL"
"Without these some installations do not start."
RECORDED = ARITHMETIC + "CUDA_* CUBLAS_* CUDNN_* NVIDIA_* NCCL_* GLOO_* TORCH_* PYTORCH_* HIP_* ROCR_* SLURM_JOB_ID"

LAUNCHERS = {  # rank, number of processes, rank and number on this node
    "a launcher": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""),
    "mpirun (Open MPI)": tuple(f"OMPI_COMM_WORLD_{x}" for x in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")),
    "mpirun (MPICH, Intel)": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    "mpirun (MVAPICH)": tuple(f"MV2_COMM_WORLD_{x}" for x in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")),
}
PARENT = "CCCAD_PARENT"
"Set for the processes of `--processes`: the process that started them, and with which they end."

VERSIONED = (
    *("cccad-core", "cccad-data", "cccad-envs", "cccad-train"),
    *("torch", "numpy", "accelerate", "gymnasium"),
)
"Distributions that results may depend on, as far as they are installed."

_set_aside: list[str] = []


class LaunchError(ValueError):
    """The processes that were asked for are not the ones that run."""


@frozen(kw_only=True)
class Place:
    """Where this process stands: one of *num_processes*, which *parent* started, by `--processes` if it *is_owned*."""

    rank: int = 0
    num_processes: int = 1
    parent: int = 0
    is_owned: bool = False
    wants_cpu: bool = False
    notes: tuple[str, ...] = ()


def settle(*, num_threads: int = 1, is_launchable: bool = False) -> Place:
    """Set aside what must not reach a library, pin the threads, and return where this process stands.

    torchrun's word always counts; that of srun, mpirun and of RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set by hand
    does where *is_launchable* (`python -m cccad_train`). Raises LaunchError when it is incomplete.
    """
    before = dict(os.environ)
    by_torchrun = "TORCHELASTIC_RUN_ID" in before
    place, names = Place(), dict[str, str]()
    if is_launchable or by_torchrun:
        place, names = _place(before)
    if is_launchable:
        _refuse_lone_process(before, place)
    for name in before:
        if _matches(name, PLACES + SETTINGS + ARITHMETIC + PARENT) and not _matches(name, STAY):
            _set_aside.append(name)
            del os.environ[name]
    pinned = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(num_threads))
    os.environ.update({**pinned, "USE_TORCH_XLA": "0", **names})
    return place


def _place(variables: dict[str, str]) -> tuple[Place, dict[str, str]]:
    """Return where a launcher put this process, and the variables that torch.distributed reads of it."""
    rank, size, local_rank, local_size, by = _numbers(variables)
    cpu = variables.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes", "on", "t", "y"}
    owner = int(variables.get(PARENT, "0"))
    is_launched = any(name in variables for name in ("TORCHELASTIC_RUN_ID", "ACCELERATE_DYNAMO_BACKEND"))
    parent = owner or (os.getppid() if is_launched else 0)
    place = Place(
        rank=rank, num_processes=size, parent=parent, is_owned=bool(owner), wants_cpu=cpu, notes=_notes(variables)
    )
    if size == 1:
        return place, {}
    address, port = variables.get("MASTER_ADDR", ""), variables.get("MASTER_PORT", "")
    if by == "srun":
        address = address or _first_node(variables)
        port = port or str(15_000 + int(variables.get("SLURM_JOB_ID", 0)) % 20_000)
    elif by != "a launcher" and local_size == size:  # all are here
        address, port = address or "127.0.0.1", port or "29500"
    absent = [name for name, text in (("MASTER_ADDR", address), ("MASTER_PORT", port)) if not text]
    if absent:
        raise LaunchError(f"{by} set process {rank} of {size}, but not {' and '.join(absent)}: where the others are")
    names = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": local_size}
    kept = {name: text for name, text in variables.items() if name.startswith("TORCHELASTIC_")}
    kept |= {name: str(number) for name, number in names.items() if number is not None}
    return place, kept | {"MASTER_ADDR": address, "MASTER_PORT": str(_number("MASTER_PORT", port))}


def _numbers(variables: dict[str, str]) -> tuple[int, int, int | None, int, str]:
    for by, names in LAUNCHERS.items():
        rank, size = (variables.get(name) for name in names[:2])
        if rank is None and size in (None, "1"):
            continue
        absent = [name for name, text in zip(names, (rank, size), strict=False) if text is None]
        if absent and not (by == "a launcher" and (rank, size) == ("0", None)):
            other = f"{names[0]}={rank}" if size is None else f"{names[1]}={size}"
            raise LaunchError(f"{other} is set and {absent[0]} is not: set both, MASTER_ADDR and MASTER_PORT, or none")
        local_rank, local_size = (variables.get(name) for name in names[2:])
        numbers = _number(names[0], str(rank)), _number(names[1], size or "1")
        if not numbers[0] < numbers[1]:
            raise LaunchError(f"{names[0]} must be 0 or more and below {names[1]}: {rank} of {size}")
        if numbers[1] > 1:
            local = None if local_rank is None else _number(names[2], local_rank)
            return *numbers, local, _number(names[3], local_size or "1"), by
    return 0, 1, None, 1, ""


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise LaunchError(f"{name} must be a whole number: {text!r}")
    return int(text)


def _first_node(variables: dict[str, str]) -> str:
    """Return the first host of a SLURM step, whose list reads like `gpu[03-06,9],cpu1`."""
    if variables.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    hosts = variables.get("SLURM_STEP_NODELIST", variables.get("SLURM_NODELIST", ""))
    first = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\]([^,\[]*))?", hosts)
    return "" if first is None else "".join(part or "" for part in first.groups())


def _refuse_lone_process(variables: dict[str, str], place: Place) -> None:
    """Refuse what `accelerate launch --cpu --num_processes 2` does: it starts one process, and tells it of others."""
    if place.num_processes == 1 and "ACCELERATE_DYNAMO_BACKEND" in variables and "MASTER_PORT" in variables:
        raise LaunchError(
            "'accelerate launch' was asked for several processes and started one, as it does on CPUs; "
            "use 'cccad-run SPEC --processes N' or 'torchrun --nproc_per_node N -m cccad_train SPEC'"
        )


def _notes(variables: dict[str, str]) -> tuple[str, ...]:
    """Return a word on what a launcher's own settings ask for in vain."""
    usual = {"", "no", "false", "0", "1", "default"}
    ours = ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    idle = [n for n in ours if variables.get(n, "").lower() not in usual]
    idle += [n for n in sorted(variables) if n.startswith("ACCELERATE_USE_") and n != "ACCELERATE_USE_CPU"]
    idle = [n for n in idle if variables[n].lower() not in usual - {"1"}]
    settings = ", ".join(f"{n.removeprefix('ACCELERATE_').lower()} = {variables[n]}" for n in idle)
    return (f'not used: {settings} of accelerate; the spec says it all (train.precision = "bf16")',) if idle else ()


def _matches(name: str, patterns: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns.split())


def record() -> dict[str, Any]:
    """Return what is left that numbers may depend on, and the names of what was set aside."""
    import torch

    return {
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "accelerators": [torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())],
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "variables": {name: text for name, text in sorted(os.environ.items()) if _matches(name, RECORDED)},
        "set_aside": sorted(set(_set_aside)),
    }
