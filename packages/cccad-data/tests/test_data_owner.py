"""`histories/owner`: one writer at a time; crosses collection and merging."""

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from cccad_data import (
    FolderInUseError,
    Histories,
    InlineSpec,
    NoisyOracleSpec,
    StorageError,
    collect,
    owned,
    owner_of,
)
from cccad_data.families.toys import CorridorSpec
from cccad_data.histories import owner
from cccad_data.histories.merging import write_dataset
from cccad_data.histories.shards import whole_file

COLLECTION = """
import sys, time
from cccad_data import InlineSpec, NoisyOracleSpec, collect
from cccad_data.families.toys import CorridorSpec

source = NoisyOracleSpec(num_envs=2, env_steps=40, tasks_per_unit=2).build()
split = {"seed": 0, "held_out_frac": 0.2}
slowly = lambda done, total: time.sleep(0.01)
collect(CorridorSpec().build(), source, InlineSpec().build(), out=sys.argv[1], split=split, seed=4, progress=slowly)
"""
HOLDER = """
import sys, time
from pathlib import Path
from cccad_data.histories.owner import owned
from cccad_data.histories.shards import whole_file

folder = Path(sys.argv[1])
with owned(folder), whole_file(folder / "shards" / "unit-0000.h5") as file:
    file.write(b"half")
    file.flush()
    print("owns", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that owns tmp_path/set, and has half written a shard there."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "set")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "owns\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def gather(out, **kwargs):
    source = NoisyOracleSpec(num_envs=2, env_steps=40, tasks_per_unit=2).build()
    split = {"seed": 0, "held_out_frac": 0.2}
    return collect(CorridorSpec().build(), source, InlineSpec().build(), out=out, split=split, seed=4, **kwargs)


def test_who_comes_second_is_told_which_process_writes_where_and_since_when(holder, tmp_path):
    with pytest.raises(FolderInUseError) as error, owned(tmp_path / "set"):
        pass
    who = rf"process {holder.pid} on \S+ since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    right = rf"{re.escape(str(tmp_path / 'set'))} is being written by {who}; wait for it or choose another folder"
    assert re.fullmatch(right, str(error.value))
    assert re.fullmatch(who, owner_of(tmp_path / "set"))


def test_a_lock_does_not_outlive_a_kill(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "set" / ".owner").is_file()
    assert owner_of(tmp_path / "set") == ""
    with owned(tmp_path / "set"):
        assert f"process {os.getpid()} on " in owner_of(tmp_path / "set")
    assert not (tmp_path / "set" / ".owner").exists()


def test_what_a_living_process_writes_stays_and_what_a_dead_one_left_goes(holder, tmp_path):
    with owned(tmp_path / "other"):
        (tmp_path / "set" / ".owner").rename(tmp_path / "elsewhere")  # as if it had lost its lock, not its life
        gather(tmp_path / "set")
        (living,) = (tmp_path / "set").rglob("*.partial")
        assert str(holder.pid) in living.name
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        gather(tmp_path / "set")
    assert not list((tmp_path / "set").rglob("*.partial"))


def test_partial_files_that_are_not_of_a_dataset_are_none_of_a_collections_business(tmp_path):
    (tmp_path / "set" / "mine").mkdir(parents=True)
    (tmp_path / "set" / "mine" / "film.partial").write_text("mine")
    (tmp_path / "set" / "film.partial").write_text("mine")
    gather(tmp_path / "set")
    assert (tmp_path / "set" / "mine" / "film.partial").read_text() == "mine"
    assert (tmp_path / "set" / "film.partial").read_text() == "mine"


def test_of_two_collections_at_once_the_second_waits_says_so_and_finds_all_done(tmp_path, caplog):
    calls = {"first": 0, "second": 0}
    begun = threading.Event()

    def slowly(name):
        def progress(done, total):
            calls[name] += done < total
            begun.set()
            time.sleep(0.02)

        return progress

    with caplog.at_level(logging.WARNING, logger="cccad_data.histories.owner"):
        first = threading.Thread(target=gather, args=(tmp_path / "set",), kwargs={"progress": slowly("first")})
        first.start()
        begun.wait()
        gather(tmp_path / "set", progress=slowly("second"))
        first.join()
    assert calls["first"] > 10
    assert calls["second"] == 0
    (record,) = caplog.records
    assert re.fullmatch(r".*set is being written by process \d+ on .*; waiting for it", record.getMessage())
    assert len(Histories.open(tmp_path / "set")) == 6
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"manifest.json", "shards"}


def test_many_that_want_a_folder_own_it_one_after_the_other(tmp_path):
    inside, most = [], []

    def work():
        with owned(tmp_path / "set", wait=True):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


@pytest.mark.parametrize("taken", ["file", "link"])
def test_a_folder_that_cannot_be_owned_is_refused_in_one_sentence(tmp_path, taken):
    if taken == "file":
        (tmp_path / "set").write_text("a file")
    else:
        (tmp_path / "set").mkdir()
        (tmp_path / "victim").write_text("precious")
        (tmp_path / "set" / ".owner").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError, match="set cannot be written: ") as error, owned(tmp_path / "set"):
        pass
    assert "\n" not in str(error.value)
    assert taken == "file" or (tmp_path / "victim").read_text() == "precious"


def test_an_owner_that_the_file_names_cannot_reach_the_terminal_with_control_characters(tmp_path):
    with owned(tmp_path / "set"):
        (tmp_path / "set" / ".owner").write_bytes(b"\x1b[2J\xff" + b"x" * 10_000)
        assert owner_of(tmp_path / "set").isprintable()
        assert len(owner_of(tmp_path / "set")) <= 200


def test_a_write_that_fails_leaves_the_earlier_file_and_no_other(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"old": 1}))
    with pytest.raises(TypeError), whole_file(tmp_path / "a.json") as file:
        file.write("text where bytes belong")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}


def test_a_dataset_that_a_killed_import_left_half_written_is_taken_away_by_the_next(tmp_path, dataset):
    histories = Histories.open(dataset)
    left, living = tmp_path / "new.host.1.partial", tmp_path / "new.host.2.partial"
    for folder in (left, living):
        folder.mkdir()
        (folder / ".owner").write_text("process 1 on host")
    with owned(living):
        write_dataset(tmp_path / "new", histories.header, histories)
        assert living.is_dir()
    assert not left.exists()
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"manifest.json", "shards"}


def test_where_a_file_system_has_no_locks_a_folder_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    def flock(_descriptor, _operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(owner.fcntl, "flock", flock)
    gather(tmp_path / "set")
    assert "this file system has no locks; see that only one process at a time writes here" in caplog.text
    assert len(Histories.open(tmp_path / "set")) == 6
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"manifest.json", "shards"}


def test_two_processes_that_collect_the_same_set_at_once_both_find_it_whole(tmp_path):
    command = [sys.executable, "-c", COLLECTION, str(tmp_path / "set")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert all(re.fullmatch(r"(.* is being written by process .*; waiting for it\n)*", text) for text in said)
    names = {str(path.relative_to(tmp_path / "set")) for path in (tmp_path / "set").rglob("*") if path.is_file()}
    assert names == {"manifest.json", *(f"shards/unit-000{unit}.h5" for unit in range(3))}
    assert len(Histories.open(tmp_path / "set")) == 6
