"""`collecting/collection`: units, executors, resuming."""

import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import attrs
import pytest
from cccad_data import (
    CollectionError,
    Histories,
    InlineSpec,
    NoisyOracleSpec,
    ProcessesSpec,
    RandomSpec,
    SourceError,
    collect,
)
from cccad_data.families.toys import CorridorSpec

SPLIT = {"seed": 0, "held_out_frac": 0.2}


def gather(out, family=None, executor=None, seed=4, **kwargs):
    source = NoisyOracleSpec(num_envs=3, env_steps=100, tasks_per_unit=2).build()
    executor = executor or InlineSpec().build()
    return collect(family or CorridorSpec().build(), source, executor, out=out, split=SPLIT, seed=seed, **kwargs)


def test_several_processes_give_the_same_arrays_as_one(dataset, tmp_path, assert_same):
    other = gather(tmp_path / "other", executor=ProcessesSpec(num_workers=2).build())
    assert_same(dataset, other)


@attrs.frozen(kw_only=True)
class WithWrappersSpec(CorridorSpec):
    wrappers: tuple[str, ...] = ("one", "two")


def test_a_collection_goes_on_where_a_setting_of_the_family_is_a_tuple(tmp_path):
    for _ in range(2):
        gather(tmp_path / "d", family=WithWrappersSpec().build())
    assert Histories.open(tmp_path / "d").header["env"]["wrappers"] == ["one", "two"]


def test_units_that_are_there_are_not_collected_again(dataset):
    before = {path.name: path.stat().st_mtime_ns for path in (dataset / "shards").iterdir()}
    (dataset / "shards" / "unit-0001.h5").unlink()
    gather(dataset)
    after = {path.name: path.stat().st_mtime_ns for path in (dataset / "shards").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"unit-0001.h5"}


def test_a_shard_that_is_cut_off_is_collected_again(dataset, tmp_path, assert_same):
    shard = dataset / "shards" / "unit-0002.h5"
    shard.write_bytes(shard.read_bytes()[:2000])
    gather(dataset)
    assert_same(dataset, gather(tmp_path / "other"))


OWN_SOURCE = """
from attrs import frozen
from cccad_data.sources.uniform import Random, RandomSpec

@frozen(kw_only=True)
class OwnSpec(RandomSpec):
    def build(self):
        return Own(self)

class Own(Random):
    name = "own"
"""


def test_a_source_from_a_file_that_nothing_leads_to_reaches_other_processes(tmp_path, assert_same):
    (tmp_path / "own.py").write_text(OWN_SOURCE)
    module_spec = importlib.util.spec_from_file_location("own_1a2b3c4d", tmp_path / "own.py")
    module = sys.modules[module_spec.name] = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        source = module.OwnSpec(num_envs=2, env_steps=40, tasks_per_unit=2).build()
        outs = [
            collect(CorridorSpec().build(), source, spec.build(), out=tmp_path / name, split=SPLIT, seed=4)
            for name, spec in (("here", InlineSpec()), ("there", ProcessesSpec(num_workers=2)))
        ]
    finally:
        del sys.modules[module_spec.name]
    assert_same(*outs)


SLOW_COLLECTION = """
import sys, time
from cccad_data import InlineSpec, NoisyOracleSpec, ProcessesSpec, collect
from cccad_data.families.toys import CorridorSpec

def slowly(done, total):
    time.sleep(0.003)

if __name__ == "__main__":
    source = NoisyOracleSpec(num_envs=3, env_steps=100, tasks_per_unit=2).build()
    executor = {executor}.build()
    collect(CorridorSpec().build(), source, executor, out=sys.argv[1], split={split}, seed=4, progress=slowly)
"""


@pytest.mark.parametrize("executor", ["InlineSpec()", "ProcessesSpec(num_workers=1)"])
def test_a_collection_killed_half_way_resumes_to_the_same_arrays(tmp_path, executor, assert_same):
    out = tmp_path / "killed"
    script = tmp_path / "collect.py"
    script.write_text(SLOW_COLLECTION.format(split=SPLIT, executor=executor))
    process = subprocess.Popen([sys.executable, str(script), str(out)])
    deadline = time.monotonic() + 30
    while not (out / "shards" / "unit-0000.h5").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = [unit["done"] for unit in json.loads((out / "manifest.json").read_text())["units"]]
    assert not all(done), "the kill came too late to interrupt anything"
    gather(out)
    assert_same(out, gather(tmp_path / "whole"))
    assert not list(out.rglob("*.partial"))


def test_another_collection_in_the_same_folder_is_refused(dataset):
    with pytest.raises(CollectionError, match="holds another collection: its 'seed' is 4, not 5"):
        gather(dataset, seed=5)
    assert Histories.open(dataset).header["seed"] == 4


@pytest.mark.parametrize("executor", [InlineSpec(), ProcessesSpec(num_workers=2)])
def test_a_unit_that_fails_is_named_and_the_others_are_kept(tmp_path, executor):
    broken = CorridorSpec(breaks_on="corridor-7/goal-0").build()
    with pytest.raises(CollectionError) as error:
        gather(tmp_path / "set", family=broken, executor=executor.build())
    assert "1 of 3 units failed" in str(error.value)
    assert "corridor-7/goal-0" in str(error.value)
    assert "RuntimeError: the corridor of corridor-7/goal-0 has fallen in" in str(error.value)
    units = json.loads((tmp_path / "set" / "manifest.json").read_text())["units"]
    assert sum(unit["done"] for unit in units) == 2


DIES = """
import os, signal

def work(job, progress):
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    progress(job)
    return job * 10
"""


def test_a_worker_that_dies_loses_its_job_only(tmp_path, monkeypatch):
    (tmp_path / "work_that_dies.py").write_text(DIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    work = importlib.import_module("work_that_dies").work
    reports = []
    executor = ProcessesSpec(num_workers=2).build()
    outcomes = {one.index: one for one in executor.run(work, [0, 1, 2, 3], lambda i, done: reports.append((i, done)))}
    assert [outcomes[index].result for index in range(4)] == [0, None, 20, 30]
    assert "the worker process died with exit code -9" in outcomes[1].failure
    assert sorted(reports) == [(0, 0), (2, 2), (3, 3)]


def test_progress_reaches_the_total_whether_or_not_units_are_there_already(dataset, tmp_path):
    for out in (tmp_path / "new", dataset):
        reports = []
        gather(out, progress=lambda done, total, reports=reports: reports.append((done, total)))
        assert all(total == 6 * 3 * 100 for _, total in reports)
        assert [done for done, _ in reports] == sorted(done for done, _ in reports)
        if out != dataset:
            assert reports[-1] == (1800, 1800)


def test_fewer_tasks_are_a_prefix_of_the_split(tmp_path, corridor):
    few = Histories.open(gather(tmp_path / "few", max_tasks=3))
    split = corridor.split(**SPLIT)
    assert few.task_ids == tuple(task.task_id for task in split.train[:3])
    assert few.held_out_task_ids == tuple(task.task_id for task in split.held_out)


def test_a_source_that_cannot_play_the_family_says_so(tmp_path):
    with pytest.raises((CollectionError, SourceError), match="'env_steps' must be at least one episode"):
        gather(tmp_path / "set", family=CorridorSpec(horizon=200).build())


@pytest.mark.slow
def test_a_collection_killed_at_twenty_random_moments_resumes_to_the_same_bytes(tmp_path):
    script = tmp_path / "collect.py"
    script.write_text(SLOW_COLLECTION.format(split=SPLIT, executor="ProcessesSpec(num_workers=2)"))
    whole = gather(tmp_path / "whole")
    moments = random.Random(0)
    interrupted = 0
    for attempt in range(20):
        out = tmp_path / f"killed-{attempt}"
        process = subprocess.Popen([sys.executable, str(script), str(out)], start_new_session=True)
        while not (out / "manifest.json").exists():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 2))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        interrupted += not all(unit["done"] for unit in json.loads((out / "manifest.json").read_text())["units"])
        gather(out)
        names = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
        assert names == {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
        for name in names:
            assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert interrupted >= 10


@pytest.mark.parametrize("executor", [InlineSpec(), ProcessesSpec(num_workers=2)])
def test_a_full_disk_ends_in_one_clear_line_and_the_collection_goes_on_later(tmp_path, executor, assert_same):
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small file system needs the right to mount one")
    try:
        with pytest.raises(CollectionError) as error:
            gather(small / "set", family=CorridorSpec(size=30).build(), executor=executor.build())
        assert re.fullmatch(r".*\.(h5|json) cannot be written: No space left on device; finished.*", str(error.value))
        assert not list(small.rglob("*.partial"))
        done = [unit["done"] for unit in json.loads((small / "set" / "manifest.json").read_text())["units"]]
        assert 0 < sum(done) < len(done)
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        gather(small / "set", family=CorridorSpec(size=30).build(), executor=executor.build())
        assert_same(small / "set", gather(tmp_path / "whole", family=CorridorSpec(size=30).build()))
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("settings", [{"env_steps": 10**12}, {"num_envs": 10**12}])
def test_a_collection_that_memory_cannot_hold_is_refused_before_it_begins(tmp_path, settings):
    source = RandomSpec(**settings).build()
    with pytest.raises(CollectionError, match=r"need about [\d,]+ GB of memory; there are \d+: lower 'tasks_per_unit'"):
        collect(CorridorSpec().build(), source, InlineSpec().build(), out=tmp_path / "set", split=SPLIT, seed=0)
    assert not (tmp_path / "set").exists()
