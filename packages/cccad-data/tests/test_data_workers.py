"""Workers that collect belong to the process that started them: they end with it, and a Ctrl-C is its own to answer."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COLLECTING = """
import sys
from cccad_data.jobs.processes import ProcessesSpec
from cccad_data.process import Stopped, stoppable
from slow_work import work

def main():
    try:
        with stoppable():
            list(ProcessesSpec(num_workers=2).build().run(work, [0, 1], lambda *_: print("working", flush=True)))
    except Stopped as stop:
        sys.exit(stop.code)

if __name__ == "__main__":
    main()
"""
WORK = """
import time
def work(job, progress):
    progress(1)
    time.sleep(600)
"""


def start(folder):
    (folder / "slow_work.py").write_text(WORK)
    program = folder / "collecting.py"
    program.write_text(COLLECTING)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert [process.stdout.readline() for _ in range(2)] == ["working\n"] * 2
    return process


def have_ended(pids, within_s=5.0):
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path):
    process = start(tmp_path)
    workers = children(process)
    assert len(workers) >= 2
    process.kill()
    process.communicate()
    assert have_ended(workers)


def test_a_ctrl_c_ends_all_of_them_without_a_traceback(tmp_path):
    process = start(tmp_path)
    workers = children(process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert have_ended(workers)
