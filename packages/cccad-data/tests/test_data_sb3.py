"""`sources/sb3` and `sources/stable`: Stable-Baselines3's algorithms and policies."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("stable_baselines3", reason="the sb3 source needs stable-baselines3 (extra 'rl')")
torch = pytest.importorskip("torch")

from cccad_data import InlineSpec, NoisyOracleSpec, RandomSpec, SB3Spec, SourceError, collect, learning_curve, verify  # noqa: E402
from cccad_data.families.toys import CorridorSpec, CorridorVec, TrackSpec, TrackVec  # noqa: E402
from gymnasium.spaces import Box, Discrete, MultiDiscrete  # noqa: E402

# Settings with which a life of a few hundred env steps is enough.
SMALL = {"policy_kwargs": {"net_arch": [32, 32]}, "learning_rate": 5e-3}
OFF_POLICY = {"learning_starts": 40, "batch_size": 64, "gamma": 0.7, "gradient_steps": 2, **SMALL}
QUICK = {
    "PPO": (8, 320, {"n_steps": 16, "batch_size": 32, "n_epochs": 6, **SMALL}),
    "A2C": (8, 480, SMALL),
    "DQN": (8, 240, {**OFF_POLICY, "train_freq": 2, "target_update_interval": 50, "exploration_fraction": 0.5}),
    "SAC": (4, 80, {**OFF_POLICY, "ent_coef": 0.02}),
    "TD3": (4, 80, {**OFF_POLICY, "action_noise": 0.3}),
}


@pytest.fixture(autouse=True)
def _spaces(monkeypatch):
    """The spaces that a gymnasium vector env has, and that the environments for tests do without."""
    box = Box(-1.0, 1.0, (1,))
    for environment, spaces in (
        (CorridorVec, (MultiDiscrete([7]), Discrete(3))),
        (TrackVec, (box, Box(-1.0, 1.0, (1,)))),
    ):
        for side, space in zip(("observation", "action"), spaces, strict=True):
            monkeypatch.setattr(environment, f"single_{side}_space", space, raising=False)


def quick(name, env_steps=None, **fields):
    num_envs, length, hyperparameters = QUICK[name]
    return SB3Spec(
        algorithm=name, num_envs=num_envs, env_steps=env_steps or length, hyperparameters=hyperparameters, **fields
    ).build()


@pytest.mark.parametrize("name", QUICK)
def test_algorithms_learn_by_their_names(name):
    family = (TrackSpec() if name in {"SAC", "TD3"} else CorridorSpec(horizon=10)).build()
    task = family.tasks[0]
    (curve,) = learning_curve(quick(name).collect(family, [task], seed=0)).values()
    optimal, first, last = family.optimal_return(task), curve[:2].mean(), curve[-4:].mean()
    assert first < 0.5 * optimal
    assert last > 0.8 * optimal, curve


CONTRIB = {
    "TRPO": (8, 320, {"n_steps": 16, "batch_size": 64, "policy_kwargs": {"net_arch": [32, 32]}}),
    "RecurrentPPO": (4, 64, {"n_steps": 16, "batch_size": 32, "policy_kwargs": {"lstm_hidden_size": 16}}),
    "ARS": (4, 64, {"n_delta": 3}),  # it asks nobody whether to stop
    "TQC": (4, 60, {**OFF_POLICY, "top_quantiles_to_drop_per_net": 1}),
}


@pytest.mark.parametrize("name", CONTRIB)
def test_algorithms_of_sb3_contrib_live_as_long_as_they_are_told(name):
    pytest.importorskip("sb3_contrib")
    num_envs, env_steps, hyperparameters = CONTRIB[name]
    family = (TrackSpec() if name == "TQC" else CorridorSpec(horizon=10)).build()
    policy = "MlpLstmPolicy" if name == "RecurrentPPO" else "MlpPolicy"
    source = SB3Spec(
        algorithm=name, policy=policy, num_envs=num_envs, env_steps=env_steps, hyperparameters=hyperparameters
    ).build()
    (task,) = source.collect(family, family.tasks[:1], seed=0)
    assert np.diff(task.history_ends, prepend=0).tolist() == [env_steps // family.horizon * family.horizon] * num_envs
    if name == "TRPO":
        (curve,) = learning_curve([task]).values()
        assert curve[-4:].mean() > 0.8 * family.optimal_return(family.tasks[0]) > 1.5 * curve[:2].mean()


def test_sizes_in_a_small_dtype_become_whole_numbers_that_can_be_added_up(monkeypatch):
    from cccad_data.sources import stable

    monkeypatch.setattr(CorridorVec, "single_observation_space", MultiDiscrete([7], dtype=np.uint8))
    family = CorridorSpec().build()
    environments = stable.UnitVecEnv(stable.Unit(RandomSpec(num_envs=2).build(), family, family.tasks[:1], 0))
    assert type(sum(environments.observation_space.nvec)) is int
    assert CorridorVec.single_observation_space.nvec.dtype == np.uint8


@pytest.mark.parametrize("name", ["PPO", "DQN"])
def test_optimal_actions_are_kept_beside_those_that_were_taken(name):
    family = CorridorSpec(horizon=10).build()
    (task,) = quick(name, 60, store_optimal_actions=True).collect(family, family.tasks[2:3], seed=0)
    (without,) = quick(name, 60).collect(family, family.tasks[2:3], seed=0)
    places = task.observations[:, 0]
    assert task.optimal_actions.tolist() == np.select([places < 2, places > 2], [0, 1], 2).tolist()
    assert without.optimal_actions is None
    assert without.actions.tobytes() == task.actions.tobytes()


def test_what_is_recorded_is_what_the_environments_give_true_last_observations_too(tmp_path):
    family = CorridorSpec(ends_on_goal=True).build()
    out = collect(
        family, quick("A2C", env_steps=60), InlineSpec().build(), out=tmp_path / "set", split={"seed": 0}, seed=0,
        max_tasks=2,
    )  # fmt: skip
    assert [fault for fault in verify(out, family) if "improve" not in str(fault)] == []


def test_the_same_seed_gives_the_same_histories_and_leaves_the_random_numbers_of_others_alone():
    family, source = CorridorSpec().build(), quick("DQN", env_steps=40)
    states = [random.getstate()[1][:3], np.random.get_state()[1][:3].tolist(), torch.get_rng_state().tolist()]  # noqa: NPY002
    together = source.collect(family, family.tasks[1:3], seed=0)
    assert states == [
        random.getstate()[1][:3], np.random.get_state()[1][:3].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    ]  # fmt: skip
    (alone,) = source.collect(family, family.tasks[2:3], seed=0)
    (other,) = source.collect(family, family.tasks[2:3], seed=1)
    assert together[1].actions.tobytes() == alone.actions.tobytes()
    assert other.actions.tobytes() != alone.actions.tobytes()


def test_progress_counts_the_env_steps_of_all_tasks():
    reports = []
    family = CorridorSpec().build()
    quick("A2C", env_steps=20).collect(family, family.tasks[:2], seed=0, progress=reports.append)
    assert reports == [8 * (i + 1) for i in range(40)]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"algorithm": "ppo"}, "there is no algorithm 'ppo' in stable-baselines3; did you mean 'PPO'?"),
        ({"algorithm": "REINFORCE"}, "there is no algorithm 'REINFORCE' in stable-baselines3; known: A2C, "),
        ({"hyperparameters": {"learning_rat": 1.0}}, "PPO has no hyperparameter 'learning_rat'; did you mean 'learn"),
        ({"algorithm": "DQN", "hyperparameters": {"clip_range": 1}}, "DQN has no hyperparameter 'clip_range'; known: "),
        ({"hyperparameters": {"seed": 1}}, "PPO has no hyperparameter 'seed'"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_collected(fields, sentence):
    with pytest.raises(SourceError) as caught:
        SB3Spec(**fields).build()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_algorithm_refuses_is_told_in_its_words():
    family = TrackSpec().build()
    with pytest.raises(SourceError, match=r"DQN cannot be made for these environments and settings: .*Discrete"):
        SB3Spec(algorithm="DQN", env_steps=20).build().collect(family, family.tasks, seed=0)
    with pytest.raises(SourceError, match=r"PPO cannot be made for these environments .*n_steps"):
        SB3Spec(env_steps=20, hyperparameters={"n_steps": 0}).build().collect(family, family.tasks, seed=0)


def test_environments_without_spaces_are_refused(monkeypatch):
    monkeypatch.delattr(TrackVec, "single_action_space")
    family = TrackSpec().build()
    with pytest.raises(SourceError, match="sb3 needs environments that are gymnasium vector environments"):
        SB3Spec(env_steps=20).build().collect(family, family.tasks, seed=0)


def saved(folder, family, name, algorithm="PPO"):
    """A policy that has learnt nothing, in a file, and itself."""
    from cccad_data.sources import stable

    unit = stable.Unit(RandomSpec(num_envs=2).build(), family, family.tasks[:1], 0)
    model = stable.algorithm_of(algorithm)("MlpPolicy", stable.UnitVecEnv(unit), seed=len(name))
    model.save(folder / name)
    return model


@pytest.mark.parametrize("spec_class", [CorridorSpec, TrackSpec])
def test_the_noise_of_a_saved_policy_fades_like_that_of_the_optimal_one(tmp_path, spec_class):
    family = spec_class().build()
    model = saved(tmp_path, family, "one.zip")
    spec = NoisyOracleSpec(
        policy=str(tmp_path / "one.zip"), num_envs=200, env_steps=40, noise_end_frac=0.5, store_optimal_actions=False
    )
    task = spec.build().collect(family, family.tasks, seed=0)[1]
    wanted = model.predict(task.observations, deterministic=True)[0]
    strayed = np.abs(task.actions - wanted).reshape(200, 40, -1).max(2).round(4) > 0
    chances = strayed.mean(0)
    assert not chances[20:].any()
    by_chance = 2 / 3 if spec_class is CorridorSpec else 1.0  # a random action is seldom the very number of the policy
    assert np.abs(chances[:20] - by_chance * (1 - np.arange(20) / 20)).max() < 0.15


def test_a_policy_may_be_given_for_each_task(tmp_path):
    family = CorridorSpec().build()
    models = [saved(tmp_path, family, f"{task.task_id.replace('/', '-')}.zip") for task in family.tasks[:3]]
    source = NoisyOracleSpec(policy=str(tmp_path / "{task_id}.zip"), num_envs=3, env_steps=32, noise_end_frac=0.25)
    for task, model in zip(source.build().collect(family, family.tasks[:3], seed=0), models, strict=True):
        assert (task.actions == model.predict(task.observations, deterministic=True)[0]).reshape(3, 32)[:, 8:].all()
        assert task.optimal_actions is not None


def test_a_policy_file_that_does_not_serve_is_named(tmp_path):
    corridor, track = CorridorSpec().build(), TrackSpec().build()
    saved(tmp_path, corridor, "corridor.zip")
    (tmp_path / "text.zip").write_text("nothing")

    def play(family, name, **fields):
        NoisyOracleSpec(policy=str(tmp_path / name), **fields).build().collect(family, family.tasks, seed=0)

    with pytest.raises(SourceError, match=r"there is no policy file '.*none.zip'"):
        play(corridor, "none.zip")
    with pytest.raises(SourceError, match=r"text.zip' holds no policy that PPO saved"):
        play(corridor, "text.zip")
    with pytest.raises(SourceError, match=r"corridor.zip' holds no policy that SAC saved"):
        play(corridor, "corridor.zip", algorithm="SAC")
    with pytest.raises(SourceError, match=r"corridor.zip' is for observations MultiDiscrete.*family 'track' has"):
        play(track, "corridor.zip", store_optimal_actions=False)
    with pytest.raises(SourceError, match="there is no algorithm 'PO' in stable-baselines3; did you mean 'PPO'"):
        play(corridor, "corridor.zip", algorithm="PO")


def load(family, observation, action, folder):
    """Save a policy of these spaces, and load it for *family*."""
    import gymnasium as gym
    from cccad_data.sources.stable import load_policy
    from stable_baselines3 import PPO

    class Environment(gym.Env):
        observation_space, action_space = observation, action

    PPO("MlpPolicy", Environment(), n_steps=4, batch_size=4).save(folder / "policy.zip")
    return load_policy(folder / "policy.zip", "PPO", family)


UNIT = {"kind": "box", "shape": [2], "low": -1.0, "high": 1.0}
THREE = {"kind": "discrete", "n": 3}


@pytest.mark.parametrize(
    ("observation", "action", "words"),
    [
        (Box(0.0, 255.0, (2,)), Discrete(3), r"is for observations Box\(0.0, 255.0.*family 'x' has .*'low': -1.0"),
        (Box(-1.0, 1.0, (1, 2)), Discrete(3), r"is for observations Box.*family 'x' has"),
        (Box(-1.0, np.inf, (2,)), Discrete(3), r"is for observations Box.*family 'x' has"),
        (Box(-1.0, 1.0, (2,)), Discrete(3, start=1), r"is for actions .*, with a start; family 'x' counts from 0"),
        (Box(-1.0, 1.0, (2,)), Discrete(4), r"is for actions Discrete\(4\); family 'x' has"),
        (Box(-1.0, 1.0, (2,)), MultiDiscrete([3]), r"is for actions MultiDiscrete.*; family 'x' has"),
        (MultiDiscrete([3, 3]), Discrete(3), r"is for observations MultiDiscrete.*; family 'x' has"),
    ],
    ids=str,
)
def test_a_policy_of_other_spaces_is_refused_whatever_its_shapes(tmp_path, observation, action, words):
    family = SimpleNamespace(name="x", spaces={"observation": UNIT, "action": THREE})
    with pytest.raises(SourceError, match=words):
        load(family, observation, action, tmp_path)


@pytest.mark.parametrize(
    ("observation", "plain"),
    [
        (Box(-1.0, 1.0, (2,)), UNIT),
        (Box(-1.0, 1.0, (2,), np.float64), {**UNIT, "low": [-1, -1]}),
        (Box(-0.1, 0.1, (2,), np.float64), {**UNIT, "low": -0.1, "high": 0.1}),
        (Box(-np.inf, np.inf, (2,)), {**UNIT, "low": None, "high": float("inf")}),
        (Discrete(2), {"kind": "discrete", "n": 2}),
        (Box(0.0, 1.0, (1, 2)), {"kind": "box", "shape": [1, 2], "low": 0.0, "high": 1.0}),
    ],
    ids=str,
)
def test_a_policy_of_the_same_spaces_acts_however_they_are_written_down(tmp_path, observation, plain):
    family = SimpleNamespace(name="x", spaces={"observation": plain, "action": THREE})
    act = load(family, observation, Discrete(3), tmp_path)
    rows = np.zeros((5, 1 if plain["kind"] == "discrete" else 2), np.float32 if plain["kind"] == "box" else np.uint8)
    assert act(rows).shape == (5,)


def test_environments_whose_actions_do_not_count_from_0_are_refused(monkeypatch):
    monkeypatch.setattr(CorridorVec, "single_action_space", Discrete(3, start=1))
    family = CorridorSpec().build()
    with pytest.raises(
        SourceError, match=r"environments have actions .*, with a start; family 'corridor' counts from 0"
    ):
        quick("PPO", 20).collect(family, family.tasks[:1], seed=0)


@pytest.mark.parametrize(
    ("algorithm", "hyperparameters", "words"),
    [
        ("PPO", {}, r"PPO would never learn: its 'n_steps' of 2,048 must be below 32, the env steps of a history"),
        ("PPO", {"n_steps": 32}, r"PPO would never learn: its 'n_steps' of 32 must be below 32"),
        ("DQN", {"learning_starts": 64}, r"DQN would never learn: its 'learning_starts' of 64 must be below 64"),
        ("DQN", {"learning_starts": 40, "train_freq": 100}, "DQN changed no weight of its policy in 32 env steps"),
        ("A2C", {"learning_rate": 0.0}, "A2C changed no weight of its policy in 32 env steps"),
    ],
)
def test_an_algorithm_that_never_learns_is_refused(algorithm, hyperparameters, words):
    family = CorridorSpec().build()
    source = SB3Spec(algorithm=algorithm, num_envs=2, env_steps=32, hyperparameters=hyperparameters).build()
    with pytest.raises(SourceError, match=words):
        source.collect(family, family.tasks[:1], seed=0)
