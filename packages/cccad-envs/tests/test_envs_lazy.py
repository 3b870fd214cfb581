"""`tasks.py` and `affordable.py`: families cost nothing until they are used, and offer what they always offered."""

import hashlib
import itertools
import json
import time

import numpy as np
import pytest
from cccad_envs import (
    BanditSpec,
    DarkKeyToDoorSpec,
    DarkroomPermutedSpec,
    DarkroomSpec,
    LargeDarkroomSpec,
    RecallSpec,
    SettingError,
    SwitchingDarkroomSpec,
    UnknownTaskError,
)
from cccad_envs import tasks as tasks_module
from cccad_envs.family import drawn_words

# Of each family: digests of its tasks, of two splits, and of optimal and random returns, as they were before laziness.
GOLDEN = [
    (DarkroomSpec(), "6a1c949f09fe4ce2", "3e3139137ffabdc0", "178962e08375968c"),
    (DarkroomSpec(size=3), "8ec90ef79e2ee2e1", "f42ff09b040c9bca", "ffb4f588167ba40c"),
    (DarkKeyToDoorSpec(), "38474093e5f9e525", "04078e67a7d26be4", "ce925f9e23f96c47"),
    (DarkKeyToDoorSpec(size=4), "67f266cfec10558d", "12da6f4ba8f55dd9", "709f25c5ea3fe971"),
    (DarkroomPermutedSpec(), "faa68c5683c6df57", "da2fb6d99b4cd715", "30fc67b5fcf663b5"),
    (
        DarkroomPermutedSpec(size=3, num_permutations=7, permutation_seed=3),
        "757e166bccb50dc8",
        "b403e8759ca5712a",
        "8000e68b510b6efa",
    ),
    (LargeDarkroomSpec(), "d63d8272d019d7a4", "fe5ff6406412a54f", "5de501f5c7c18cc9"),
    (LargeDarkroomSpec(width=13, height=6), "fa4fedf146afb26d", "01cb4a03ec865e2d", "a88c640ae8043134"),
    (SwitchingDarkroomSpec(size=5), "b565184c45690f6a", "202a20b48b30a716", "b6771a27f2719165"),
    (BanditSpec(), "24dbb1292ef0491e", "1f3e7c5513e00952", "6a8a8c2ce2f3db40"),
    (
        BanditSpec(num_tasks=5000, num_arms=7, reward="gaussian", task_seed=9),
        "f94d58140e1604fa",
        "f0bc7bf43fff320f",
        "b6824e66a69d02f8",
    ),
    (RecallSpec(), "d3db35b2e9f5d2d2", "a8809433a5885142", "9b7118bef6b3ff39"),
    (RecallSpec(resample=False), "cbb4e139117afda0", "7b602e386f5e5244", "9b7118bef6b3ff39"),
    (
        RecallSpec(resample=False, num_bits=5, num_symbols=3, num_tasks=300),
        "14003f7625ddb6c3",
        "c4a4728e591cd133",
        "4b18cf81ed7de7dc",
    ),
    (
        RecallSpec(resample=False, num_bits=20, num_tasks=700, task_seed=4),
        "d6adeeae1274b73c",
        "9c862ad66db862b6",
        "474ae6859bda47a3",
    ),
    (RecallSpec(num_tasks=20000), "662c52c4ded02fb7", "0125701540c23e70", "66ae7eb0d42bf381"),
]
HUGE = [
    DarkroomSpec(size=100_000),
    LargeDarkroomSpec(width=1 << 30, height=1 << 30),
    DarkKeyToDoorSpec(size=100_000),
    DarkroomPermutedSpec(size=100_000),
    SwitchingDarkroomSpec(size=100_000),
    BanditSpec(num_tasks=10**12),
    RecallSpec(num_tasks=10**12),
    RecallSpec(num_tasks=1 << 40, num_bits=39, resample=False),
]
by_spec = pytest.mark.parametrize("spec", HUGE, ids=lambda spec: type(spec).__name__)


def digest(content):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return hashlib.sha256(text).hexdigest()[:16]


@pytest.mark.parametrize(("spec", "tasks", "splits", "returns"), GOLDEN, ids=lambda value: str(value)[:60])
def test_tasks_splits_and_returns_never_change(spec, tasks, splits, returns):
    family = spec.build()
    drawn = [family.split(seed=seed, held_out_frac=frac) for seed, frac in ((0, 0.1), (7, 0.25))]
    some = family.tasks[:: max(1, len(family.tasks) // 500)]
    assert digest([[task.task_id, task.params] for task in family.tasks]) == tasks
    ids = [[[task.task_id for task in side] for side in (split.train, split.held_out)] for split in drawn]
    assert digest(ids) == splits
    assert digest(family.optimal_returns(some).tobytes() + family.random_returns(some).tobytes()) == returns


@pytest.mark.parametrize("spec", [spec for spec, *_ in GOLDEN], ids=lambda spec: str(spec)[:60])
def test_tasks_that_are_made_when_asked_for_are_those_of_the_list(spec, monkeypatch):
    listed = spec.build()
    assert isinstance(listed.tasks, tuple)
    monkeypatch.setattr(tasks_module, "MOST_LISTED", 0)
    lazy = spec.build()
    split, same = (family.split(seed=5, held_out_frac=0.3) for family in (listed, lazy))
    assert tuple(lazy.tasks) == listed.tasks
    assert (tuple(same.train), tuple(same.held_out)) == (split.train, split.held_out)
    assert same.held_out[:2] * 2 + same.train[:1] == split.held_out[:2] * 2 + split.train[:1]
    assert tuple(same.held_out[3:9:2]) == split.held_out[3:9:2]
    for task in split.held_out:
        assert lazy.task(task.task_id) == task
        assert task in lazy.tasks
    assert split.train[0] not in (same.held_out if isinstance(same.held_out, tasks_module.Tasks) else ())


@by_spec
def test_a_family_of_any_size_is_named_found_in_and_played_at_once(spec):
    start = time.perf_counter()
    family = spec.build()
    task = family.tasks[min(12_345_678, family.tasks.size - 1)]
    rows = family.make_vec([task, family.tasks[0]])
    rows.reset(seed=0)
    for _ in range(5):
        rows.step(rows.optimal_actions())
    assert family.task(task.task_id) == task
    assert family.optimal_return(task) >= 0
    assert family.random_return(task) >= 0
    assert time.perf_counter() - start < 2


@by_spec
@pytest.mark.parametrize(
    "strange", ["", "?", "/", "{}9x", "{}-1", "x{}", "{}/0", "darkroom-9x9/goal-4-" + "9" * 5000, "\u0663"]
)
def test_an_id_that_a_huge_family_does_not_have_is_refused_at_once(spec, strange):
    family = spec.build()
    with pytest.raises(UnknownTaskError, match=r"Ids look like"):
        family.task(strange.format(family.tasks[7].task_id))


@by_spec
def test_a_split_that_no_machine_holds_is_refused_with_an_estimate(spec):
    right = r"a split of the [\d,]+ tasks of .* needs about [\d,]+ GB of memory; there are \d"
    with pytest.raises(SettingError, match=right):
        spec.build().split(seed=0)


def test_strings_that_no_machine_can_draw_are_refused_with_an_estimate():
    with pytest.raises(SettingError, match=r"drawing 10{0},000,.* strings of 60 symbols needs about .* GB of memory"):
        RecallSpec(num_bits=60, num_tasks=10**12, resample=False).build().split(seed=0)


@pytest.mark.parametrize("spec", [DarkroomSpec(horizon=10**9), DarkroomSpec(size=2000, horizon=4000)])
def test_a_random_return_that_nobody_can_wait_for_is_refused_by_the_split(spec):
    family = spec.build()
    with pytest.raises(SettingError, match=r"the random return of .* would take about [\d.,]+ hours"):
        family.split(seed=0)
    with pytest.raises(SettingError, match=r"the random return of .* would take about [\d.,]+ hours"):
        family.random_return(family.tasks[0])


@pytest.mark.parametrize("spec_class", [DarkroomSpec, DarkKeyToDoorSpec])
def test_returns_in_a_room_larger_than_an_episode_reaches_are_those_of_one_with_walls_beyond_reach(spec_class):
    large, small = spec_class(size=401, horizon=6).build(), spec_class(size=17, horizon=6).build()
    cells = [(8, 8), (8, 9), (6, 7), (3, 8), (2, 8), (8, 1), (0, 0)]
    names = small.rules.landmarks
    for chosen in itertools.permutations(cells, len(names)):
        here = small.place(**dict(zip(names, chosen, strict=True)))
        there = large.place(**dict(zip(names, ((x + 192, y + 192) for x, y in chosen), strict=True)))
        assert small.random_return(here) == large.random_return(there)


def test_moves_and_points_are_the_same_with_and_without_tables(monkeypatch):
    from cccad_envs import grid

    room, cells = grid.Grid(5, 3), np.arange(15).repeat(5)
    moves = np.tile(np.arange(5), 15)
    tabled = room.moved(cells, moves), room.points(cells)
    monkeypatch.setattr(grid, "_MOST_TABLED_CELLS", 0)
    reckoned = room.moved(cells, moves), room.points(cells)
    for one, other in zip(tabled, reckoned, strict=True):
        assert (one == other).all()
        assert one.dtype == other.dtype


def test_words_from_any_place_on_are_those_of_one_stream():
    whole = drawn_words(3, 100)
    for first in range(40):
        assert (drawn_words(3, 60, first=first) == whole[first : first + 60]).all()
