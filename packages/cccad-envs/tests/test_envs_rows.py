"""`rows.py`: what every vector environment promises beyond the laws of families (tests/test_every_family.py)."""

import copy
import pickle

import numpy as np
import pytest
from cccad_envs import (
    ActionError,
    BanditSpec,
    DarkKeyToDoorSpec,
    DarkroomPermutedSpec,
    DarkroomSpec,
    LargeDarkroomSpec,
    NotResetError,
    RecallSpec,
    SettingError,
    SwitchingDarkroomSpec,
)
from gymnasium.vector import AutoresetMode, VectorEnv

FAMILIES = [
    DarkroomSpec().build(),
    DarkroomSpec(size=2, horizon=1).build(),
    DarkroomSpec(size=4, horizon=3).build(),
    DarkKeyToDoorSpec().build(),
    DarkKeyToDoorSpec(size=3, horizon=12).build(),
    DarkroomPermutedSpec(size=4, horizon=5, num_permutations=7).build(),
    LargeDarkroomSpec(width=5, height=3, horizon=9).build(),
    SwitchingDarkroomSpec(size=3, horizon=4, num_episodes_each=2).build(),
    BanditSpec(num_arms=3, horizon=11, num_tasks=50).build(),
    BanditSpec(num_arms=4, horizon=1, reward="gaussian", num_tasks=50).build(),
    RecallSpec(num_bits=3, num_filler=2).build(),
    RecallSpec(num_bits=2, num_symbols=3, num_filler=0, resample=False).build(),
]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f"{f.tasks[-1].task_id}-{f.horizon}")


def sample(family, num_tasks, seed=0):
    """Return tasks drawn with replacement, so that some are repeated."""
    drawn = np.random.default_rng(seed).integers(0, len(family.tasks), num_tasks)
    return [family.tasks[i] for i in drawn]


def random_actions(family, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, family.spaces["action"]["n"], shape)


def mean_returns(rows, family, choose):
    """Return what *choose* earns in an episode, ``e``, on average over a cycle."""
    returns = np.zeros(rows.num_envs)
    for _ in range(family.horizon * family.episodes_per_cycle):
        returns += rows.step(choose())[1]
    return returns / family.episodes_per_cycle


@every_family
def test_it_is_a_vector_environment_whose_arrays_lie_in_its_spaces(family):
    rows = family.make_vec(sample(family, 7))
    tasks = rows.tasks
    assert isinstance(rows, VectorEnv)
    assert rows.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert rows.num_envs == len(tasks) == 7
    observations, _ = rows.reset(seed=3)
    rows.action_space.seed(0)
    for _ in range(2 * family.horizon + 1):
        assert observations in rows.observation_space
        assert observations.dtype == np.uint8
        observations, rewards, terminations, truncations, _ = rows.step(rows.action_space.sample())
        assert rewards.dtype == np.float32
        assert terminations.dtype == truncations.dtype == np.bool_
        assert rewards.shape == terminations.shape == truncations.shape == (7,)


@every_family
def test_every_row_does_what_a_single_environment_does(family):
    tasks = sample(family, 6)
    rows = family.make_vec(tasks)
    singles = [family.make(task) for task in tasks]
    observations, _ = rows.reset(seed=40)
    alone = [single.reset(seed=40 + i)[0] for i, single in enumerate(singles)]
    for now in random_actions(family, 3 * family.horizon + 3, len(tasks), seed=1):
        assert observations.tolist() == [observation.tolist() for observation in alone]
        assert rows.optimal_actions().tolist() == [single.optimal_action() for single in singles]
        observations, rewards, terminations, truncations, infos = rows.step(now)
        for i, single in enumerate(singles):
            alone[i], reward, terminated, truncated, _ = single.step(now[i])
            assert (reward, terminated, truncated) == (rewards[i], terminations[i], truncations[i])
            assert infos["final_obs"][i].tolist() == alone[i].tolist()
            assert infos["_final_obs"][i] == (terminated or truncated)
            if truncated:
                alone[i], _ = single.reset()


@every_family
def test_the_oracle_attains_the_optimum_exactly_on_every_task(family):
    tasks = family.tasks[:: max(1, len(family.tasks) // 700)]
    assert family.optimal_returns(tasks).tolist() == [family.optimal_return(task) for task in tasks]
    num_replicas = 2000 if family.has_random_rewards else 1
    rows = family.make_vec(tasks * num_replicas)
    rows.reset(seed=0)
    returns = mean_returns(rows, family, rows.optimal_actions).reshape(num_replicas, -1)
    error = 4.5 * returns.std(axis=0) / num_replicas**0.5 if family.has_random_rewards else 0
    assert (abs(returns.mean(axis=0) - family.optimal_returns(tasks)) <= error + 1e-6).all()


@every_family
def test_the_random_policy_earns_its_computed_return(family):
    num_rows = 20_000
    task = family.tasks[len(family.tasks) // 3]
    rows = family.make_vec([task] * num_rows)
    rows.reset(seed=0)
    draw, num_actions = np.random.default_rng(5), family.spaces["action"]["n"]
    returns = mean_returns(rows, family, lambda: draw.integers(0, num_actions, num_rows))
    assert returns.mean() == pytest.approx(family.random_return(task), abs=4.5 * returns.std() / num_rows**0.5 + 1e-9)


@every_family
def test_an_episode_is_cut_off_at_the_horizon_and_never_terminates(family):
    rows = family.make_vec(sample(family, 3))
    rows.reset()
    for env_step in range(1, 3 * family.horizon + 1):
        observations, _, terminations, truncations, infos = rows.step(np.zeros(3, dtype=int))
        assert not terminations.any()
        assert (truncations == (env_step % family.horizon == 0)).all()
        assert (infos["_final_obs"] == truncations).all()
        true_next = infos["final_obs"]
        assert true_next.shape == observations.shape
        assert true_next.dtype == observations.dtype
        assert truncations.any() or (observations == true_next).all()


@every_family
def test_a_row_restarts_by_itself_as_it_does_when_reset(family):
    tasks = sample(family, 3)
    by_itself, by_hand = family.make_vec(tasks), family.make_vec(tasks, autoreset_mode=AutoresetMode.DISABLED)
    observations = by_itself.reset(seed=9)[0]
    assert (by_hand.reset(seed=9)[0] == observations).all()
    for now in random_actions(family, 5 * family.horizon, 3):
        observations, rewards, _, truncations, infos = by_itself.step(now)
        waiting, same_rewards, *_ = by_hand.step(now)
        assert (rewards == same_rewards).all()
        assert (infos["final_obs"] == waiting).all()
        if truncations.any():
            waiting, _ = by_hand.reset(options={"reset_mask": truncations})
        assert (observations == waiting).all()


def test_only_the_masked_rows_are_reset_and_their_clocks_run_on_their_own():
    family = DarkroomSpec(horizon=4).build()
    rows = family.make_vec(family.tasks[:3])
    rows.reset()
    rows.step(np.array([0, 0, 0]))
    mask = np.array([False, True, False])
    options = {"reset_mask": mask}
    observations, _ = rows.reset(options=options)
    assert observations.tolist() == [[5, 4], [4, 4], [5, 4]]
    assert options == {"reset_mask": mask}
    truncated = [rows.step(np.array([4, 4, 4]))[3].tolist() for _ in range(4)]
    assert truncated == [[False] * 3, [False] * 3, [True, False, True], [False, True, False]]


def test_a_masked_reset_forgets_the_key_of_that_row_alone():
    family = DarkKeyToDoorSpec().build()
    rows = family.make_vec([family.place(key=(5, 4), door=(6, 4))] * 2)
    rows.reset()
    assert rows.step(np.array([0, 0]))[1].tolist() == [1, 1]
    rows.reset(options={"reset_mask": np.array([True, False])})
    assert rows.optimal_actions().tolist() == [0, 0]
    assert rows.step(np.array([0, 4]))[1].tolist() == [1, 0]
    assert rows.step(np.array([0, 0]))[1].tolist() == [1, 1]
    assert rows.optimal_actions().tolist() == [4, 4]


@pytest.mark.parametrize("mask", [[True, False], np.array([1, 0]), np.array([True]), True, None])
def test_a_wrong_reset_mask_is_refused(mask):
    rows = FAMILIES[0].make_vec(sample(FAMILIES[0], 2))
    with pytest.raises(SettingError, match=r"'reset_mask' must be a boolean array of shape \(2,\)"):
        rows.reset(options={"reset_mask": mask})


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros(3, dtype=int), r"must have shape \(2,\), one for each row, got \(3,\)"),
        (np.zeros((2, 1), dtype=int), r"got \(2, 1\)"),
        (np.array(0), r"got \(\)"),
        (np.zeros(2), "must be whole numbers, got float64"),
        (np.zeros(2, dtype=bool), "must be whole numbers, got bool"),
        (np.array([0, 5]), "must be 0 to 4, got 5 in row 1"),
        (np.array([-1, 0]), "must be 0 to 4, got -1 in row 0"),
        (np.array([0, 255], dtype=np.uint8), "must be 0 to 4, got 255 in row 1"),
    ],
)
def test_wrong_actions_are_refused_and_change_nothing(actions, message):
    family = FAMILIES[0]
    rows = family.make_vec(sample(family, 2))
    rows.reset()
    with pytest.raises(ActionError, match=message):
        rows.step(actions)
    assert rows.step(np.array([4, 4]))[0].tolist() == [[4, 4], [4, 4]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64, np.int64])
def test_actions_of_any_whole_type_are_taken(dtype):
    family = FAMILIES[0]
    rows = family.make_vec(sample(family, 2))
    rows.reset()
    assert rows.step(np.array([0, 3], dtype=dtype))[0].tolist() == [[5, 4], [4, 3]]


def test_nothing_is_played_before_the_first_reset():
    rows = FAMILIES[0].make_vec(sample(FAMILIES[0], 2))
    with pytest.raises(NotResetError, match=r"row 0 of 2 cannot go on, it has never been reset: call reset\(\) first"):
        rows.step(np.zeros(2, dtype=int))
    with pytest.raises(NotResetError, match="never been reset"):
        rows.optimal_actions()
    rows.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(NotResetError, match="row 1 of 2"):
        rows.step(np.zeros(2, dtype=int))


def test_without_autoreset_an_ended_row_waits_for_its_reset():
    family = DarkroomSpec(horizon=2).build()
    rows = family.make_vec(family.tasks[:2], autoreset_mode=AutoresetMode.DISABLED)
    rows.reset()
    rows.step(np.array([0, 0]))
    rows.reset(options={"reset_mask": np.array([False, True])})
    observations, _, _, truncations, _ = rows.step(np.array([0, 0]))
    assert observations.tolist() == [[6, 4], [5, 4]]
    assert truncations.tolist() == [True, False]
    with pytest.raises(NotResetError, match="row 0 of 2 cannot go on, its episode is over"):
        rows.step(np.array([0, 0]))


def test_wrong_modes_and_no_tasks_are_refused():
    family = FAMILIES[0]
    with pytest.raises(SettingError, match="at least one task"):
        family.make_vec([])
    with pytest.raises(SettingError, match="'autoreset_mode' must be SAME_STEP or DISABLED"):
        family.make_vec(family.tasks, autoreset_mode=AutoresetMode.NEXT_STEP)
    with pytest.raises(SettingError, match="'render_mode' must be 'ansi' or 'rgb_array' or None: 'human'"):
        family.make_vec(family.tasks, render_mode="human")


@every_family
def test_twenty_thousand_rows_play_as_few_do(family):
    tasks = sample(family, 20_000)
    many, few = family.make_vec(tasks), family.make_vec(tasks[:5])
    assert (many.reset(seed=1)[0][:5] == few.reset(seed=1)[0]).all()
    for now in random_actions(family, 2 * family.horizon + 2, len(tasks), seed=2):
        of_many, of_few = many.step(now), few.step(now[:5])
        assert all((a[:5] == b).all() for a, b in zip(of_many[:4], of_few[:4], strict=True))


@every_family
def test_a_copied_or_pickled_batch_goes_on_in_the_same_way(family):
    rows = family.make_vec(sample(family, 4))
    rows.reset()
    rows.step(random_actions(family, 4))
    twins = [copy.deepcopy(rows), pickle.loads(pickle.dumps(rows))]
    for now in random_actions(family, 2 * family.horizon, 4):
        expected = rows.step(now)
        for twin in twins:
            assert all((a == b).all() for a, b in zip(expected[:4], twin.step(now)[:4], strict=True))
    again = pickle.loads(pickle.dumps(family))
    assert again.tasks == family.tasks
