"""The report of a run folder: its numbers, its manners without the optional files, and its words when it cannot be."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from cccad_train.files import RunFileError
from cccad_train.report.charts import metric_charts
from cccad_train.report.page import REFERENCES, summary_table, write_figure, write_report
from cccad_train.report.runs import ReportError, check_results, read_agents, read_run

NUM_TASKS = 8


@pytest.fixture
def run_dir(tmp_path, make_run):
    return make_run(tmp_path)


def visible(html):
    """Return the words that a reader sees."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)))


def with_environment(run, make_results, seed, num_episodes=4):
    """Add to the results of *run* an environment in which lives have *num_episodes*."""
    path = run / "evaluation" / "results.json"
    inner = make_results(seed, num_episodes)
    path.write_text(json.dumps({**make_results(seed), "worlds": {"x3": inner}}))
    return inner


def test_the_report_tells_the_numbers_of_every_agent(run_dir, make_results):
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


def test_every_task_has_its_row_and_every_column_its_worst(run_dir, make_results):
    html = write_report(run_dir).read_text()
    for task in make_results()["tasks"]:
        assert task["task_id"] in html
    num_columns = sum("returns" in agent for agent in make_results()["agents"].values()) - len(REFERENCES)
    assert html.count('title="the worst task of this agent"') == num_columns
    worst = int(np.argmin(read_agents(make_results())[0].by_task))
    first_row = re.search(r'class="scroll tall".*?<code>(.*?)</code>', html, re.DOTALL)
    assert first_row is not None
    assert first_row[1] == make_results()["tasks"][worst]["task_id"]


def test_compressions_and_the_length_of_training_are_marked_in_the_curve(run_dir):
    html = write_report(run_dir).read_text()
    wide = html.split('class="chart wide"')[1].split("</svg>")[0]
    assert wide.count('class="rug"') == len(range(43, 2_000, 43))
    assert ">training length</text>" in html
    words = visible(html)
    assert "A history in training is compressed 9 times; a life of the same length in evaluation 9.3 times." in words


def test_optional_files_and_keys_may_be_missing(tmp_path, make_results):
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


def test_a_summary_in_the_results_is_shown_as_it_stands(run_dir, make_results):
    path = run_dir / "evaluation" / "results.json"
    row = {"normalized_last10_mean": 0.77, "iqm": 0.78, "ci95": [0.71, 0.83], "worst_task_normalized": 0.123}
    path.write_text(json.dumps({**make_results(), "summary": {"cad": row}}))
    words = visible(write_report(run_dir).read_text())
    assert "0.77 of the optimum (interquartile mean 0.78, 95 % interval 0.71 – 0.83)" in words


def test_one_life_per_task_is_reported_without_an_interval(run_dir, make_results):
    results = make_results()
    for agent in results["agents"].values():
        if "returns" in agent:
            agent["returns"] = [lives[:1] for lives in agent["returns"]]
    (run_dir / "evaluation" / "results.json").write_text(json.dumps(results))
    words = visible(write_report(run_dir).read_text())
    assert "95 % interval" not in words.split("Learning in context")[0]
    assert read_agents(results)[0].row["ci95"] is None


def test_a_last_metrics_line_cut_off_by_a_kill_is_left_out(run_dir, make_metrics):
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
def test_results_that_cannot_be_read_are_refused_in_one_sentence(run_dir, change, sentence, make_results):
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


def test_the_terminal_table_has_one_aligned_line_per_agent(make_results):
    lines = summary_table(make_results()).splitlines()
    assert len(lines) == 1 + len(make_results()["agents"])
    assert lines[1].startswith("CAD, gated-query ")
    assert " ".join(lines[0].split()) == "last 10 IQM 95 % worst task episodes to 0.9 compressions actions/s"
    assert len({len(line) for line in lines}) == 1
    with pytest.raises(ReportError, match="this version reads"):
        summary_table({"format": "x"})


def test_a_score_a_little_below_zero_is_not_written_as_minus_zero(make_results):
    summary = {"cad": {"normalized_last10_mean": -0.004, "iqm": -0.006, "ci95": [-0.01, 0.004]}}
    row = summary_table({**make_results(), "summary": summary}).splitlines()[1]
    assert row.removeprefix("CAD, gated-query").split()[:5] == ["0.00", "-0.01", "-0.01", "–", "0.00"]


def test_every_environment_has_a_table_of_its_own_that_says_how_many_episodes_it_is_of(run_dir, make_results):
    inner = with_environment(run_dir, make_results, seed=1)
    page = write_report(run_dir).read_text()
    assert page.count("<th>agent</th>") == 2
    assert page.count('<p class="hint">') == page.count("</table>")
    assert "In the environment x3" in visible(page)
    assert '<th class="number">last 4 or 10</th>' in page  # the source has 50 episodes
    del inner["agents"]["source"]
    first, second = summary_table({**make_results(), "worlds": {"x3": inner}}).split("\n\nin x3:\n")
    assert first == summary_table(make_results())
    assert " ".join(second.split()).startswith("last 4 IQM")


def test_a_fault_in_an_environment_is_named_with_it(run_dir, make_results):
    results = {**make_results(), "worlds": {"x3": {**make_results(), "agents": {}}}}
    (run_dir / "evaluation" / "results.json").write_text(json.dumps(results))
    with pytest.raises(ReportError, match="environment 'x3': the results hold no agents"):
        write_report(run_dir)


def test_the_difference_to_every_control_is_paired_and_has_its_interval(run_dir, make_results):
    agents = {agent.name: agent for agent in read_agents(make_results())}
    rows = visible(write_report(run_dir).read_text()).split("Difference")[1].split("Normalised return")[0]
    for name in ("window", "full", "zeroed", "swapped"):
        mean = agents["cad"].row["normalized_last10_mean"] - agents[name].row["normalized_last10_mean"]
        assert re.search(rf"{agents[name].label} {re.escape(f'{mean:+.2f}')} \S+ – \S+ \d of {NUM_TASKS}", rows)
    assert "optimum" not in rows
    assert "PPO" not in rows  # played other tasks


def test_a_page_that_cannot_be_written_leaves_the_one_before(run_dir, monkeypatch):
    before = write_report(run_dir).read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    (run_dir / "memory.html").write_text("latents")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(run_dir)
    assert (run_dir / "report.html").read_bytes() == before
    assert list(run_dir.glob("*.partial")) == []


def test_a_task_a_little_below_zero_is_not_written_as_minus_zero(run_dir, make_results):
    results = make_results()
    random = np.array([task["random_return"] for task in results["tasks"]])
    lives = np.broadcast_to(random[:, None, None] - 1e-5, (NUM_TASKS, 2, 100))
    results["agents"]["zeroed"]["returns"] = lives.tolist()
    (run_dir / "evaluation" / "results.json").write_text(json.dumps(results))
    assert not re.search(r"-0\.00\b", visible(write_report(run_dir).read_text()))


def test_weights_and_seconds_of_training_are_told(run_dir, make_results):
    results = make_results()
    results["agents"]["cad"]["num_weights"] = 37_957
    (run_dir / "evaluation" / "results.json").write_text(json.dumps(results))
    words = visible(write_report(run_dir).read_text())
    assert "37,957 weights" in words
    assert "train · 2 s" in words


def test_metrics_become_one_chart_each_with_losses_first_and_lost_values_counted(make_metrics):
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


def test_good_results_pass_the_check_unchanged(make_results):
    results = make_results()
    assert check_results(results) is results
