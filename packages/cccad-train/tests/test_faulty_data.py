"""A run does not train on given histories that cannot be true."""

import numpy as np
import pytest
from attrs import evolve
from cccad_data import Histories, InlineSpec, NoisyOracleSpec, collect, write_dataset
from cccad_envs.darkroom import DarkroomSpec


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Histories of the training tasks of the micro spec."""
    source = NoisyOracleSpec(num_envs=2, env_steps=80).build()
    out, split = tmp_path_factory.mktemp("given") / "sound", {"seed": 0, "held_out_frac": 0.1}
    family = DarkroomSpec(size=4, horizon=8).build()
    return collect(family, source, InlineSpec().build(), out=out, split=split, seed=0)


def swapped(first, second):
    return (
        evolve(first, task_id=second.task_id, params=second.params),
        evolve(second, task_id=first.task_id, params=first.params),
    )


def one_huge_reward(first, second):
    return evolve(first, rewards=np.where(np.arange(160) == 100, np.float32(1e30), first.rewards)), second


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swapped, ": the reward is "),
        (one_huge_reward, "history 1, env step 20: the reward is 1.0000000150474662e+30, beyond all measure of a task"),
    ],
)
def test_faulty_histories_are_refused_before_a_run_trains(collected, micro, cccad_run, tmp_path, change, words):
    histories = Histories.open(collected)
    tasks = (*change(*histories.tasks[:2]), *histories.tasks[2:])
    existing = write_dataset(tmp_path / "given", histories.header, tasks)
    ended = cccad_run(micro, "--out", tmp_path / "runs", "--set", f'data.path="{existing}"')
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith(f"{existing}, darkroom-4x4/goal-")
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert not list((tmp_path / "runs").rglob("checkpoints"))
