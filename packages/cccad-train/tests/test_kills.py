"""Killed, asked to stop or halted at any moment of any stage, a run leaves no process behind and resumes to the bit."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import pytest
from attrs import frozen

SPEC = """
name = "micro"
env = { kind = "darkroom", size = 4, horizon = 8 }
controls = {}
[data]
source = { kind = "noisy-oracle", num_envs = 4, env_steps = 200, tasks_per_unit = 4 }
[policy]
width = 16
num_layers = 1
num_heads = 2
context = { window = 14 }
compressor = { kind = "gated-query", num_latents = 2, num_heads = 2 }
[pretrain]
num_updates = 12
num_writes = 1
targets_per_update = 96
checkpoint_every_updates = 5
log_every_updates = 2
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

pattern, count, delay_s, number, whom = os.environ.get("MOMENT", "|0|0|0|").split("|")
count = int(count)

def strike():
    owner = os.getppid()
    children = open(f"/proc/{owner}/task/{owner}/children").read().split()
    peers = [int(pid) for pid in children if int(pid) != os.getpid()]
    os.kill({"itself": os.getpid(), "its owner": owner, "a peer": (peers or [0])[0]}[whom], int(number))

def hook(event, arguments):
    global count
    if event not in ("open", "os.rename") or os.environ.get("RANK", "0") != "0":
        return
    path = arguments[0] if event == "open" else arguments[1]
    if isinstance(path, (str, os.PathLike)) and fnmatch(f"{event} {os.fspath(path)}", pattern):
        count -= 1
        if count == 0:
            threading.Timer(float(delay_s), strike).start() if float(delay_s) else strike()

if pattern and ("RANK" in os.environ or whom == "itself"):
    sys.addaudithook(hook)
"""

MOMENTS = {  # by stage: what happens to which file, for the how-many-th time, and how many seconds later
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
        ("os.rename */policy", 1, 0),
        ("open */policy/spec.toml", 1, 0.1),
        ("open */policy/spec.toml", 1, 0.3),
        ("os.rename */evaluation/results.json", 1, 0),
    ],
    "report": [
        ("open */evaluation/results.json", 1, 0),
        ("open */report.html", 1, 0.05),
        ("open */metrics.jsonl", 1, 0),
        ("* */micro-*/report.html*", 1, 0),
    ],
}


@frozen
class Ended:
    """How a command ended, within how many seconds of the blow, and what it said."""

    code: int
    out: str
    err: str


class Runs:
    """`cccad-run` of one spec into one folder, struck at moments."""

    def __init__(self, folder: Path, num_processes: int) -> None:
        self.folder, self.num_processes = folder, num_processes
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(HOOK)
        (folder / "spec.toml").write_text(SPEC)

    def start(self, out: str, moment=("", 0, 0), number: int = 0, whom: str = "itself") -> "subprocess.Popen[str]":
        path = os.pathsep.join([str(self.folder / "hook"), os.environ.get("PYTHONPATH", "")])
        pattern, count, delay_s = moment
        struck = {"MOMENT": f"{pattern}|{count}|{delay_s}|{int(number)}|{whom}", "PYTHONPATH": path}
        command = [sys.executable, "-m", "cccad_train", self.folder / "spec.toml", "--out", self.folder / out]
        options = ["--resume", "--device", "cpu", "--processes", str(self.num_processes)]
        return subprocess.Popen(
            [*map(str, command), *options], env={**os.environ, **struck}, text=True, stdout=-1, stderr=-1
        )

    def run(self, out: str, *struck) -> Ended:
        process = self.start(out, *struck)
        printed = process.communicate(timeout=240)
        return Ended(process.returncode, *printed)

    def living(self) -> list[str]:
        """Return the command lines of the processes that are still about, of those that belong to these runs."""
        found = []
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = place.read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(self.folder) in line:
                found.append(line)
        return found

    def is_left_alone(self, within_s: float = 3.0) -> bool:
        """Say whether all processes end soon."""
        end = time.monotonic() + within_s
        while self.living():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def outcome(self, out: str) -> tuple:
        """Return weights, numbers over time and results, without clocks."""
        [run] = (self.folder / out).glob("micro-*")
        rows = [json.loads(line) for line in (run / "metrics.jsonl").open(encoding="utf-8")]
        results = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
        for agent in results["agents"].values():
            agent.pop("actions_per_s", None)
        for row in rows:
            del row["time_s"]
        assert (run / "report.html").is_file()
        assert [path for path in (self.folder / out).rglob("*.partial") if path.is_file()] == []
        return (run / "policy" / "model.safetensors").read_bytes(), rows, results


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def runs(request, tmp_path):
    return Runs(tmp_path, request.param)


def spread(each: int) -> list[tuple[str, tuple]]:
    return [(stage, moment) for stage, moments in MOMENTS.items() for moment in moments[4 - each :]]


def show(name, whom, stage, moment, ended):
    last = "".join(ended.err.splitlines()[-1:])
    sys.stdout.write(f"{name} to {whom} in {stage}, {' '.join(map(str, moment))}: exit {ended.code} {last}\n")


def victims(num_processes: int):
    return cycle(["itself"] if num_processes == 1 else ["its owner", "itself", "a peer"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_spread_over_all_stages_leave_nothing_behind_and_change_nothing(runs):
    whole = runs.run("whole")
    assert whole.code == 0, whole.err
    for (stage, moment), whom in zip(spread(4), victims(runs.num_processes), strict=False):
        ended = runs.run("struck", moment, signal.SIGKILL, whom)
        show("SIGKILL", whom, stage, moment, ended)
        is_struck = runs.num_processes == 1 or whom == "its owner"
        assert ended.code == (-signal.SIGKILL if is_struck else 1), f"{stage} {moment}: {ended}"
        assert runs.is_left_alone(), runs.living()
        assert "Traceback" not in ended.err
    done = runs.run("struck")
    assert done.code == 0, done.err
    assert runs.outcome("struck") == runs.outcome("whole")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_asked_to_stop_at_ten_moments_it_says_what_is_kept_and_changes_nothing(runs, number):
    whole = runs.run("whole")
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
    assert whole.code == 0, whole.err
    assert runs.outcome("struck") == runs.outcome("whole")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_halted_and_continued_at_ten_moments_nothing_changes(runs):
    assert runs.run("whole").code == 0
    for number, (_, moment) in enumerate(spread(2)):
        process = runs.start(f"halted-{number}", moment, signal.SIGSTOP, "itself")
        halted = _halted(process, runs)
        time.sleep(0.5)
        os.kill(halted, signal.SIGCONT)
        printed = process.communicate(timeout=240)
        assert process.returncode == 0, printed
        assert runs.outcome(f"halted-{number}") == runs.outcome("whole")


def _halted(process, runs) -> int:
    """Return the process that halts, the run itself or one of its ranks."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (process.pid, *map(int, children)):
            if " T " in Path(f"/proc/{pid}/stat").read_text():
                return pid
        time.sleep(0.02)
    raise AssertionError(runs.living())
