"""What all sources share (`sources/unit`), and that executors change nothing; crosses every source and `jobs`."""

from importlib.metadata import entry_points
from importlib.util import find_spec

import attrs
import numpy as np
import pytest
from cccad_data import (
    ExpertSpec,
    InlineSpec,
    NoisyOracleSpec,
    PPOSpec,
    ProcessesSpec,
    QLearningSpec,
    RandomSpec,
    SB3Spec,
    SourceError,
    ThompsonSpec,
    UCBSpec,
    collect,
)
from cccad_data.families.toys import CorridorSpec, LeversSpec, TrackSpec
from cccad_data.histories import shards

LIFE = {"num_envs": 3, "env_steps": 48}
LEVERS, CORRIDOR, TRACK = LeversSpec(horizon=16), CorridorSpec(ends_on_goal=True), TrackSpec()
PAIRS = {
    "ucb": (UCBSpec(**LIFE), LEVERS),
    "thompson": (ThompsonSpec(**LIFE), LEVERS),
    "random": (RandomSpec(**LIFE), CORRIDOR),
    "random in a box": (RandomSpec(**LIFE), TRACK),
    "random by chance": (RandomSpec(**LIFE), LEVERS),
    "q-learning by ucb": (QLearningSpec(**LIFE), CORRIDOR),
    "q-learning by epsilon": (QLearningSpec(exploration="epsilon", **LIFE), LEVERS),
    "noisy-oracle": (NoisyOracleSpec(**LIFE), LEVERS),
    "ppo": (PPOSpec(n_steps=16, batch_size=16, n_epochs=2, **LIFE), LEVERS),
    "ppo in a box": (PPOSpec(n_steps=16, batch_size=16, n_epochs=2, **LIFE), TRACK),
}
NUMPY = [name for name in PAIRS if not name.startswith("ppo")]
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="the ppo source needs torch (extra 'rl')")
ALL = [pytest.param(name, marks=[] if name in NUMPY else needs_torch) for name in PAIRS]


def same(one, other, atol=0.0):
    return all(
        array.dtype == twin.dtype and array.shape == twin.shape and np.allclose(array, twin, rtol=0.0, atol=atol)
        for array, twin in zip(one.arrays().values(), other.arrays().values(), strict=True)
    )


@pytest.mark.parametrize("name", ALL)
def test_a_task_has_the_same_arrays_alone_and_among_others(name):
    spec, family = PAIRS[name][0], PAIRS[name][1].build()
    together = spec.build().collect(family, family.tasks, seed=3)
    backwards = spec.build().collect(family, family.tasks[::-1], seed=3)[::-1]
    (alone,) = spec.build().collect(family, family.tasks[2:3], seed=3)
    (other,) = spec.build().collect(family, family.tasks[2:3], seed=4)
    atol = 1e-4 if name == "ppo in a box" else 0.0  # batched products of another size round differently
    assert same(together[2], alone, atol)
    assert all(same(*pair, atol) for pair in zip(together, backwards, strict=True))
    assert not same(other, alone)


@pytest.mark.parametrize("name", ALL)
def test_histories_of_a_task_differ_from_one_another(name):
    spec, family = PAIRS[name][0], PAIRS[name][1].build()
    for task in spec.build().collect(family, family.tasks, seed=0):
        assert len({life.actions.tobytes() for life in task}) == spec.num_envs


def test_executors_give_the_same_arrays(tmp_path):
    spec, family = QLearningSpec(tasks_per_unit=2, **LIFE), LEVERS.build()
    sets = []
    for name, executor in (("inline", InlineSpec()), ("processes", ProcessesSpec(num_workers=2))):
        out = collect(family, spec.build(), executor.build(), out=tmp_path / name, split={"seed": 0}, seed=0)
        sets.append([shards.read_header(shard)["tasks"] for shard in sorted(out.glob("shards/*.h5"))])
        sets[-1] += [shard.read_bytes() for shard in sorted(out.glob("shards/*.h5"))]
    assert len(sets[0]) == 4
    assert sets[0] == sets[1]


@pytest.mark.parametrize("name", [each for each in ALL if "box" not in each.values[0]])
def test_optimal_actions_are_kept_where_they_are_asked_for(name):
    spec, family = PAIRS[name][0], PAIRS[name][1].build()
    kept, left_out = (attrs.evolve(spec, store_optimal_actions=choice).build() for choice in (True, False))
    (task,) = kept.collect(family, family.tasks[2:3], seed=0)
    best = family.make_vec(family.tasks[2:3])
    for before, action in zip(task.observations[:30], task.optimal_actions[:30], strict=True):
        best.places[:] = before
        assert action == best.optimal_actions()[0]
    (without,) = left_out.collect(family, family.tasks[2:3], seed=0)
    assert without.optimal_actions is None
    assert without.actions.tobytes() == task.actions.tobytes()


def test_optimal_actions_that_nobody_knows_are_refused():
    family = TRACK.build()
    with pytest.raises(SourceError, match="'store_optimal_actions' needs them, and family 'track' knows none"):
        RandomSpec(store_optimal_actions=True, **LIFE).build().collect(family, family.tasks, seed=0)
    with pytest.raises(SourceError, match="noisy-oracle needs a 'policy' file: family 'track' knows no optimal"):
        NoisyOracleSpec(store_optimal_actions=False, **LIFE).build().collect(family, family.tasks, seed=0)


@pytest.mark.parametrize("name", NUMPY)
def test_histories_hold_true_last_observations(name):
    spec, family = PAIRS[name][0], PAIRS[name][1].build()
    for task in spec.build().collect(family, family.tasks, seed=0):
        if family.name == "corridor":
            following = task.next_observations()
            assert (family.next_observations(task, task.observations, task.actions) == following).all()
        assert (np.diff(task.episode_ends, prepend=0) <= family.horizon).all()


@needs_torch
def test_every_source_is_registered_by_its_name():
    offers = {
        entry.name: entry.load() for entry in entry_points(group="cccad.source") if entry.dist.name == "cccad-data"
    }
    specs = (ExpertSpec, NoisyOracleSpec, PPOSpec, QLearningSpec, RandomSpec, SB3Spec, ThompsonSpec, UCBSpec)
    assert set(offers.values()) == set(specs)
    needed = {"expert": {"expert": "math:dist"}}
    assert all(spec(**needed.get(name, {})).build().name == name for name, spec in offers.items())
