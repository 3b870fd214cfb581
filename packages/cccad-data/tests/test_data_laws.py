"""A task family that breaks what collection and evaluation rely on is told which law it breaks."""

from types import SimpleNamespace

import numpy as np
import pytest
from cccad_data.errors import DataError
from cccad_data.laws import LawBrokenError, check_family, check_source
from cccad_data.sources.noisy_oracle import NoisyOracleSpec
from cccad_data.testing import Corridor, CorridorSpec, CorridorVec


def family_of(base=Corridor, rows=None, **changes):
    """Return a corridor whose attributes, and whose worlds' methods, are changed."""
    kind = type("Changed", (base,), changes)
    spec = SimpleNamespace(size=7, horizon=8, ends_on_goal=False, breaks_on="", build=lambda: kind(CorridorSpec()))
    family = kind(CorridorSpec())
    family.spec = spec
    if rows is not None:
        worlds = type("Worlds", (CorridorVec,), rows)
        family.make_vec = lambda tasks: worlds(CorridorSpec(), np.array([task.params["goal"] for task in tasks]))
    return family


@pytest.mark.parametrize("is_quick", [True, False])
def test_an_honest_family_keeps_all_laws(is_quick):
    check_family(family_of(), is_quick=is_quick)


def _same_ids(self, spec):
    Corridor.__init__(self, spec)
    self.tasks = (self.tasks[0], *self.tasks[:-1])


def _other_ids(self, spec):
    Corridor.__init__(self, spec)
    self.tasks = tuple(SimpleNamespace(task_id=f"{task.task_id}-{id(self)}", params={}) for task in self.tasks)
    self.task = {task.task_id: task for task in self.tasks}.__getitem__


def _with_set(self, spec):
    Corridor.__init__(self, spec)
    self.tasks = tuple(SimpleNamespace(task_id=task.task_id, params={"goal": {1}}) for task in self.tasks)


def _overlapping(self, **_):
    return SimpleNamespace(train=self.tasks, held_out=self.tasks[:2])


def _by_chance(self, *, held_out_frac, **_):
    parts = Corridor.split(self, int(np.random.default_rng().integers(10**9)), held_out_frac)
    return SimpleNamespace(train=parts.train, held_out=parts.held_out)


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"split": property(lambda _: getattr(0, "x"))}, "a family is whole"),  # noqa: B009
        ({"__init__": _same_ids}, "tasks are told apart"),
        ({"__init__": _other_ids}, "ids are stable"),
        ({"__init__": _with_set}, "task parameters are scalars"),
        ({"split": _overlapping}, "a split is disjoint and complete"),
        ({"split": _by_chance}, "a split follows from its seed"),
        ({"optimal_returns": lambda _, tasks: np.zeros(len(tasks))}, "declared returns"),
        ({"random_returns": lambda _, tasks: np.full(len(tasks), np.nan)}, "declared returns"),
        ({"random_returns": lambda *_: 0.0}, "declared returns"),
    ],
)
def test_a_family_that_breaks_a_law_is_told_which(changes, law):
    with pytest.raises(LawBrokenError, match=f"law '{law}' is broken"):
        check_family(family_of(**changes), is_quick=True)


def _rows(change):
    """Return a `step` that changes what the corridor's own returns."""

    def step(self, actions):
        return change(*CorridorVec.step(self, actions))

    return {"step": step}


def _no_end(observations, rewards, terminations, truncations, infos):
    return observations, rewards, terminations, truncations & False, infos


def _mixed(observations, rewards, *rest):
    return observations, rewards + observations.sum(), *rest


def _noise(observations, rewards, *rest):
    return observations, rewards + np.random.default_rng().random(), *rest


def _outside(observations, *rest):
    return observations + np.int64(300), *rest


def _whole_reset(self, *, seed=None, **_):
    return CorridorVec.reset(self, seed=seed)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_rows(_no_end), "law 'episodes end' is broken"),
        (_rows(_mixed), "law 'rows do not mix' is broken: rewards"),
        (_rows(_noise), "law 'the same seed gives the same episodes' is broken: rewards"),
        (_rows(_outside), "observation"),
        ({"reset": _whole_reset}, "law 'rows are reset apart' is broken"),
    ],
)
def test_worlds_that_break_a_law_are_told_which(rows, message):
    with pytest.raises(DataError, match=message):
        check_family(family_of(rows=rows), is_quick=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [("optimal_returns", "its optimal policy earned 6 a piece"), ("random_returns", "a random policy earned")],
)
def test_declared_returns_that_playing_contradicts_break_a_law(name, message):
    honest = getattr(Corridor, name)
    shifted = {name: lambda self, tasks: honest(self, tasks) + (3.0 if name == "optimal_returns" else -3.0)}
    check_family(family_of(**shifted), is_quick=True)  # it takes more episodes to see
    with pytest.raises(LawBrokenError, match=f"that the family declares is contradicted on 2 of 2 tasks.*{message}"):
        check_family(family_of(**shifted))


def test_an_honest_source_keeps_all_laws():
    check_source(NoisyOracleSpec(num_envs=3, env_steps=40), family_of())
