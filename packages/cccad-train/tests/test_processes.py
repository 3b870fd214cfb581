"""One process is one whatever the environment says, and processes of any launcher train together as one would."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import accelerate
import pytest
from cccad_train.launch import build_accelerator
from cccad_train.run.execute import Order, execute
from cccad_train.variables import LaunchError, Place, settle
from safetensors.numpy import load_file

SHORT = [  # global batches of 8 rows in pre-training, and of 11, which does not divide into two, in training
    *("--set", 'train.curriculum={ kind = "none" }', "--set", "train.num_writes=2", "--set", "train.num_updates=6"),
    *("--set", "pretrain.num_updates=4", "--set", "train.checkpoint_every_updates=3", "--set", "controls={}"),
    *("--set", "evaluate.memory_controls=false"),
]
OF_THE_SYSTEM = {"PYTHONPATH", "XDG_CACHE_HOME", "HF_HOME", "CUDA_VISIBLE_DEVICES"}
VALUES = {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_MIXED_PRECISION": "bf16", "MASTER_ADDR": "192.0.2.1"}
LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "2000"}
POSIX_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


def weights(folder):
    [run] = folder.glob("micro-*")
    return load_file(run / "policy" / "model.safetensors")


def module(*arguments, launcher=(), **variables):
    command = [sys.executable, "-m", *launcher, "cccad_train", *map(str, arguments), "--device", "cpu"]
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables}
    return subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def read_by_accelerate():
    """Return the names of all variables that the installed accelerate reads, as its source has them."""
    names = set()
    for file in Path(accelerate.__file__).parent.rglob("*.py"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if re.search(r"environ|_from_env|getenv|prefix \+", line):
                names |= set(re.findall(r"""["']([A-Z][A-Z0-9_]{2,})["']""", line))
    prefixes = ("", "FSDP_", "ACCELERATE_DYNAMO_", "ACCELERATE_FP8_", "MEGATRON_LM_")
    return {prefix + name for name in names for prefix in prefixes} - OF_THE_SYSTEM


@pytest.fixture
def variables(monkeypatch):
    """An environment that a test may fill, with nothing in it."""
    monkeypatch.setattr(os, "environ", {})
    return os.environ


def test_the_weights_of_one_process_are_the_same_bits_whatever_the_environment_says(
    micro, cccad_run, tmp_path, only_run
):
    hostile = {name: VALUES.get(name, "1") for name in read_by_accelerate()}
    assert {"LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_USE_DEEPSPEED", "FSDP_USE_ORIG_PARAMS"} <= hostile.keys()
    hostile |= {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "MKL_CBWR": "COMPATIBLE"}
    hostile |= {"ATEN_CPU_CAPABILITY": "default"}
    assert cccad_run(micro, "--out", tmp_path / "plain", *SHORT).code == 0
    done = subprocess.run(
        [sys.executable, "-m", "cccad_train.cli", micro, "--out", tmp_path / "hostile", "--device", "cpu", *SHORT],
        env={**os.environ, **hostile},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plain, other = (only_run(tmp_path / name) for name in ("plain", "hostile"))
    bits = [(run / "policy" / "model.safetensors").read_bytes() for run in (plain, other)]
    assert bits[0] == bits[1]
    meta = (other / "meta.json").read_text(encoding="utf-8")
    assert '"threads": 1' in meta
    assert '"ACCELERATE_DYNAMO_BACKEND"' in meta


def test_without_a_launcher_what_launchers_set_is_set_aside(variables):
    variables.update(LAUNCHED, OMP_NUM_THREADS="7", NCCL_DEBUG="INFO", MKL_THREADING_LAYER="GNU")
    place = settle(num_threads=3)
    assert place.num_processes == 1
    assert variables.keys() & {"RANK", "WORLD_SIZE", "MASTER_ADDR"} == set()
    assert (variables["OMP_NUM_THREADS"], variables["NCCL_DEBUG"]) == ("3", "INFO")
    assert variables["MKL_THREADING_LAYER"] == "GNU"


@pytest.mark.parametrize(
    ("launched", "place", "address"),
    [
        (LAUNCHED, (1, 2), "127.0.0.1:2000"),
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "here", "MASTER_PORT": "1"}, (0, 1), None),
        ({"LOCAL_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, (0, 1), None),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
            (1, 2),
            "127.0.0.1:29500",
        ),
        (
            {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "20123"}
            | {"SLURM_STEP_NODELIST": "gpu[03-06,9]-ib,cpu1", "SLURM_STEP_NUM_NODES": "4"},
            (2, 4),
            "gpu03-ib:15123",
        ),
    ],
)
def test_the_module_takes_its_place_from_any_launcher(launched, place, address, variables):
    variables.update(launched)
    settled = settle(is_launchable=True)
    assert (settled.rank, settled.num_processes) == place
    measured = f"{variables['MASTER_ADDR']}:{variables['MASTER_PORT']}" if "MASTER_ADDR" in variables else None
    assert measured == address
    assert [name for name in variables if name.startswith(("OMPI", "PMI"))] == []


@pytest.mark.parametrize(
    ("launched", "message"),
    [
        ({"RANK": "1"}, "RANK=1 is set and WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is set and RANK is not"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "not MASTER_ADDR and MASTER_PORT"),
        (LAUNCHED | {"RANK": "2"}, "RANK must be 0 or more and below WORLD_SIZE: 2 of 2"),
        (LAUNCHED | {"RANK": "one"}, "RANK must be a whole number: 'one'"),
        (LAUNCHED | {"MASTER_PORT": ""}, "not MASTER_PORT"),
        (LAUNCHED | {"MASTER_PORT": "x"}, "MASTER_PORT must be a whole number: 'x'"),
        ({"ACCELERATE_DYNAMO_BACKEND": "NO", "MASTER_PORT": "29500"}, "asked for several processes and started one"),
    ],
)
def test_the_module_refuses_a_place_that_is_incomplete(launched, message, variables):
    variables.update(launched)
    with pytest.raises(LaunchError, match=re.escape(message)):
        settle(is_launchable=True)


def test_settings_of_accelerate_that_are_not_used_are_named(variables):
    variables.update(ACCELERATE_MIXED_PRECISION="fp16", ACCELERATE_USE_FSDP="true", ACCELERATE_USE_CPU="True")
    place = settle(is_launchable=True)
    assert place.notes[0].startswith("not used: mixed_precision = fp16, use_fsdp = true of accelerate; the spec says")
    assert place.wants_cpu


def test_processes_that_are_not_connected_and_devices_that_are_not_there_are_refused():
    with pytest.raises(LaunchError, match="finds no CUDA device"):
        build_accelerator("cuda")


def test_several_processes_of_a_launcher_start_no_more_of_them(micro):
    with pytest.raises(LaunchError, match="leave it out"):
        execute(Order(spec=micro, processes=2, place=Place(rank=1, num_processes=2)))


@pytest.mark.timeout(900)
def test_two_nodes_of_torchrun_end_with_the_weights_of_one_process(micro, cccad_run, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    ways = ["--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}"]
    launchers = [("torch.distributed.run", *ways, f"--node_rank={node}", "-m") for node in range(2)]
    nodes = [module(micro, "--out", tmp_path / "two", *SHORT, launcher=launcher) for launcher in launchers]
    assert cccad_run(micro, "--out", tmp_path / "one", *SHORT).code == 0
    printed = [node.communicate(timeout=600) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], printed
    assert sum(out.count("run: ") for out, _ in printed) == 1
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    assert max(abs(one[name] - two[name]).max() for name in one) < 1e-5


def test_accelerate_launches_the_module_with_a_ready_file(micro, tmp_path):
    file = Path(__file__).parents[3] / "experiments" / "accelerate" / "cpu.yaml"
    if not file.is_file():
        pytest.skip("the files lie in the repository, beside the packages")
    launcher = ("accelerate.commands.launch", "--config_file", str(file), "-m")
    done = module(micro, "--out", tmp_path, "--dry-run", launcher=launcher)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    assert "train-cad                to do" in out


def test_what_the_terminal_cannot_show_does_not_end_a_command():
    program = r"from cccad_train.cli import guarded; guarded(lambda: print('0.1 \u2013 0.2'))"
    assert ascii_only(program) == (0, b"0.1 ? 0.2\n")
    program = r"import sys; from cccad_data.cli import main; sys.exit(main(['info', 'v\xf6llig']))"
    assert ascii_only(program) == (2, b"")


def ascii_only(program):
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env={**os.environ, **POSIX_LOCALE}, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout
