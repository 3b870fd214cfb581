"""Killed, asked to stop or halted at any moment of any stage, a run leaves no process behind and resumes to the bit."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attrs import frozen
from safetensors.numpy import load

SPEC = """
name = "micro"
env = { kind = "darkroom", size = 4, horizon = 8 }
controls = {}
[data]
source = { kind = "noisy-oracle", num_envs = 4, env_steps = 200, tasks_per_unit = 4 }
[policy]
width = 16

[policy.memory]
kind = "compressed"
window = 14
num_layers = 1
num_heads = 2
compressor = { kind = "gated-query", num_latents = 2, num_heads = 2 }
[pretrain]
num_updates = 40
num_writes = 1
targets_per_update = 96
checkpoint_every_updates = 10
log_every_updates = 7
[train]
num_updates = 30
num_writes = 2
targets_per_update = 384
checkpoint_every_updates = 10
log_every_updates = 3
[evaluate]
num_episodes = 12
num_replicas = 2
memory_controls = false
"""

HOOK = """
import os, sys, threading
from fnmatch import fnmatch

moments = [moment.split("|") for moment in os.environ.get("MOMENTS", "").splitlines()]
left = [int(moment[1]) for moment in moments]

def strike(number, whom):
    owner = os.getppid()
    children = open(f"/proc/{owner}/task/{owner}/children").read().split()
    peers = [int(pid) for pid in children if int(pid) != os.getpid()]
    os.kill({"itself": os.getpid(), "its owner": owner, "a peer": (peers or [0])[0]}[whom], int(number))

def hook(event, arguments):
    if event not in ("open", "os.rename") or os.environ.get("RANK", "0") != "0":
        return
    path = arguments[0] if event == "open" else arguments[1]
    for index, (pattern, _, delay_s, *blow) in enumerate(moments):
        if isinstance(path, (str, os.PathLike)) and fnmatch(f"{event} {os.fspath(path)}", pattern):
            left[index] -= 1
            if left[index] == 0:
                threading.Timer(float(delay_s), strike, blow).start() if float(delay_s) else strike(*blow)

if moments and ("RANK" in os.environ or moments[0][-1] == "itself"):
    sys.addaudithook(hook)
"""

Moment = tuple[str, int, float]
MOMENTS: dict[
    str, list[Moment]
] = {  # by stage: what happens to which file, for the how-many-th time, and how many seconds later
    "collect": [
        ("os.rename */data/*/manifest.json", 1, 0),
        ("os.rename */shards/unit-0001.h5", 1, 0),
        ("open */shards/unit-0002.h5*.partial", 1, 0),
        ("os.rename */stages.json", 1, 0),
    ],
    "pretrain": [
        ("open */metrics.jsonl", 3, 0),
        ("open */pretrain-cad/.update_*.partial/state.pt", 1, 0),
        ("os.rename */pretrain-cad/latest", 1, 0),
        ("os.rename */stages.json", 2, 0),
    ],
    "train": [
        ("open */metrics.jsonl", 3, 0),
        ("os.rename */train-cad/update_10", 1, 0),
        ("open */metrics.jsonl", 4, 0.02),
        ("os.rename */train-cad/latest", 1, 0),
    ],
    "evaluate": [
        ("open */train-cad/update_*/state.pt", 1, 0.1),
        ("open */train-cad/update_*/state.pt", 1, 0.3),
        ("os.rename */evaluation/results.json", 1, 0),
        ("os.rename */policy", 1, 0),
    ],
    "report": [
        ("open */evaluation/results.json", 1, 0),
        ("open */templates/report.html", 1, 0.05),
        ("open */templates/report.html", 1, 0),
        ("* */micro-*/report.html*", 1, 0),
    ],
}
HALTS: list[Moment] = [  # of one run from its beginning to its end
    *(MOMENTS["collect"][1], MOMENTS["collect"][3], *(("open */metrics.jsonl", count, 0) for count in (3, 6, 10, 16))),
    *(MOMENTS["train"][1], MOMENTS["evaluate"][0], MOMENTS["evaluate"][3], MOMENTS["report"][0]),
]


@frozen
class Ended:
    """How a command ended, within how many seconds of the blow, and what it said."""

    code: int
    out: str
    err: str


class Runs:
    """`cccad-run` of one spec into one folder, struck at moments."""

    def __init__(self, folder: Path, num_processes: int) -> None:
        self.folder, self.num_processes, self.spec = folder, num_processes, folder / "spec.toml"
        (folder / "hook").mkdir(exist_ok=True)
        (folder / "hook" / "sitecustomize.py").write_text(HOOK)
        self.spec.write_text(SPEC)

    def start(self, out: str, moments=(), number: int = 0, whom: str = "itself") -> "subprocess.Popen[str]":
        path = os.pathsep.join([str(self.folder / "hook"), os.environ.get("PYTHONPATH", "")])
        answer = [f"{pattern}|{count}|{delay_s}|{int(number)}|{whom}" for pattern, count, delay_s in moments]
        command = [sys.executable, "-m", "cccad_train", self.spec, "--out", self.folder / out]
        options = ["--resume", "--device", "cpu", "--processes", str(self.num_processes)]
        environment = {**os.environ, "MOMENTS": "\n".join(answer), "PYTHONPATH": path}
        return subprocess.Popen([*map(str, command), *options], env=environment, text=True, stdout=-1, stderr=-1)

    def run(self, out: str, moment=(), *struck) -> Ended:
        """Run to the end, or to the moment at which it is struck."""
        process = self.start(out, [moment] if moment else [], *struck)
        printed = process.communicate(timeout=600)
        return Ended(process.returncode, *printed)

    def living(self) -> list[str]:
        """Return the command lines of the processes that are still about, of those that belong to these runs."""
        measured = []
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = place.read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(self.folder) in line:
                measured.append(line)
        return measured

    def is_left_alone(self, within_s: float = 3.0) -> bool:
        """Say whether all processes end soon."""
        end = time.monotonic() + within_s
        while self.living():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True


def only(out: Path) -> Path:
    """Return the run under *out*."""
    [run] = out.glob("micro-*")
    return run


def outcome(run: Path) -> tuple[bytes, object, object]:
    """Return weights, numbers over time and results, without clocks; nothing half-written is there."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").open(encoding="utf-8")]
    results = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
    for agent in results["agents"].values():
        agent.pop("actions_per_s", None)
    for row in rows:
        del row["time_s"]
    assert (run / "report.html").is_file()
    assert [path for path in run.parent.rglob("*.partial") if path.is_file()] == []
    return (run / "policy" / "model.safetensors").read_bytes(), rows, results


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def whole(request, tmp_path_factory):
    """A run that nobody touched."""
    runs = Runs(tmp_path_factory.mktemp("whole"), request.param)
    ended = runs.run("out")
    assert ended.code == 0, ended.err
    return runs


@pytest.fixture
def runs(whole, tmp_path):
    """Runs of as many processes, to be struck."""
    return Runs(tmp_path, whole.num_processes)


def spread(each: int) -> list[tuple[str, Moment]]:
    return [(stage, moment) for stage, moments in MOMENTS.items() for moment in moments[4 - each :]]


def show(name, whom, stage, moment, ended):
    last = "".join(ended.err.splitlines()[-1:])
    sys.stdout.write(f"{name} to {whom} in {stage}, {' '.join(map(str, moment))}: exit {ended.code} {last}\n")
    sys.stdout.flush()


def victims(num_processes: int) -> list[str]:
    """Return whom each of the twenty kills hits; without a peer the others may still finish what they do alone."""
    if num_processes == 1:
        return ["itself"] * 20
    return ["its owner", "itself", "its owner", "a peer"] * 4 + ["its owner", "itself"] * 2


def test_asked_to_stop_between_two_checkpoints_it_loses_no_update_and_no_bit(cccad_run, tmp_path):
    runs = Runs(tmp_path, 1)
    stopped = runs.run("struck", ("open */metrics.jsonl", 2, 0.03), signal.SIGTERM)
    assert stopped.code == 143
    said = re.search(r"stopped by SIGTERM after update (\d+ of \d+) of pretrain-cad, which is saved; --re", stopped.err)
    assert said, stopped.err
    resumed = cccad_run(runs.spec, "--out", tmp_path / "struck", "--resume")
    assert f"pretrain-cad: going on from update {said[1]}" in resumed.out
    assert cccad_run(runs.spec, "--out", tmp_path / "whole").code == 0
    assert outcome(only(tmp_path / "struck")) == outcome(only(tmp_path / "whole"))


@pytest.mark.timeout(600)
def test_several_processes_are_one_to_those_who_stop_or_kill_them(cccad_run, tmp_path):
    runs = Runs(tmp_path, 2)
    killed = runs.run("struck", MOMENTS["collect"][1], signal.SIGKILL, "its owner")
    assert killed.code == -signal.SIGKILL
    assert runs.is_left_alone(), runs.living()
    lost = runs.run("struck", MOMENTS["pretrain"][0], signal.SIGKILL, "a peer")
    assert (lost.code, lost.err.splitlines()[-1].partition(";")[0]) == (
        1,
        "process 1 of 2 was killed by SIGKILL, as the system does when memory runs out",
    )
    stopped = runs.run("struck", MOMENTS["train"][0], signal.SIGINT, "its owner")
    assert stopped.code == 130
    said = stopped.err.splitlines()[-1]
    assert re.fullmatch(r"stopped by SIGINT after update \d+ of \d+ of \w*train-cad, which is saved; .*", said)
    assert runs.is_left_alone(), runs.living()
    assert "Traceback" not in killed.err + lost.err + stopped.err
    assert runs.run("struck").code == 0
    assert cccad_run(runs.spec, "--out", tmp_path / "alone").code == 0
    together, one = (load(outcome(only(tmp_path / out))[0]) for out in ("struck", "alone"))
    assert together.keys() == one.keys()
    assert max(abs(together[name] - one[name]).max() for name in one) < 1e-5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_spread_over_all_stages_leave_nothing_behind_and_change_nothing(runs, whole):
    for (stage, moment), whom in zip(spread(4), victims(runs.num_processes), strict=True):
        ended = runs.run("struck", moment, signal.SIGKILL, whom)
        show("SIGKILL", whom, stage, moment, ended)
        is_struck = runs.num_processes == 1 or whom == "its owner"
        assert ended.code == (-signal.SIGKILL if is_struck else 1), f"{stage} {moment}: {ended}"
        assert runs.is_left_alone(), runs.living()
        assert "Traceback" not in ended.err
    done = runs.run("struck")
    assert done.code == 0, done.err
    assert outcome(only(runs.folder / "struck")) == outcome(only(whole.folder / "out"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_at_ten_moments_it_says_what_is_kept_and_changes_nothing(runs, whole, number):
    for stage, moment in spread(2):
        whom = "itself" if runs.num_processes == 1 else "its owner"
        ended = runs.run("struck", moment, number, whom)
        show(number.name, whom, stage, moment, ended)
        assert ended.code == 128 + number, f"{stage} {moment}: {ended}"
        assert runs.is_left_alone(), runs.living()
        assert f"stopped by {number.name}" in ended.err.splitlines()[-1]
        assert "--resume" in ended.err
        assert "Traceback" not in ended.err
    done = runs.run("struck")
    assert done.code == 0, done.err
    assert outcome(only(runs.folder / "struck")) == outcome(only(whole.folder / "out"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_halted_and_continued_at_ten_moments_nothing_changes(runs, whole):
    process, num_halts = runs.start("struck", HALTS, signal.SIGSTOP, "itself"), 0
    while process.poll() is None:
        for pid in halted(process.pid):
            time.sleep(0.3)
            num_halts += 1
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.02)
    printed = process.communicate()
    assert process.returncode == 0, printed
    sys.stdout.write(f"SIGSTOP and SIGCONT, {num_halts} times: exit {process.returncode}\n")
    assert num_halts >= len(HALTS)
    assert outcome(only(runs.folder / "struck")) == outcome(only(whole.folder / "out"))


def halted(owner: int) -> list[int]:
    """Return the processes that halt, of the run and its ranks."""
    try:
        pids = [owner, *map(int, Path(f"/proc/{owner}/task/{owner}/children").read_text().split())]
        return [pid for pid in pids if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"]
    except OSError:  # one has ended
        return []
