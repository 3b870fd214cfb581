"""The report of a run folder: its numbers, its manners without the optional files, and its words when it cannot be."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from cccad_train.charts import Line, line_chart, metric_charts, short, ticks
from cccad_train.files import RunFileError
from cccad_train.report import REFERENCES, summary_table, write_comparison, write_figure, write_report
from cccad_train.report_data import ReportError, check_results, pool, read_agents, read_run

NUM_TASKS, NUM_REPLICAS, HORIZON = 8, 16, 20
OPTIMAL = np.array([17.0, 16.0, 18.0, 15.0, 19.0, 16.0, 17.0, 14.0])
RANDOM = np.array([0.3, 0.2, 0.5, 0.1, 0.9, 0.2, 0.3, 0.1])


def learning(rng, num_episodes, end, pace):
    """Return plausible returns of something that learns, `task replica episode`."""
    slow = np.linspace(0.7, 1.3, NUM_TASKS)[:, None, None]
    share = end * (1 - np.exp(-np.arange(num_episodes) / (pace * slow)))
    noise = rng.normal(0, 0.08, size=(NUM_TASKS, NUM_REPLICAS, num_episodes))
    span = (OPTIMAL - RANDOM)[:, None, None]
    return np.clip(RANDOM[:, None, None] + span * (share + noise), 0, OPTIMAL[:, None, None]).round()


def make_results(seed=0, num_episodes=100):
    """Return results of the known format with an agent on trial and six controls."""
    rng = np.random.default_rng(seed)
    every = tuple(range(43, num_episodes * HORIZON, 43))
    agents = {
        "cad": ("CAD, gated-query", "agent", learning(rng, num_episodes, end=0.96, pace=9), every),
        "optimal": ("optimum", "control", np.ones((NUM_TASKS, 2, num_episodes)) * OPTIMAL[:, None, None], ()),
        "random": ("random policy", "control", learning(rng, num_episodes, end=0.01, pace=1), ()),
        "window": ("window of the same size", "control", learning(rng, num_episodes, end=0.8, pace=14), ()),
        "full": ("full history", "control", learning(rng, num_episodes, end=0.97, pace=8), ()),
        "zeroed": ("latents zeroed", "control", learning(rng, num_episodes, end=0.5, pace=20), ()),
        "swapped": ("latents of another task", "control", learning(rng, num_episodes, end=0.3, pace=25), ()),
    }
    entries = {
        name: {
            "label": label,
            "role": role,
            "description": f"What {name} does & why <it> is here.",
            "returns": returns.tolist(),
            "compressions": [list(writes)] * NUM_TASKS if writes else [],
            "compressions_per_history": float(len(writes)),
            "actions_per_s": 36_000.0,
        }
        for name, (label, role, returns, writes) in agents.items()
    }
    source = (0.95 * (1 - np.exp(-np.arange(50) / 12))).tolist()
    entries["source"] = {"label": "PPO, its own life", "role": "control", "description": "", "normalized_curve": source}
    tasks = [
        {
            "task_id": f"darkroom-9x9/goal-{index}-{8 - index}",
            "params": {"goal_x": index, "goal_y": 8 - index},
            "split": "held-out",
            "optimal_return": OPTIMAL[index],
            "random_return": RANDOM[index],
        }
        for index in range(NUM_TASKS)
    ]
    return {
        "format": "cccad-results/1",
        "agents": entries,
        "tasks": tasks,
        "horizon": HORIZON,
        "trained_episodes": 50.0,
        "training": {"writes_per_history": 9.0, "evaluation_writes_at_same_length": 9.3},
        "spec_digest": "0a1b2c3d",
    }


def make_metrics():
    """Return metrics of two stages, one of them with a value that is not finite."""
    rng = np.random.default_rng(0)
    lines = [{"stage": "collect", "env_step": 10_000, "time_s": 3.0, "return": 4.5}]
    for update in range(0, 2_000, 10):
        noise = rng.normal(0, 0.03)
        loss = 2 * np.exp(-update / 300) + 0.1 + noise
        lines.append({"stage": "pretrain", "update": update, "time_s": 1.0, "loss": loss})
        numbers = {"max_writes": min(9, update // 200), "action_loss": loss + 0.3, "lr": 3e-4 * (1 - update / 2_000)}
        lines.append({"stage": "train", "update": update, "time_s": 2.0, **numbers})
    lines.append({"stage": "train", "update": 2_000, "time_s": 2.0, "action_loss": float("nan")})
    return lines


def make_run(parent, name="cad_darkroom-0a1b2c3d-s0", *, seed=0, num_episodes=100):
    """Return a run folder that holds everything that a report may read."""
    run_dir = parent / name
    (run_dir / "evaluation").mkdir(parents=True)
    results = make_results(seed, num_episodes) | {"spec_digest": name.split("-")[-2]}
    (run_dir / "evaluation" / "results.json").write_text(json.dumps(results))
    card = {"tasks": 73, "histories": 1_168, "env_steps": 1_168_000, "return": {"early": 0.31, "late": 15.72}}
    (run_dir / "evaluation" / "data_card.json").write_text(json.dumps(card))
    versions = {"cccad-core": "0.1.0", "torch": "2.13.0"}
    meta = {"versions": versions, "git_commit": "c0ffee", "argv": ["cccad-run", "x.toml"]}
    (run_dir / "meta.json").write_text(json.dumps(meta))
    (run_dir / "spec.toml").write_text('name = "cad_darkroom"\nseed = 0\n\n[policy.compressor]\nkind = "gated-query"\n')
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in make_metrics()))
    return run_dir


@pytest.fixture
def run_dir(tmp_path):
    return make_run(tmp_path)


def visible(html):
    """Return the words that a reader sees."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)))


def test_the_report_tells_the_numbers_of_every_agent(run_dir):
    html = write_report(run_dir).read_text()
    agents = read_agents(make_results())
    for agent in agents:
        assert agent.label in html
        assert f"{agent.row['normalized_last10_mean']:.2f}" in html
    score = f"{agents[0].row['normalized_last10_mean']:.2f}"
    assert f"CAD, gated-query ends at {score} of the optimum" in visible(html)
    assert "8 held-out tasks that it never saw" in visible(html)


def test_the_report_needs_nothing_from_outside(run_dir):
    html = write_report(run_dir).read_text()
    assert not re.search(r"https?:|src=|@import|url\(|<script|<link", html)
    assert "prefers-color-scheme: dark" in html


def test_the_report_is_well_formed_and_escapes_what_it_quotes(run_dir):
    html = write_report(run_dir).read_text()
    assert "What cad does &amp; why &lt;it&gt; is here." in html
    for tag in ("svg", "table", "section", "details", "figure", "dl", "ul", "tr", "div", "main"):
        assert len(re.findall(rf"<{tag}[ >]", html)) == html.count(f"</{tag}>"), tag


def test_the_figure_is_an_svg_of_its_own_with_a_legend(run_dir, tmp_path):
    root = ET.parse(write_figure(run_dir, tmp_path / "curve.svg")).getroot()
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert {"CAD, gated-query", "window of the same size", "PPO, its own life", "episode", "return"} <= set(words)


def test_the_same_run_gives_the_same_page(run_dir):
    assert write_report(run_dir).read_bytes() == write_report(run_dir).read_bytes()


def test_every_task_has_its_row_and_every_column_its_worst(run_dir):
    html = write_report(run_dir).read_text()
    for task in make_results()["tasks"]:
        assert task["task_id"] in html
    num_columns = sum("returns" in agent for agent in make_results()["agents"].values()) - len(REFERENCES)
    assert html.count('title="the worst task of this agent"') == num_columns
    worst = int(np.argmin(read_agents(make_results())[0].by_task))
    first_row = re.search(r'class="scroll tall".*?<code>(.*?)</code>', html, re.DOTALL)
    assert first_row[1] == make_results()["tasks"][worst]["task_id"]


def test_compressions_and_the_length_of_training_are_marked_in_the_curve(run_dir):
    html = write_report(run_dir).read_text()
    assert html.count('class="rug"') == len(range(43, 2_000, 43))
    assert ">training length</text>" in html
    words = visible(html)
    assert "A history in training is compressed 9 times; a life of the same length in evaluation 9.3 times." in words


def test_optional_files_and_keys_may_be_missing(tmp_path):
    results = make_results()
    for key in ("horizon", "trained_episodes", "training", "spec_digest"):
        del results[key]
    for task in results["tasks"]:
        del task["params"], task["split"]
    results["agents"] = {name: {"returns": results["agents"][name]["returns"]} for name in ("cad", "random")}
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "results.json").write_text(json.dumps(results))
    words = visible(write_report(tmp_path).read_text())
    assert "cad ends at" in words
    assert "on 8 tasks, with frozen weights" in words
    assert "no spec.toml" in words


def test_a_summary_in_the_results_is_shown_as_it_stands(run_dir):
    path = run_dir / "evaluation" / "results.json"
    row = {"normalized_last10_mean": 0.77, "iqm": 0.78, "ci95": [0.71, 0.83], "worst_task_normalized": 0.123}
    path.write_text(json.dumps({**make_results(), "summary": {"cad": row}}))
    words = visible(write_report(run_dir).read_text())
    assert "0.77 of the optimum (interquartile mean 0.78, 95 % interval 0.71 – 0.83)" in words


def test_one_life_per_task_is_reported_without_an_interval(run_dir):
    results = make_results()
    for agent in results["agents"].values():
        if "returns" in agent:
            agent["returns"] = [lives[:1] for lives in agent["returns"]]
    (run_dir / "evaluation" / "results.json").write_text(json.dumps(results))
    words = visible(write_report(run_dir).read_text())
    assert "95 % interval" not in words.split("Learning in context")[0]
    assert read_agents(results)[0].row["ci95"] is None


def test_a_last_metrics_line_cut_off_by_a_kill_is_left_out(run_dir):
    path = run_dir / "metrics.jsonl"
    path.write_text(path.read_text() + '{"stage": "train", "upd')
    assert len(read_run(run_dir).metrics) == len(make_metrics())


def test_a_broken_metrics_line_elsewhere_is_named(run_dir):
    path = run_dir / "metrics.jsonl"
    path.write_text("{broken\n" + path.read_text())
    with pytest.raises(RunFileError, match=r"metrics\.jsonl:1: this is not valid JSON"):
        write_report(run_dir)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda results: results.update(format="cccad-results/2"), "of format 'cccad-results/2'; this version reads"),
        (lambda results: results.pop("format"), "of format None"),
        (lambda results: results.update(agents={}), "hold no agents"),
        (lambda results: results["tasks"][3].pop("optimal_return"), "must be a table that has 'optimal_return'"),
        (lambda results: results["agents"]["cad"].pop("returns"), "'cad' has neither 'returns' nor 'normalized_curve'"),
        (lambda results: results["agents"]["cad"]["returns"].pop(), "agent 'cad': 'optimal' must have one value"),
        (lambda results: results["agents"]["cad"]["returns"][0].pop(), "agent 'cad': .* ragged"),
        (lambda results: results["tasks"][0].update(optimal_return=0.0), "optimum must be above the random policy"),
    ],
)
def test_results_that_cannot_be_read_are_refused_in_one_sentence(run_dir, change, sentence):
    results = make_results()
    change(results)
    (run_dir / "evaluation" / "results.json").write_text(json.dumps(results))
    with pytest.raises(ReportError, match=sentence):
        write_report(run_dir)


def test_a_run_without_results_or_with_broken_ones_says_so(tmp_path):
    with pytest.raises(ReportError, match=r"there is no evaluation/results\.json; evaluate the run first"):
        write_report(tmp_path)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "results.json").write_text('{"format": ')
    with pytest.raises(RunFileError, match=r"results\.json: this is not valid JSON"):
        write_report(tmp_path)
    (tmp_path / "evaluation" / "results.json").write_text("[1]")
    with pytest.raises(ReportError, match="of format None"):
        write_report(tmp_path)


def test_the_terminal_table_has_one_aligned_line_per_agent():
    lines = summary_table(make_results()).splitlines()
    assert len(lines) == 1 + len(make_results()["agents"])
    assert lines[1].startswith("CAD, gated-query ")
    assert " ".join(lines[0].split()) == "last 10 IQM 95 % worst task episodes to 0.9 compressions actions/s"
    assert len({len(line) for line in lines}) == 1
    with pytest.raises(ReportError, match="this version reads"):
        summary_table({"format": "x"})


def test_a_score_a_little_below_zero_is_not_written_as_minus_zero():
    summary = {"cad": {"normalized_last10_mean": -0.004, "iqm": -0.006, "ci95": [-0.01, 0.004]}}
    row = summary_table({**make_results(), "summary": summary}).splitlines()[1]
    assert row.removeprefix("CAD, gated-query").split()[:5] == ["0.00", "-0.01", "-0.01", "–", "0.00"]


def test_seeds_of_one_name_are_pooled_and_their_spread_counts(tmp_path):
    runs = [make_run(tmp_path, f"cad_darkroom-0a1b2c3d-s{seed}", seed=seed, num_episodes=60) for seed in range(2)]
    runs.append(make_run(tmp_path, "ad_darkroom-11111111-s0", seed=7, num_episodes=40))
    path = write_comparison(runs)
    words = visible(path.read_text())
    assert path.parent == tmp_path
    assert "3 runs on darkroom-9x9: cad_darkroom (2 seeds): CAD, gated-query" in words
    assert "ad_darkroom: CAD, gated-query" in words
    results, seeds = pool([read_run(run) for run in runs[:2]])
    assert np.shape(results["agents"]["cad"]["returns"]) == (NUM_TASKS, 2 * NUM_REPLICAS, 60)
    assert seeds["cad"] == [0] * NUM_REPLICAS + [1] * NUM_REPLICAS


def with_world(run, seed, num_episodes=4):
    """Add to the results of *run* a world in which lives have *num_episodes*."""
    path = run / "evaluation" / "results.json"
    inner = make_results(seed, num_episodes)
    path.write_text(json.dumps({**make_results(seed), "worlds": {"x3": inner}}))
    return inner


def test_every_world_has_a_table_of_its_own_that_says_how_many_episodes_it_is_of(run_dir):
    inner = with_world(run_dir, seed=1)
    page = write_report(run_dir).read_text()
    assert page.count("<th>agent</th>") == 2
    assert "In the world x3" in visible(page)
    assert '<th class="number">last 4 or 10</th>' in page  # the source has 50 episodes
    del inner["agents"]["source"]
    first, second = summary_table({**make_results(), "worlds": {"x3": inner}}).split("\n\nin x3:\n")
    assert first == summary_table(make_results())
    assert " ".join(second.split()).startswith("last 4 IQM")


def test_worlds_are_pooled_over_seeds_and_left_out_where_a_seed_lacks_them(tmp_path):
    runs = [make_run(tmp_path, f"cad-0a1b2c3d-s{seed}", seed=seed) for seed in range(2)]
    with_world(runs[0], seed=0)
    assert "In the world x3" not in write_comparison(runs).read_text()
    with_world(runs[1], seed=1)
    words = visible(write_comparison(runs).read_text())
    assert "cad (2 seeds): CAD, gated-query" in words.split("In the world x3")[1]


def test_a_fault_in_a_world_is_named_with_the_world(run_dir):
    results = {**make_results(), "worlds": {"x3": {**make_results(), "agents": {}}}}
    (run_dir / "evaluation" / "results.json").write_text(json.dumps(results))
    with pytest.raises(ReportError, match="world 'x3': the results hold no agents"):
        write_report(run_dir)


def test_specs_of_one_name_that_differ_are_not_pooled(tmp_path):
    runs = [make_run(tmp_path, f"cad-{digest}-s0", num_episodes=30) for digest in ("00000000", "11111111")]
    words = visible(write_comparison(runs).read_text())
    assert "cad-00000000: CAD, gated-query" in words
    assert "cad-11111111: CAD, gated-query" in words
    assert "seeds):" not in words


def test_pooled_lives_are_cut_to_the_shortest_and_normalised(tmp_path):
    runs = [make_run(tmp_path, f"x-0a1b2c3d-s{seed}", seed=seed, num_episodes=30 + seed) for seed in range(2)]
    results, _ = pool([read_run(run) for run in runs])
    optimum = np.array(results["agents"]["optimal"]["returns"])
    assert optimum.shape[-1] == 30
    assert optimum == pytest.approx(1.0)
    assert len(results["agents"]["source"]["normalized_curve"]) == 50


def test_what_cannot_be_compared_is_refused(tmp_path):
    first = make_run(tmp_path, "cad-0a1b2c3d-s0")
    second = make_run(tmp_path, "cad-0a1b2c3d-s1")
    path = second / "evaluation" / "results.json"
    path.write_text(path.read_text().replace("goal-3-5", "goal-3-4"))
    with pytest.raises(ReportError, match="seeds of one experiment but have different tasks"):
        write_comparison([first, second])
    path.write_text(path.read_text().replace("darkroom-9x9/", "dark-key-to-door-9x9/"))
    with pytest.raises(ReportError, match="different families cannot be compared: dark-key-to-door-9x9, darkroom-9x9"):
        write_comparison([first, second])
    with pytest.raises(ReportError, match="at least one run"):
        write_comparison([])


def test_ticks_are_round_and_cover_the_range():
    assert ticks(0.0, 17.3) == [0, 5, 10, 15, 20]
    assert ticks(-0.2, 1.0) == [-0.25, 0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(0.0, 0.0)[-1] > 0
    labels = [short(value) for value in (0.25, 16.543, 5.0, 12_345.6, 1.5e-4)]
    assert labels == ["0.25", "16.5", "5", "12,346", "1.5e-4"]


def test_a_chart_puts_values_where_the_axes_say():
    line = Line(css="c0", x=np.array([0.0, 50.0, 100.0]), y=np.array([0.0, 5.0, 10.0]))
    chart = line_chart([line], labels=("x", "y"), levels=[("top", 10.0)], mark=("beyond", 101.0), rug=[50.0, 200.0])
    frame = chart["frame"]
    middle = f"{(frame.left + frame.right) / 2:.1f}"
    assert chart["lines"][0]["points"].split()[0] == f"{frame.left:.1f},{frame.bottom:.1f}"
    assert chart["lines"][0]["points"].split()[1] == f"{middle},{(frame.top + frame.bottom) / 2:.1f}"
    assert chart["levels"] == [(frame.top, "top 10")]
    assert chart["mark"] is None
    assert chart["rug"] == [middle]


def test_a_long_curve_is_drawn_as_means_over_equal_stretches():
    line = Line(css="c0", x=np.arange(10_000.0), y=np.tile([0.0, 1.0], 5_000))
    points = line_chart([line], labels=("x", "y"))["lines"][0]["points"].split()
    assert len(points) == 250
    assert len({point.split(",")[1] for point in points}) == 1


def test_metrics_become_one_chart_each_with_losses_first_and_lost_values_counted():
    charts = metric_charts(make_metrics())
    titles = [(chart["stage"], chart["title"], chart["num_lost"]) for chart in charts]
    assert titles == [
        ("pretrain", "loss", 0),
        ("train", "action_loss", 1),
        ("train", "max_writes", 0),
        ("train", "lr", 0),
    ]


def test_the_majority_is_a_second_line_beside_its_accuracy_and_has_no_chart_of_its_own(run_dir):
    rows = [
        {"stage": "pretrain", "update": 10 * n, "a": 2.0 - n, "a_accuracy": n / 9, "a_majority": 0.4} for n in range(9)
    ]
    charts = metric_charts(rows)
    assert [(chart["title"], chart["majority"]) for chart in charts] == [("a", None), ("a_accuracy", "0.4")]
    assert [[line["css"] for line in chart["lines"]] for chart in charts] == [["c0"], ["c2", "c0"]]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "ends at 0.8889 (dashed: the most common value, 0.4)" in visible(write_report(run_dir).read_text())


def test_good_results_pass_the_check_unchanged():
    results = make_results()
    assert check_results(results) is results
