"""A task family that breaks what collection, training and evaluation rely on is told which law it breaks."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from attrs import frozen
from cccad_data.errors import DataError
from cccad_data.families.laws import check_family
from cccad_data.families.toys import Corridor, CorridorSpec, CorridorTask, CorridorVec, Levers, LeversSpec
from cccad_data.laws import LawBrokenError

COUNT = itertools.count()


@frozen(kw_only=True)
class PlantedSpec(CorridorSpec):
    """A corridor with one bug, by name."""

    bug: str

    def build(self):
        return BUGS[self.bug](self)


def with_tasks(family, tasks):
    family.tasks = tuple(tasks)
    family.task = {task.task_id: task for task in tasks}.__getitem__
    return family


def twins(spec):
    family = Corridor(spec)
    return with_tasks(family, (family.tasks[0], *family.tasks[:-1]))


def counted_ids(spec):
    family = Corridor(spec)
    return with_tasks(family, [CorridorTask(task_id=f"{next(COUNT)}", params=task.params) for task in family.tasks])


def parameter(value):
    def build(spec):
        family = Corridor(spec)
        tasks = [CorridorTask(task_id=task.task_id, params={"goal": value}) for task in family.tasks]
        return with_tasks(family, tasks)

    return build


class AnyId(Corridor):
    def task(self, task_id):
        return next((task for task in self.tasks if task.task_id == task_id), self.tasks[0])


class Forgetful(Corridor):
    """Returns another task's parameters."""

    def task(self, task_id):
        return CorridorTask(task_id=super().task(task_id).task_id, params={"goal": 0})


class Overlapping(Corridor):
    def split(self, **_):
        return SimpleNamespace(train=self.tasks, held_out=self.tasks[:3])


class Incomplete(Corridor):
    def split(self, **_):
        return SimpleNamespace(train=self.tasks[:2], held_out=self.tasks[3:])


class Unseeded(Corridor):
    def split(self, *, held_out_frac, **_):
        return super().split(int(np.random.default_rng().integers(10**9)), held_out_frac)


class Seedless(Corridor):
    def split(self, *, held_out_frac, **_):
        return super().split(0, held_out_frac)


class Stingy(Corridor):
    def split(self, *, seed, **_):
        return super().split(seed, 0.2)


class Splitless(Corridor):
    split = property(lambda _: getattr(0, "x"))  # noqa: B009


class Stretched(Corridor):
    """Is longer every time it is built."""

    def __init__(self, spec):
        super().__init__(spec)
        self.horizon = 8 + next(COUNT)


class Cornered(Corridor):
    """Has a space that is none."""

    def __init__(self, spec):
        super().__init__(spec)
        self.spaces = {**self.spaces, "action": {"kind": "discrete"}}


class Worthless(Corridor):
    def optimal_returns(self, tasks):
        return np.zeros(len(tasks))


class Unknowing(Corridor):
    def random_returns(self, tasks):
        return np.full(len(tasks), np.nan)


class Brief(Corridor):
    def random_returns(self, _):
        return 0.0


class Relative(Corridor):
    def optimal_returns(self, tasks):
        return super().optimal_returns(tasks) + len(tasks)


class WrongRewards(Corridor):
    def replay(self, *what, **how):
        rewards, *flags = super().replay(*what, **how)
        return rewards + 1, *flags


class WrongWay(Corridor):
    def next_observations(self, task, observations, actions):
        return observations


class Believing(Levers):
    """Takes any reward for one that can be."""

    def __init__(self, _):
        super().__init__(LeversSpec())

    def replay(self, task, observations, actions, next_observations, episode_ends, *, rewards):
        truncations = (np.arange(len(actions)) + 1) % self.horizon == 0
        return rewards, np.zeros(len(actions), bool), truncations


class WildPlayers(Corridor):
    reference_players = {  # noqa: RUF012
        "wild": lambda rows, _: SimpleNamespace(choose=lambda: np.full(rows.num_envs, 3), learn=lambda *_: None)
    }


def rows(**methods):
    """Return a corridor whose vector environment has other methods."""
    kind = type("Rows", (CorridorVec,), methods)

    def build(spec):
        family = Corridor(spec)
        family.make_vec = lambda tasks: kind(spec, np.array([task.params["goal"] for task in tasks]))
        return family

    return build


def outcome(change):
    """Return a corridor whose vector environment returns something else than it played."""
    return rows(step=lambda self, actions: change(self, *CorridorVec.step(self, actions)))


def writes_actions(self, actions):
    result = CorridorVec.step(self, actions)
    actions[:] = 0
    return result


def one_array(self, actions):
    observations, *rest = CorridorVec.step(self, actions)
    self.kept = observations if not hasattr(self, "kept") else self.kept
    self.kept[:] = observations
    return self.kept, *rest


def asked_moves(self):
    best = CorridorVec.optimal_actions(self)
    self.places = self.places * 0
    return best


def late_restart(_, observations, rewards, terminations, truncations, infos):
    return np.where(truncations[:, None], infos["final_obs"], observations), rewards, terminations, truncations, infos


def mask_moves_all(self, *, seed=None, options=None):
    rows = (options or {}).get("reset_mask")
    result = CorridorVec.reset(self, seed=seed, options=options)
    if rows is not None:
        self.ages[:] = 0  # which shows later, when episodes end
    return result


def one_row_less(spec):
    family = Corridor(spec)
    family.make_vec = lambda tasks: Corridor.make_vec(family, tasks[1:] or tasks)
    return family


BUGS = {
    "none": Corridor,
    "splitless": Splitless,
    "cornered": Cornered,
    "twins": twins,
    "any id": AnyId,
    "forgetful": Forgetful,
    "counted ids": counted_ids,
    "stretched": Stretched,
    "a set": parameter({1}),
    "not a number": parameter(float("nan")),
    "overlapping": Overlapping,
    "incomplete": Incomplete,
    "unseeded": Unseeded,
    "seedless": Seedless,
    "stingy": Stingy,
    "worthless": Worthless,
    "unknowing": Unknowing,
    "brief": Brief,
    "relative": Relative,
    "a row less": one_row_less,
    "endless": outcome(lambda _, o, r, t, c, i: (o, r, t, c & False, i)),
    "mixing": outcome(lambda _, o, r, *rest: (o, r + o.sum(), *rest)),
    "noise": outcome(lambda _, o, r, *rest: (o, r + np.random.default_rng().random(), *rest)),
    "outside": outcome(lambda _, o, *rest: (o + np.int64(300), *rest)),
    "whole flags": outcome(lambda _, o, r, t, c, i: (o, r, t.astype(int), c.astype(int), i)),
    "one reward": outcome(lambda _, o, r, *rest: (o, r.sum(), *rest)),
    "late restart": outcome(late_restart),
    "one array": rows(step=one_array),
    "writes actions": rows(step=writes_actions),
    "resets all": rows(reset=lambda self, *, seed=None, **_: CorridorVec.reset(self, seed=seed)),
    "resets ages": rows(reset=mask_moves_all),
    "asked moves": rows(optimal_actions=asked_moves),
    "third way": rows(optimal_actions=lambda self: np.full(self.num_envs, 3)),
    "one optimum": rows(optimal_actions=lambda self: CorridorVec.optimal_actions(self)[:1]),
    "wrong rewards": WrongRewards,
    "wrong way": WrongWay,
    "believing": Believing,
    "wild players": WildPlayers,
}


@pytest.mark.parametrize("is_quick", [True, False])
def test_an_honest_family_keeps_all_laws(is_quick):
    check_family(PlantedSpec(bug="none"), is_quick=is_quick)


@pytest.mark.parametrize(
    ("bug", "law"),
    [
        ("splitless", "a family is whole"),
        ("cornered", "a family is whole"),
        ("twins", "tasks are told apart"),
        ("forgetful", "tasks are told apart"),
        ("any id", "unknown ids are refused"),
        ("counted ids", "ids are stable"),
        ("stretched", "the horizon is stable"),
        ("a set", "task parameters are plain"),
        ("not a number", "task parameters are plain"),
        ("overlapping", "a split is disjoint and complete"),
        ("incomplete", "a split is disjoint and complete"),
        ("stingy", "a split holds out its fraction"),
        ("unseeded", "a split follows from its seed"),
        ("seedless", "a split follows from its seed"),
        ("worthless", "declared returns"),
        ("unknowing", "declared returns"),
        ("brief", "declared returns"),
        ("relative", "declared returns"),
        ("a row less", "a row per task"),
        ("endless", "episodes end"),
        ("mixing", "rows do not mix"),
        ("noise", "the same seed gives the same episodes"),
        ("whole flags", "rewards and flags come row by row"),
        ("one reward", "rewards and flags come row by row"),
        ("late restart", "ended rows restart at once"),
        ("one array", "arrays stay as they were handed out"),
        ("writes actions", "actions are only read"),
        ("resets all", "rows are reset apart"),
        ("resets ages", "rows are reset apart"),
        ("asked moves", "asking for optimal actions changes nothing"),
        ("one optimum", "optimal actions come row by row"),
        ("wrong rewards", "a true history replays to itself"),
        ("wrong way", "a true history replays to itself"),
        ("believing", "replay believes only what can be"),
    ],
)
def test_a_family_that_breaks_a_law_is_told_which(bug, law):
    with pytest.raises(DataError, match=f"law '{law}' is broken"):
        check_family(PlantedSpec(bug=bug), is_quick=True)


@pytest.mark.parametrize(
    ("bug", "what"),
    [("outside", "the observation"), ("third way", "an optimal action"), ("wild players", "its player 'wild'")],
)
def test_what_lies_outside_its_space_is_told_by_its_place(bug, what):
    with pytest.raises(DataError, match=f"family 'corridor', .*{what}.*not in the space"):
        check_family(PlantedSpec(bug=bug), is_quick=True)


@pytest.mark.parametrize(
    ("name", "shift", "message"),
    [
        ("optimal_returns", 3.0, "its optimal policy earned 6 a piece"),
        ("random_returns", -3.0, "a random policy earned"),
    ],
)
def test_declared_returns_that_playing_contradicts_break_a_law(monkeypatch, name, shift, message):
    honest = getattr(Corridor, name)
    monkeypatch.setattr(Corridor, name, lambda self, tasks: honest(self, tasks) + shift)
    check_family(PlantedSpec(bug="none"), is_quick=True)  # it takes more episodes to see
    with pytest.raises(LawBrokenError, match=f"that the family declares is contradicted on 2 of 2 tasks.*{message}"):
        check_family(PlantedSpec(bug="none"))


def test_a_spec_that_cannot_be_sent_to_another_process_breaks_a_law():
    @frozen(kw_only=True)
    class LocalSpec(CorridorSpec):
        pass

    with pytest.raises(LawBrokenError, match="law 'specs travel' is broken"):
        check_family(LocalSpec())
