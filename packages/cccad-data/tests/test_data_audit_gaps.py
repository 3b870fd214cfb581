"""The audit says what it cannot check, believes chance what chance can do, and is asked before a run trains."""

import subprocess
import sys

import numpy as np
import pytest
from attrs import evolve, field, frozen
from cccad_data import HistoryFileError, InlineSpec, NoisyOracleSpec, RandomSpec, collect, verify
from cccad_data.audit.verify import MOST_REPLAYED_ENV_STEPS, refuse_faulty, unchecked
from cccad_data.cli import main
from cccad_data.families.toys import Corridor, CorridorSpec, CorridorVec
from cccad_data.histories.dataset import Histories

SPLIT = {"seed": 0, "held_out_frac": 0.2}


@frozen(kw_only=True)
class WindySpec(CorridorSpec):
    wind: float = field(default=0.3)

    def build(self):
        return Windy(self)


class Windy(Corridor):
    """A corridor where a step slips and does nothing, now and then."""

    has_random_transitions = True

    def make_vec(self, tasks):
        return WindyVec(self.spec, np.array([task.params["goal"] for task in tasks]))

    def next_observations(self, task, observations, actions, *, recorded):
        sure = super().next_observations(task, observations, actions)
        return np.where(recorded == observations, observations, sure)


class WindyVec(CorridorVec):
    def _play(self, actions):
        drawn = np.array([self.chance[row].random() for row in range(self.num_envs)])
        return super()._play(np.where(drawn < self.spec.wind, 2, actions))


@pytest.fixture
def windy(tmp_path):
    family, source = WindySpec().build(), RandomSpec(num_envs=2, env_steps=200).build()
    return family, collect(family, source, InlineSpec().build(), out=tmp_path / "windy", split=SPLIT, seed=0)


def test_random_transitions_give_no_false_faults_at_the_ends_of_episodes_either(windy):
    family, dataset = windy
    histories = Histories.open(dataset)
    slipped = sum(int((task.next_observations() == task.observations).sum()) for task in histories)
    assert slipped > histories.num_env_steps / 4
    assert verify(dataset, family) == []


def test_what_chance_cannot_do_is_found_where_transitions_are_random(windy):
    family, dataset = windy
    task = next(iter(Histories.open(dataset)))
    final = task.final_observations.copy()
    final[3] = 6 - final[3] if final[3] != 3 else 0
    changed = evolve(Histories.open(dataset), tasks=(evolve(task, final_observations=final),))
    with pytest.raises(HistoryFileError, match="history 0, env step 31: the final observation of an episode is"):
        refuse_faulty(changed, family, "x")


class Bare:
    """A family that can play, but not play again."""

    def __init__(self, family):
        self.name, self.spec, self.spaces, self.horizon = family.name, family.spec, family.spaces, family.horizon
        self.tasks, self.task, self.split = family.tasks, family.task, family.split
        self.optimal_returns = lambda tasks: np.array([family.optimal_return(task) for task in tasks])
        self.random_returns = lambda tasks: np.array([family.random_return(task) for task in tasks])


def test_a_family_that_cannot_replay_is_audited_as_far_as_it_can(dataset, corridor):
    bare = Bare(corridor)
    assert unchecked(corridor) == []
    assert unchecked(bare) == [
        "where actions lead is not checked: the task family 'corridor' has no 'next_observations'",
        "rewards and the ends of episodes are not checked: the task family 'corridor' has no 'replay'",
    ]
    assert verify(dataset, bare) == []


@pytest.mark.parametrize("reward", [1e30, -1e30, 1e5])
def test_a_reward_beyond_all_measure_is_found_without_a_replay_too(dataset, corridor, reward):
    histories = Histories.open(dataset)
    task = histories.tasks[0]
    rewards = task.rewards.copy()
    rewards[100] = reward
    changed = evolve(histories, tasks=(evolve(task, rewards=rewards), *histories.tasks[1:]))
    with pytest.raises(HistoryFileError, match=r"the set, .*history 1, env step 4: the reward is .*, beyond all"):
        refuse_faulty(changed, Bare(corridor), "the set")


def changed_history(histories, which):
    """Swap two tasks' ids, or spoil one number."""
    first, second, *others = histories.tasks
    changes = {
        "ids": lambda: (
            evolve(first, task_id=second.task_id, params=second.params),
            evolve(second, task_id=first.task_id, params=first.params),
        ),
        "reward": lambda: (evolve(first, rewards=np.where(np.arange(288) == 5, 0.5, first.rewards)), second),
        "flag": lambda: (evolve(first, truncations=first.truncations | (np.arange(288) == 5)), second),
        "observation": lambda: (evolve(first, observations=first.observations + np.uint8(3)), second),
    }
    return evolve(histories, tasks=(*changes[which](), *others))


@pytest.mark.parametrize("which", ["ids", "reward", "flag", "observation"])
@pytest.mark.parametrize("most", [MOST_REPLAYED_ENV_STEPS, 10])
def test_histories_to_train_on_are_refused_at_their_first_fault(dataset, corridor, monkeypatch, which, most):
    monkeypatch.setattr("cccad_data.audit.verify.MOST_REPLAYED_ENV_STEPS", most)
    histories = Histories.open(dataset)
    refuse_faulty(histories, corridor, "the set")
    refuse_faulty(Histories.open(dataset, lazy=True), corridor, "the set")
    with pytest.raises(HistoryFileError, match=r"^the set, corridor-7/goal-\d, .*; cccad-data verify names every"):
        refuse_faulty(changed_history(histories, which), corridor, "the set")


class Rounding(Corridor):
    """A corridor that replays its rewards in 64 bits."""

    def replay(self, *what):
        rewards, *flags = super().replay(*what)
        return rewards * (0.1 + 1e-9), *flags


def test_the_last_digits_of_floats_are_no_fault():
    class Tenths(CorridorVec):
        def _play(self, actions):
            rewards, terminations = super()._play(actions)
            return rewards * 0.1, terminations

    family = Rounding(CorridorSpec())
    family.make_vec = lambda tasks: Tenths(family.spec, np.array([task.params["goal"] for task in tasks]))
    histories = NoisyOracleSpec(num_envs=2, env_steps=64).build().collect(family, family.tasks, seed=0)
    for task in histories:
        assert set(np.unique(task.rewards)) <= {np.float32(0.0), np.float32(0.1)}
    header = {"spaces": family.spaces, "horizon": 8, "held_out_task_ids": [], "source": {"kind": "random"}}
    refuse_faulty(Histories(header=header, tasks=tuple(histories)), family, "x")


FILE = """
from attrs import frozen
from cccad_core.registry import register
from cccad_data.families.toys import CorridorSpec

@register("env", "corridor")
@frozen(kw_only=True)
class Spec(CorridorSpec):
    pass
"""


def test_without_the_family_the_last_line_does_not_claim_that_all_is_well(dataset, capsys):
    assert main(["verify", str(dataset)]) == 0
    output = capsys.readouterr().out
    assert "rewards and dynamics are not checked: no installed distribution offers the task family 'corridor'" in output
    assert "--imports FILE brings in one that a file registers" in output
    assert output.endswith(": no faults in what was checked\n")


def test_the_family_of_a_file_is_audited_and_described(dataset, tmp_path):
    pytest.importorskip("cccad_core", reason="a file registers its family with cccad-core")
    (tmp_path / "halls.py").write_text(FILE)
    code = (
        "import sys; from cccad_data.cli import main\n"
        "print([main([name, sys.argv[1], '--imports', sys.argv[2]]) for name in ('verify', 'info')])"
    )
    arguments = [sys.executable, "-c", code, str(dataset), str(tmp_path / "halls.py")]
    output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert f"{dataset}: no faults\n" in output
    assert "not checked" not in output
    assert "worst task corridor-7/goal-" in output
    assert output.endswith("[0, 0]\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "there is no such Python file"), ("import nothing_of_the_kind", "cannot be imported: ModuleNotFoundError")],
)
def test_a_file_that_cannot_be_imported_is_one_sentence(dataset, tmp_path, capsys, text, words):
    if text is not None:
        (tmp_path / "halls.py").write_text(text)
    assert main(["verify", str(dataset), "--imports", str(tmp_path / "halls.py")]) == 2
    assert f"cccad-data: {tmp_path / 'halls.py'}: {words}" in capsys.readouterr().err
