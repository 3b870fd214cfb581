"""A run folder has one writer at a time: who comes second is told who writes, and changes nothing."""

import json
import multiprocessing
import os
import socket

import pytest
from cccad_data.histories.owner import OWNER, owned

TWICE = ["--set", "train.num_updates=40", "--set", "train.curriculum={ kind = 'none' }", "--set", "controls={}"]
TWICE += ["--set", "evaluate.memory_controls=false"]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != OWNER}


@pytest.mark.parametrize(
    "command", [["run"], ["run", "--processes", "2"], ["evaluate"], ["report"], ["memory-report"]], ids=" ".join
)
def test_who_comes_second_is_told_process_and_host_and_writes_nothing(command, copied_run, micro, cccad, cccad_run):
    before = contents(copied_run.parent)
    with owned(copied_run):
        if command[0] == "run":
            ended = cccad_run(micro, "--out", copied_run.parent, "--resume", *command[1:])
        else:
            ended = cccad(*command, copied_run)
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert f"{copied_run} is being written by process {os.getpid()} on {socket.gethostname()}" in ended.err
    assert contents(copied_run.parent) == before


def test_of_the_same_run_started_twice_at_once_one_writes_and_the_other_is_refused(
    micro, cccad_run, tmp_path, only_run
):
    fork = multiprocessing.get_context("fork")
    answers, both = fork.SimpleQueue(), fork.Barrier(2)

    def start():
        both.wait()
        answers.put(cccad_run(micro, "--out", tmp_path, *TWICE))

    processes = [fork.Process(target=start) for _ in range(2)]
    for process in processes:
        process.start()
    ended = sorted((answers.get() for _ in processes), key=lambda outcome: outcome.code)
    for process in processes:
        process.join()
    assert [outcome.code for outcome in ended] == [0, 2], ended
    assert f"{only_run(tmp_path)} is being written by process" in ended[1].err
    assert ended[1].err.count("\n") == 1
    rows = [json.loads(line) for line in (only_run(tmp_path) / "metrics.jsonl").open()]
    assert [row["update"] for row in rows if row["stage"] == "train-cad"] == list(range(1, 41))


def test_what_a_dead_writer_left_half_written_is_taken_away_by_the_next(copied_run, cccad):
    (copied_run / "report.html.12.partial").write_text("half")
    (copied_run / ".policy.partial").mkdir()
    (copied_run / ".policy.partial" / "spec.toml").write_text("half")
    (copied_run / OWNER).write_text("process 12 on a host that is off")
    ended = cccad("report", copied_run)
    assert ended.code == 0, ended.err
    assert not list(copied_run.rglob("*.partial"))
    assert not (copied_run / OWNER).exists()
