"""Several runs on one page: seeds pooled, lives of different length, other tasks, and what cannot be compared."""

import json
import re

import numpy as np
import pytest
from cccad_train.report.page import write_comparison, write_report
from cccad_train.report.runs import ReportError, pool, read_run

NUM_TASKS, NUM_REPLICAS = 8, 16


def visible(html):
    """Return the words that a reader sees."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)))


def with_environment(run, make_results, seed, num_episodes=4):
    """Add to the results of *run* an environment in which lives have *num_episodes*."""
    path = run / "evaluation" / "results.json"
    inner = make_results(seed, num_episodes)
    path.write_text(json.dumps({**make_results(seed), "worlds": {"x3": inner}}))
    return inner


def test_seeds_of_one_name_are_pooled_and_their_spread_counts(tmp_path, make_run):
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


def test_environments_are_pooled_over_seeds_and_left_out_where_a_seed_lacks_them(tmp_path, make_run, make_results):
    runs = [make_run(tmp_path, f"cad-0a1b2c3d-s{seed}", seed=seed) for seed in range(2)]
    with_environment(runs[0], make_results, seed=0)
    assert "In the environment x3" not in write_comparison(runs).read_text()
    with_environment(runs[1], make_results, seed=1)
    words = visible(write_comparison(runs).read_text())
    assert "cad (2 seeds): CAD, gated-query" in words.split("In the environment x3")[1]


def test_specs_of_one_name_that_differ_are_not_pooled(tmp_path, make_run):
    runs = [make_run(tmp_path, f"cad-{digest}-s0", num_episodes=30) for digest in ("00000000", "11111111")]
    words = visible(write_comparison(runs).read_text())
    assert "cad-00000000: CAD, gated-query" in words
    assert "cad-11111111: CAD, gated-query" in words
    assert "seeds):" not in words


def test_pooled_lives_are_cut_to_the_shortest_and_normalised(tmp_path, make_run):
    runs = [make_run(tmp_path, f"x-0a1b2c3d-s{seed}", seed=seed, num_episodes=30 + seed) for seed in range(2)]
    results, _ = pool([read_run(run) for run in runs])
    optimum = np.array(results["agents"]["optimal"]["returns"])
    assert optimum.shape[-1] == 30
    assert optimum == pytest.approx(1.0)
    assert len(results["agents"]["source"]["normalized_curve"]) == 50


def test_runs_on_other_tasks_have_no_difference(tmp_path, make_run):
    runs = [make_run(tmp_path, "cad-00000000-s0"), make_run(tmp_path, "ad-11111111-s0", seed=7)]
    path = runs[1] / "evaluation" / "results.json"
    path.write_text(path.read_text().replace("goal-3-5", "goal-3-4"))
    rows = visible(write_comparison(runs).read_text()).split("Difference")[1].split("Normalised return")[0]
    assert "cad: window of the same size" in rows
    assert "ad: CAD" not in rows.replace("cad: CAD", "")


def test_lives_of_different_length_are_told(tmp_path, make_run):
    runs = [make_run(tmp_path, f"cad-00000000-s{seed}", seed=seed, num_episodes=60 - 10 * seed) for seed in range(2)]
    runs.append(make_run(tmp_path, "ad-11111111-s0", num_episodes=40))
    words = visible(write_comparison(runs).read_text())
    assert "cad (2 seeds): lives of 50 to 60 episodes, cut to the shortest." in words
    assert "before its own end: cad (2 seeds) 50, ad 40." in words
    assert "Lives differ" not in visible(write_comparison(runs[2:]).read_text())


def test_the_training_length_is_marked_only_where_it_is_that_of_all_runs(tmp_path, make_run, make_results):
    runs = [make_run(tmp_path, f"{name}-00000000-s0") for name in ("cad", "ad")]
    assert ">training length</text>" in write_comparison(runs).read_text()
    path = runs[1] / "evaluation" / "results.json"
    path.write_text(json.dumps({**make_results(), "trained_episodes": 30.0}))
    assert ">training length</text>" not in write_comparison(runs).read_text()


def test_pages_lead_to_each_other_where_they_are_there(tmp_path, make_run):
    runs = [make_run(tmp_path, f"cad-00000000-s{seed}", seed=seed) for seed in range(2)]
    assert "<a " not in write_report(runs[0]).read_text()
    (runs[0] / "memory.html").write_text("latents")
    assert '<a href="memory.html">' in write_report(runs[0]).read_text()
    page = write_comparison(runs)
    assert re.findall(r'<a href="([^"]+)">', page.read_text()) == ["cad-00000000-s0/report.html"]
    assert (page.parent / "cad-00000000-s0/report.html").is_file()


def test_what_cannot_be_compared_is_refused(tmp_path, make_run):
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
