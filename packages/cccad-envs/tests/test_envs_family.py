"""`family.py`: tasks, ids and splits, which travel in files and must stay as they are."""

import itertools
import json

import attrs
import pytest
from cccad_envs import DarkKeyToDoorSpec, DarkroomSpec, SettingError, Task, UnknownTaskError

DARKROOM = DarkroomSpec().build()
KEY_TO_DOOR = DarkKeyToDoorSpec().build()


def test_there_is_one_darkroom_task_per_cell_in_order_of_x_then_y():
    ids = [task.task_id for task in DARKROOM.tasks]
    assert ids == [f"darkroom-9x9/goal-{x}-{y}" for x in range(9) for y in range(9)]


def test_there_is_one_key_to_door_task_per_ordered_pair_of_different_cells():
    cells = list(itertools.product(range(3), repeat=2))
    ids = [task.task_id for task in DarkKeyToDoorSpec(size=3).build().tasks]
    pairs = itertools.product(cells, cells)
    assert ids == [f"dark-key-to-door-3x3/key-{k[0]}-{k[1]}-door-{d[0]}-{d[1]}" for k, d in pairs if k != d]
    assert len(KEY_TO_DOOR.tasks) == 81 * 80


def test_the_parameters_of_a_task_are_plain_numbers_and_survive_json():
    task = KEY_TO_DOOR.task("dark-key-to-door-9x9/key-1-2-door-3-4")
    assert task.params == {"key_x": 1, "key_y": 2, "door_x": 3, "door_y": 4}
    again = Task(**json.loads(json.dumps(attrs.asdict(task))))
    assert again == task
    assert hash(again) == hash(task)


def test_spaces_are_plain_data():
    assert json.loads(json.dumps(DARKROOM.spaces)) == {
        "observation": {"kind": "multi-discrete", "sizes": [9, 9]},
        "action": {"kind": "discrete", "n": 5},
    }
    assert KEY_TO_DOOR.spaces == DARKROOM.spaces


def test_a_task_is_found_by_its_id_and_by_its_place():
    assert DARKROOM.task("darkroom-9x9/goal-4-2") == DARKROOM.place(goal=(4, 2))


def test_an_unknown_task_id_is_answered_with_near_ones():
    with pytest.raises(
        UnknownTaskError, match=r"darkroom has no task 'darkroom-9x9/goal-4-9' .* Did you mean 'darkroom-9x9/goal-4-"
    ):
        DARKROOM.task("darkroom-9x9/goal-4-9")
    with pytest.raises(UnknownTaskError, match="Did you mean 'darkroom-9x9/goal-4-2'"):
        DARKROOM.task("darkrom-9x9/goal-4-2")
    with pytest.raises(LookupError, match=r"Ids look like 'darkroom-9x9/goal-0-0'"):
        DARKROOM.task("?")
    with pytest.raises(UnknownTaskError, match="'dark-key-to-door-9x9/key-1-2-door-1-"):
        KEY_TO_DOOR.task("dark-key-to-door-9x9/key-1-2-door-1-2")


@pytest.mark.parametrize("place", [(9, 0), (0, -1), (1.0, 2.0), (1,), "12", 3, (True, False)])
def test_a_goal_outside_the_room_is_refused(place):
    with pytest.raises(SettingError, match=r"'goal' must be two whole numbers, a cell \(x, y\) of the 9x9 room"):
        DARKROOM.place(goal=place)


def test_a_wrong_set_of_landmarks_is_refused():
    with pytest.raises(SettingError, match="'key' and 'door'"):
        KEY_TO_DOOR.place(key=(0, 0))
    with pytest.raises(SettingError, match="different cells"):
        KEY_TO_DOOR.place(key=(1, 1), door=(1, 1))


@pytest.mark.parametrize("spec", [DarkroomSpec, DarkKeyToDoorSpec])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", 1, "'size' must be >= 2: 1"),
        ("horizon", 0, "'horizon' must be >= 1: 0"),
        ("size", 4.5, "'size' must be a whole number: 4.5"),
        ("horizon", True, "'horizon' must be a whole number: True"),
    ],
)
def test_a_wrong_spec_is_refused_with_the_value_and_what_would_be_right(spec, field, value, message):
    with pytest.raises(ValueError, match=message):
        spec(**{field: value})


def test_specs_explain_themselves():
    for spec in (DarkroomSpec, DarkKeyToDoorSpec):
        assert str(spec.__doc__).startswith("A square room with a hidden")
        assert all(field.metadata["help"] for field in attrs.fields(spec))


def test_the_split_of_darkroom_never_changes():
    split = DARKROOM.split(seed=0, held_out_frac=0.1)
    goals = [(task.params["goal_x"], task.params["goal_y"]) for task in split.held_out]
    assert goals == [(7, 3), (0, 0), (6, 0), (4, 7), (7, 6), (4, 2), (2, 3), (0, 2)]
    assert split.train[0].task_id == "darkroom-9x9/goal-1-2"
    assert len(split.train) == 73


def test_the_split_of_key_to_door_never_changes():
    split = KEY_TO_DOOR.split(seed=7)
    assert len(split.held_out) == 648
    assert [tuple(task.params.values()) for task in split.held_out[:3]] == [(6, 1, 3, 8), (1, 4, 3, 3), (4, 4, 8, 0)]


@pytest.mark.parametrize("family", [DARKROOM, KEY_TO_DOOR], ids=lambda family: family.name)
@pytest.mark.parametrize("seed", [0, 1, 12345, 2**100])
def test_a_split_is_disjoint_complete_and_repeatable(family, seed):
    split = family.split(seed=seed, held_out_frac=0.25)
    assert set(split.train) | set(split.held_out) == set(family.tasks)
    assert len(split.train) + len(split.held_out) == len(family.tasks)
    assert len(split.held_out) == round(0.25 * len(family.tasks))
    assert type(family.spec)().build().split(seed=seed, held_out_frac=0.25) == split


def test_other_seeds_hold_out_other_tasks():
    drawn = {frozenset(task.task_id for task in DARKROOM.split(seed=seed).held_out) for seed in range(20)}
    assert len(drawn) == 20


def test_every_task_is_held_out_about_equally_often():
    times = dict.fromkeys(DARKROOM.positions, 0)
    for seed in range(1000):
        for task in DARKROOM.split(seed=seed).held_out:
            times[task.task_id] += 1
    expected = 1000 * 8 / 81
    assert max(abs(count - expected) for count in times.values()) < 5 * expected**0.5


@pytest.mark.parametrize("frac", [0, 1, 1.4, -0.1, float("nan")])
def test_a_fraction_outside_its_range_is_refused(frac):
    with pytest.raises(SettingError, match="'held_out_frac' must be > 0 and < 1"):
        DARKROOM.split(held_out_frac=frac)


@pytest.mark.parametrize(("frac", "side"), [(0.001, "held-out"), (0.999, "training")])
def test_a_fraction_that_leaves_a_side_empty_is_refused(frac, side):
    with pytest.raises(SettingError, match=f"leaves no {side} task among the 81"):
        DARKROOM.split(held_out_frac=frac)


@pytest.mark.parametrize("seed", [-1, 0.5, True, "0"])
def test_a_wrong_split_seed_is_refused(seed):
    with pytest.raises(SettingError, match="'seed' of a split"):
        DARKROOM.split(seed=seed)


@pytest.mark.parametrize(
    "stranger",
    [
        DarkroomSpec(size=7).build().tasks[0],
        KEY_TO_DOOR.tasks[0],
        Task(task_id="darkroom-9x9/goal-1-1", params={"goal_x": 1, "goal_y": 2}),
        Task(task_id="darkroom-9x9/goal-9-9", params={"goal_x": 9, "goal_y": 9}),
        Task(task_id="darkroom-9x9/goal-9-0", params={"goal_x": 9, "goal_y": 0}),
    ],
    ids=lambda task: task.task_id,
)
def test_a_family_plays_no_task_of_another(stranger):
    with pytest.raises(UnknownTaskError, match="is none of darkroom in a 9x9 room"):
        DARKROOM.make_vec([stranger])
    with pytest.raises(UnknownTaskError, match="is none of darkroom"):
        DARKROOM.optimal_return(stranger)
