"""The memory report: what it measures against what is known exactly, and the command that writes it."""

import json
import re
import shutil
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from attrs import evolve
from cccad_core.agent import Agent
from cccad_core.memory.compressed import Compressed, CompressedState
from cccad_core.play import play
from cccad_core.specs import load, to_toml, unstructure
from cccad_envs.darkroom import DarkroomSpec
from cccad_train.experiment import ExperimentSpec
from cccad_train.memory_study.lives import AGE, Lent, Torn, Witness

FAMILY = DarkroomSpec(size=5, horizon=8).build()
TASKS = [FAMILY.place(goal=(0, 0)), FAMILY.place(goal=(4, 4)), FAMILY.place(goal=(2, 2))]


def live(agent, num_episodes=6, tasks=TASKS):
    environments = FAMILY.make_vec(tasks)
    return play(agent, environments, num_episodes=num_episodes, generator=torch.Generator().manual_seed(0))


def watch(ended, **how):
    lent = Lent(ended.memory.compressor, **how)
    witness = Witness(Agent(ended, ended.memory.with_compressor(lent)))
    return witness, lent, live(witness).returns


def without_age(memory):
    return torch.cat([value.flatten(1) for name, value in memory.items() if name == "latents"], 1)


def test_a_life_that_is_watched_is_the_life_that_is_not(policy):
    ended = policy(FAMILY)
    inner = ended.memory.compressor
    plain = live(Agent(ended)).returns
    assert torch.equal(plain, watch(ended)[2])
    assert ended.memory.compressor is inner


def test_every_write_of_every_life_is_kept(policy):
    witness, _, _ = watch(policy(FAMILY))
    assert len(witness.memories) == 1 + 3  # of 48 decisions, 12 in a window beside two latents
    assert all(bool(reached.all()) for reached in witness.reached)
    now, later = (without_age(memory) for memory in witness.memories[2:])
    assert not torch.allclose(now, later)


def test_a_frozen_memory_is_the_one_of_the_last_write_that_counts(policy):
    free, _, _ = watch(policy(FAMILY))
    frozen, _, _ = watch(policy(FAMILY), last_write=1)
    first, *others = [without_age(memory) for memory in frozen.memories[1:]]
    assert torch.equal(first, without_age(free.memories[1]))
    assert all(torch.equal(first, other) for other in others)


def test_a_lent_memory_is_what_a_life_begins_with(policy):
    free, _, _ = watch(policy(FAMILY))
    lent, _, _ = watch(policy(FAMILY), start=free.memories[2])
    assert torch.equal(without_age(lent.memories[0]), without_age(free.memories[2]))
    assert not torch.equal(without_age(lent.memories[1]), without_age(free.memories[1]))
    assert [memory[AGE].tolist() for memory in lent.memories] == [[number] * len(TASKS) for number in range(4)]


def test_the_openness_is_that_of_the_gate(policy):
    ended = policy(FAMILY)
    torch.nn.init.zeros_(ended.memory.compressor.gate.open.weight)
    torch.nn.init.constant_(ended.memory.compressor.gate.open.bias, 0.3)
    _, lent, _ = watch(ended)
    assert sorted(lent.openness) == [1, 2, 3]
    for opened in lent.openness.values():
        assert opened == pytest.approx([torch.tensor(0.3).sigmoid().item() * 1.6 - 0.3] * len(TASKS))


def test_attention_on_latents_is_that_of_the_whole_window_recomputed(policy):
    witness = Witness(Agent(policy(FAMILY)))
    memory, state, by_hand = witness.agent.policy.memory, witness.begin(2), []
    assert isinstance(memory, Compressed)
    block: Any = memory.backbone.layers[0]
    for turn in range(20):
        _, state = witness.act(state, torch.full((2, 2), turn % 5), greedy=True)
        assert isinstance(state.memory, CompressedState)
        tokens = state.memory.tokens[:, : turn % 12 + 1]  # a window is full after twelve
        window = torch.cat([memory.compressor.read(state.memory.latents), tokens], 1)
        tables = memory.backbone.rotary.at(torch.arange(window.shape[1]))
        q, k, _ = block.attention.project(block.norm_attention(window), memory.backbone.rotary, tables)
        shares = (q[:, :, -1:] @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        by_hand.append(shares[..., :2].sum(-1).mean(1).sum().item())
        done = torch.zeros(2, dtype=torch.bool)
        state = witness.observe(state, torch.zeros(2), done, done, torch.full((2, 2), (turn + 1) % 5))
    assert witness.looks.sum() == 40
    assert witness.mass[0].sum().item() == pytest.approx(sum(by_hand), rel=1e-5)
    first = by_hand[0] + by_hand[12]  # the first decision of each window stands beside no other token
    assert witness.mass[0, 2].item() == pytest.approx(first, rel=1e-5)


def torn(rule, own, donors):
    """Let *rule* play the own tasks while the donors are asked; returns what was asked and the own returns."""
    environments = FAMILY.make_vec(own)
    agent = SimpleNamespace(
        begin=lambda size: SimpleNamespace(num_writes=torch.zeros(size, dtype=torch.int64)),
        act=lambda state, *_, **__: (torch.as_tensor(rule(environments, donors)), state),
        observe=lambda state, *_: state,
    )
    asked = Torn(cast("Agent", agent), environments, donors, seed=0)
    return asked, play(asked, environments, num_episodes=1).returns[:, 0].numpy()


@pytest.mark.parametrize("whose", ["own", "donor"])
def test_one_who_does_what_is_best_for_a_task_agrees_with_that_task_alone(whose):
    own, donors = [TASKS[0], TASKS[1]], FAMILY.make_vec([TASKS[1], TASKS[0]])
    asked, returns = torn(lambda ours, others: (ours if whose == "own" else others).optimal_actions(), own, donors)
    other = {"own": "donor", "donor": "own"}[whose]
    rates = asked.agreement(np.array([True, True]))
    assert rates["compared"] == 1.0
    assert rates["actions_intact"] is None
    assert rates[f"actions_{whose}"] == rates[f"first_actions_{whose}"] == 1.0
    assert rates[f"actions_{other}"] == rates[f"first_actions_{other}"] == 0.0
    earned, lost = (returns, asked.returns) if whose == "own" else (asked.returns, returns)
    assert earned == pytest.approx(FAMILY.optimal_returns(TASKS[:2]))
    assert (lost == 0).all()


def test_lives_on_a_memory_of_their_own_task_are_counted_apart():
    own, donors = [TASKS[0], TASKS[1]], FAMILY.make_vec([TASKS[0], TASKS[0]])
    asked, _ = torn(lambda _, others: others.optimal_actions(), own, donors)
    rates = asked.agreement(np.array([False, True]))
    assert [rates[f"first_actions_{whose}"] for whose in ("intact", "own", "donor")] == [1.0, 0.0, 1.0]


def test_environments_that_look_otherwise_are_not_compared():
    smaller = DarkroomSpec(size=3, horizon=8).build()
    stranger = smaller.make_vec([smaller.place(goal=(1, 1))])
    asked, _ = torn(lambda ours, _: ours.optimal_actions(), TASKS[:1], stranger)
    rates = asked.agreement(np.array([True]))
    assert rates["actions_own"] is None
    assert rates["compared"] == 0.0
    assert asked.returns.tolist() == [0.0]


@pytest.fixture(scope="module")
def reported(micro_run, cccad, tmp_path_factory):
    """What the command said, wrote as JSON and wrote as a page, on a copy of the finished run."""
    out = tmp_path_factory.mktemp("memory")
    shutil.copytree(micro_run.parent, out, symlinks=True, dirs_exist_ok=True)
    settings = ("evaluate.environments.long={ horizon = 12 }", "evaluate.num_episodes=12")
    ended = cccad("evaluate", out / micro_run.name, *(f"--set={text}" for text in settings), "--device", "cpu")
    assert ended.code == 0, ended.err
    done = cccad("memory-report", out / micro_run.name, "--lives", 6, "--device", "cpu")
    assert done.code == 0, done.err
    measured = json.loads((out / micro_run.name / "evaluation" / "memory.json").read_text())
    return done, measured, out / micro_run.name / "memory.html"


def test_the_command_ends_with_a_table_and_the_path_of_the_page(reported):
    done, _, page = reported
    lines = done.out.splitlines()
    assert lines[-1] == f"memory: {page}"
    assert [line.split()[0] for line in lines[-8:-1]] == ["write", "0", "1", "2", "5", "10", "20"]
    assert "goal right" in lines[-8]


def test_every_part_is_measured_at_the_writes_it_promises(reported):
    _, measured, _ = reported
    assert measured["format"] == "cccad-memory/1"
    assert measured["tasks"] == {"training": 14, "held_out": 2}
    assert measured["lives"] == {"training": 14, "held_out": 6}
    assert [row["write"] for row in measured["probe"]["by_write"]] == [1, 2, 5, 10, 20]
    assert set(measured["probe"]["by_write"][0]["r2"]) == {"goal_x", "goal_y"}
    assert measured["probe"]["by_write"][0]["transferred"]["r2"] == measured["probe"]["by_write"][0]["r2"]
    assert measured["probe"]["chance"] == {"goal": pytest.approx(1 / 14)}
    assert (measured["seed"], measured["horizon"]) == (0, 8)
    assert [row["write"] for row in measured["swap"]["by_write"]] == [0, 1, 2, 5, 10, 20]
    assert np.shape(measured["swap"]["matrix"]["donor"]) == (2, 2)
    for row in measured["swap"]["by_write"]:
        assert row["compared"] == 1.0
        assert {f"first_actions_{whose}" for whose in ("own", "donor", "intact")} < set(row)
    assert [row["write"] for row in measured["latents"]] == list(range(1, len(measured["latents"]) + 1))
    for row in measured["latents"]:
        assert 1 <= row["rank_within_a_life"] <= 2
        assert 0 < row["gate"] < 1
    assert set(measured["retention"]["curves"]) == {"intact", "zeroed", "frozen after write 1", "frozen after write 5"}
    assert measured["retention"]["writes"][:2] == [12, 24]
    assert all(0 < share < 1 for share in measured["attention"]["by_layer"])


def test_returns_and_writes_are_told_environment_by_environment_as_they_were_evaluated(reported):
    _, measured, page = reported
    own, other = measured["worlds"]
    assert [(row["world"], row["horizon"]) for row in measured["worlds"]] == [(None, 8), ("long", 12)]
    summary = json.loads((page.parent / "evaluation" / "results.json").read_text())["summary"]
    assert own["agents"]["cad"] == {"return": summary["cad"]["normalized_last10_mean"], "writes": 12 * 8 / 12 - 1}
    assert other["agents"]["cad"]["writes"] == 12 * 12 / 12 - 1
    assert set(other["agents"]) == {"cad", "ad", "blind", "optimal", "random"}
    html = page.read_text()
    assert "Environment by environment" in html
    assert '<th class="number">long</th>' in html


def test_on_the_diagonal_of_the_swap_matrix_both_terms_are_one(reported):
    matrix = reported[1]["swap"]["matrix"]
    assert np.diag(matrix["own"]) == pytest.approx(np.diag(matrix["donor"]))


def test_lives_are_one_life_until_the_memory_is_taken_away(reported):
    curves = reported[1]["retention"]["curves"]
    intact = curves["intact"]
    assert curves["zeroed"] != intact
    for number in (1, 5):
        same = (number + 1) * 12 // 8  # the write after the last that counts comes at decision 12 (number + 1)
        assert curves[f"frozen after write {number}"][:same] == pytest.approx(intact[:same])


def test_the_page_is_whole_and_stands_alone(reported):
    html = reported[2].read_text()
    assert html.startswith("<!doctype html>")
    for tag in ("svg", "table", "section", "figure", "ul", "tr", "main"):
        assert len(re.findall(rf"<{tag}[ >]", html)) == html.count(f"</{tag}>"), tag
    assert "nan" not in html.lower().replace("nano", "")
    assert not re.search(r"https?://|<script|<link", html)
    for heading in ("What a linear probe reads", "Swap matrix after write 20", "Attention on latents", "Retention"):
        assert heading in html


def test_a_run_from_before_a_field_was_added_is_measured_the_same_and_the_page_goes_where_it_is_sent(
    reported, cccad, tmp_path
):
    _, measured, page = reported
    run, out = tmp_path / page.parent.name, tmp_path / "elsewhere" / "m.html"
    shutil.copytree(page.parent, run, symlinks=True)
    (run / "content.json").unlink()  # which such a run had not, either
    for path in (run / "policy" / "spec.toml", run / "spec.toml"):
        before = path.read_text()
        path.write_text(before.replace("carry = 0\n", ""))
        assert path.read_text() != before
    assert cccad("memory-report", run, "--lives", 6, "--device", "cpu", "--out", out).code == 0
    assert json.loads((run / "evaluation" / "memory.json").read_text()) == measured
    link = '<p><a href="report.html">The report of the run</a></p>'
    assert out.read_text().split() == page.read_text().replace(link, "").split()
    assert link in page.read_text()
    assert '<a href="memory.html">' in (page.parent / "report.html").read_text()


def test_an_agent_without_latents_is_one_sentence_and_exit_2(copied_run, cccad):
    spec = load(copied_run / "spec.toml", ExperimentSpec)
    plain = evolve(spec, policy=spec.controls["ad"].policy, pretrain=None)
    (copied_run / "spec.toml").write_text(to_toml(unstructure(plain)))
    shutil.rmtree(copied_run / "policy")
    shutil.copytree(copied_run / "controls" / "ad" / "policy", copied_run / "policy")
    (copied_run / "content.json").unlink()
    ended = cccad("memory-report", copied_run, "--device", "cpu")
    assert ended.code == 2
    assert ended.err == f"{copied_run.name}: 'window' has no latents to look into; name a run whose compressor has\n"


def test_a_run_without_a_policy_is_one_sentence_and_exit_2(copied_run, cccad, tmp_path):
    shutil.rmtree(copied_run / "policy")
    ended = cccad("memory-report", copied_run, "--device", "cpu")
    assert ended.code == 2
    assert ended.err.startswith("there is no released policy in ")
    assert ended.err.count("\n") == 1
    assert not (copied_run / "memory.html").exists()
    assert cccad("memory-report", tmp_path / "none").code == 2
