"""`jobs/processes` and `jobs/ray`: lost workers and nodes change no file; crosses `collecting/collection`."""

import importlib
import sys
import time

import pytest
from cccad_data import CollectionError, Histories, InlineSpec, NoisyOracleSpec, ProcessesSpec, RaySpec, collect
from cccad_data.families.toys import CorridorSpec

SPLIT = {"seed": 0, "held_out_frac": 0.2}
SMALL = {"object_store_memory": 80 << 20}
DIES = """
import os, pathlib, signal

def work(job, progress):
    index, lives, folder = job
    tried = pathlib.Path(folder, str(index))
    tried.write_text(tried.read_text() + "x" if tried.exists() else "x")
    if len(tried.read_text()) <= lives:
        os.kill(os.getpid(), signal.SIGKILL)
    if index == 2:
        raise RuntimeError("this one is broken")
    return index * 10
"""


MARKED = """
import time
from pathlib import Path
from cccad_data.sources.noisy_oracle import NoisyOracle, NoisyOracleSpec

class MarkedSpec(NoisyOracleSpec):
    def build(self):
        return Marked(self)

class Marked(NoisyOracle):
    def collect(self, family, tasks, **more):
        with open(Path(__file__).with_name("marks"), "a") as marks:
            marks.write(tasks[0].task_id + "\\n")
        time.sleep(0.5)
        return super().collect(family, tasks, **more)
"""


def started(begin):
    """Return what *begin* returns; Ray gives its own start 30 seconds, too few on a machine that does much else."""
    for _ in range(2):
        try:
            return begin()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    pytest.skip("this machine is too busy to start Ray in 30 seconds")


def gather(out, executor, source=NoisyOracleSpec, size=7, env_steps=100, **more):
    built = source(num_envs=3, env_steps=env_steps, tasks_per_unit=1).build()
    return collect(CorridorSpec(size=size).build(), built, executor, out=out, split=SPLIT, seed=4, **more)


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Make a module of some text, which processes that are begun from now on can import too."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = []

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)
        return importlib.import_module(name)

    yield make
    for name in names:
        del sys.modules[name]


def assert_lost_jobs_are_begun_again(executor, module, folder):
    """Of four jobs one is done, one is killed once, one raises, one is killed whenever it is begun."""
    work = module("work_that_dies", DIES).work
    jobs = [(index, lives, str(folder)) for index, lives in enumerate((0, 1, 0, 99))]
    outcomes = {one.index: one for one in executor.run(work, jobs, lambda *_: None)}
    assert [outcomes[index].result for index in range(4)] == [0, 10, None, None]
    assert 'raise RuntimeError("this one is broken")' in outcomes[2].failure
    assert "died" in outcomes[3].failure
    assert [len((folder / str(index)).read_text()) for index in range(4)] == [1, 2, 1, 3]


def test_a_worker_that_dies_is_replaced_and_its_job_begun_again_so_often(module, tmp_path):
    assert_lost_jobs_are_begun_again(ProcessesSpec(num_workers=2).build(), module, tmp_path)


@pytest.mark.slow
def test_a_ray_cluster_of_this_machine_gives_the_same_files_as_one_process(tmp_path):
    ray = pytest.importorskip("ray")
    out = started(lambda: gather(tmp_path / "ray", RaySpec().build()))
    assert not ray.is_initialized()
    assert files(out) == files(gather(tmp_path / "inline", InlineSpec().build()))


@pytest.mark.slow
def test_a_node_that_is_lost_in_mid_work_loses_nothing(module, tmp_path):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    marked, long = module("marked", MARKED).MarkedSpec, {"size": 16, "env_steps": 500}
    head = {"num_cpus": 1, "include_dashboard": False, **SMALL}
    cluster = started(lambda: Cluster(initialize_head=True, head_node_args=head))
    try:
        nodes = [started(lambda: cluster.add_node(num_cpus=1, **SMALL))]
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        assert ray.cluster_resources()["CPU"] == 2

        def remove_a_node(done, total):
            if done > total / 4 and nodes:
                time.sleep(0.25)  # a unit takes twice as long: both nodes are in the middle of one
                cluster.remove_node(nodes.pop(), allow_graceful=False)

        out = gather(tmp_path / "ray", RaySpec(address="auto").build(), marked, progress=remove_a_node, **long)
        assert not nodes
        assert_lost_jobs_are_begun_again(RaySpec(address="auto").build(), module, tmp_path)
    finally:
        ray.shutdown()
        cluster.shutdown()
    begun = (tmp_path / "marks").read_text().split()
    assert set(begun) == set(Histories.open(out).task_ids)
    assert len(begun) > len(set(begun)), "no unit was lost with the node"
    assert files(out) == files(gather(tmp_path / "inline", InlineSpec().build(), **long))


@pytest.mark.parametrize("address", ["127.0.0.1:9", "auto", "nonsense"])
def test_an_address_without_a_cluster_is_one_clear_error(tmp_path, address):
    pytest.importorskip("ray")
    with pytest.raises(CollectionError, match=f"there is no Ray cluster at '{address}': "):
        gather(tmp_path / "set", RaySpec(address=address).build())


def test_without_ray_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CollectionError, match=r"install cccad-data\[ray\]"):
        gather(tmp_path / "set", RaySpec().build())
