"""Histories, policies and runs are known by what they hold, not by where they lie or where a command is started."""

import json
import multiprocessing
import resource
import shutil

import pytest
from cccad_data import Histories, InlineSpec, NoisyOracleSpec, collect
from cccad_envs.darkroom import DarkroomSpec
from cccad_train.report.runs import ReportError, pool, read_run
from cccad_train.run.folder import RunFolder

QUICK = ["--set", "train.num_updates=6", "--set", "controls={}", "--set", "pretrain.num_updates=4",
         "--set", "train.curriculum={ kind = 'none' }", "--set", "evaluate.memory_controls=false"]  # fmt: skip
HERE = ["--set", 'data.path="hist"']


def gather(out, noise_end_frac):
    source = NoisyOracleSpec(num_envs=4, env_steps=200, tasks_per_unit=16, noise_end_frac=noise_end_frac).build()
    split = {"seed": 0, "held_out_frac": 0.1}
    return collect(DarkroomSpec(size=4, horizon=8).build(), source, InlineSpec().build(), out=out, split=split, seed=3)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def source_of(folder):
    agent = json.loads((folder / "evaluation" / "results.json").read_text())["agents"]["source"]
    return agent["normalized_curve"], agent["worst_task_normalized"]


@pytest.fixture(scope="module")
def two_places(tmp_path_factory):
    """Folders `a` and `b`, each with other histories under the same relative name `hist`."""
    place = tmp_path_factory.mktemp("places")
    for name, noise in (("a", 0.3), ("b", 1.0)):
        gather(place / name / "hist", noise)
    return place


@pytest.fixture(scope="module")
def run_of_a(two_places, micro, cccad_run):
    """A finished run that was started in `a` on `hist`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(two_places / "a")
        ended = cccad_run(micro, *QUICK, *HERE)
    assert ended.code == 0, ended.err
    [folder] = (two_places / "a" / "runs").glob("micro-*")
    return folder


def test_a_run_opens_the_histories_it_was_trained_on_from_every_folder(two_places, run_of_a, cccad, monkeypatch):
    before = source_of(run_of_a)
    for place in (two_places / "b", two_places):
        monkeypatch.chdir(place)
        ended = cccad("evaluate", run_of_a, "--device", "cpu")
        assert ended.code == 0, ended.err
        assert source_of(run_of_a) == before


def test_other_histories_under_the_same_name_are_refused_and_nothing_is_written(
    two_places, run_of_a, micro, cccad, cccad_run, monkeypatch, tmp_path
):
    monkeypatch.chdir(two_places / "b")
    before = contents(run_of_a)
    ended = cccad_run(micro, *QUICK, *HERE, "--out", run_of_a.parent, "--resume")
    assert ended.code == 2
    assert (
        f"{run_of_a} holds what 'pretrain-cad' made with other histories; to keep it, give another --out" in ended.err
    )
    mine, theirs = two_places / "a" / "hist", two_places / "b" / "hist"
    mine.rename(tmp_path / "hist")
    theirs.rename(mine)
    try:
        ended = cccad("evaluate", run_of_a, "--device", "cpu")
    finally:
        mine.rename(theirs)
        (tmp_path / "hist").rename(mine)
    assert ended.code == 2
    assert f"the histories in {mine} hold something else than when {run_of_a} was made" in ended.err
    assert contents(run_of_a) == before


def test_the_folder_of_a_run_does_not_depend_on_how_its_histories_are_named(two_places, run_of_a, micro, cccad_run):
    ended = cccad_run(micro, *QUICK, "--set", f'data.path="{two_places / "a" / "hist"}"', "--out", run_of_a.parent)
    assert ended.code == 0, ended.err
    assert "evaluate: done before, nothing to do" in ended.out
    assert [path.name for path in run_of_a.parent.glob("micro-*")] == [run_of_a.name]
    again = cccad_run(run_of_a / "spec.toml", "--dry-run", "--out", run_of_a.parent)
    assert f"into {run_of_a}:" in again.out


def test_collected_histories_that_were_exchanged_are_refused(copied_run, cccad, tmp_path):
    [data] = (copied_run.parent / "data").iterdir()
    header = Histories.open(data).header
    other = gather(tmp_path / "other", 1.0)
    assert header["held_out_task_ids"] == Histories.open(other).header["held_out_task_ids"]
    shutil.rmtree(data)
    other.rename(data)
    before = contents(copied_run)
    ended = cccad("evaluate", copied_run, "--device", "cpu")
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert f"the histories in {data} hold something else" in ended.err
    assert contents(copied_run) == before


def test_a_policy_that_was_exchanged_for_another_of_the_same_spec_is_refused(copied_run, micro, cccad, cccad_run):
    ended = cccad_run(micro, "--out", copied_run.parent, "--set", "seed=1")
    assert ended.code == 0, ended.err
    [other] = copied_run.parent.glob("micro-*-s1")
    shutil.copy(other / "policy" / "model.safetensors", copied_run / "policy" / "model.safetensors")
    ended = cccad("evaluate", copied_run, "--device", "cpu")
    assert ended.code == 2
    assert f"the files in {copied_run / 'policy'} hold something else" in ended.err


def test_a_run_folder_that_was_copied_alone_is_evaluated_reported_and_gone_on_with_where_it_lies(
    micro_run, cccad, cccad_run, tmp_path
):
    copy = shutil.copytree(micro_run, tmp_path / "elsewhere" / "mine")
    ended = cccad("evaluate", copy, "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "evaluate: there are no histories in" in ended.out
    assert source_of(copy) == source_of(micro_run)
    ours, theirs = (json.loads((run / "evaluation" / "results.json").read_text()) for run in (copy, micro_run))
    assert ours["trained_episodes"] == theirs["trained_episodes"]
    assert (copy / "evaluation" / "data_card.json").read_bytes() == (
        micro_run / "evaluation" / "data_card.json"
    ).read_bytes()
    assert cccad("report", copy).code == 0
    shutil.rmtree(copy / "checkpoints" / "train-ad" / "update_6")
    record = json.loads((copy / "stages.json").read_text())
    del record["train-ad"], record["evaluate"]
    (copy / "stages.json").write_text(json.dumps(record))
    ended = cccad_run(copy / "spec.toml", "--resume")
    assert ended.code == 0, ended.err
    assert f"run: {copy}\n" in ended.out
    assert "train-ad: going on from update 4 of 6" in ended.out
    name = "controls/ad/policy/model.safetensors"
    assert (copy / name).read_bytes() == (micro_run / name).read_bytes()


def test_a_run_whose_links_became_folders_goes_on(micro_run, micro, cccad_run, tmp_path):
    out = tmp_path / "runs"
    shutil.copytree(micro_run.parent, out)
    run = out / micro_run.name
    for stage in (run / "checkpoints").iterdir():
        for name in ("latest", "best"):  # as links of an earlier version look after `cp -rL`
            target = (stage / name).read_text().strip()
            (stage / name).unlink()
            shutil.copytree(stage / target, stage / name)
    shutil.rmtree(run / "checkpoints" / "train-ad" / "update_6")
    shutil.rmtree(run / "checkpoints" / "train-ad" / "latest")
    (run / "checkpoints" / "train-ad" / "latest").symlink_to("update_4")
    record = json.loads((run / "stages.json").read_text())
    del record["train-ad"], record["evaluate"]
    (run / "stages.json").write_text(json.dumps(record))
    ended = cccad_run(micro, "--out", out, "--resume")
    assert ended.code == 0, ended.err
    assert (run / "checkpoints" / "train-ad" / "latest").read_text() == "update_6\n"


PLUGIN = '''"""A curriculum of one's own."""
from attrs import frozen
from cccad_core.registry import register


@register("curriculum", "mine")
@frozen(kw_only=True)
class MineSpec:
    """Always the same."""

    def build(self):
        return self

    def num_writes(self, update, most):
        return {most}
'''


def apart(command, *arguments):
    """Call *command* in a copy of this process, which brings in plugin files that this one shall not know."""
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    process = fork.Process(target=lambda: answers.put(command(*arguments)))
    process.start()
    outcome = answers.get()
    process.join()
    return outcome


def test_what_an_edited_plugin_file_would_make_does_not_replace_what_was_there(micro, cccad_run, tmp_path):
    spec = tmp_path / "spec.toml"
    spec.write_text('imports = ["plugin.py"]\n' + micro.read_text())
    ended = []
    for number, out in ((1, "runs"), (2, "runs"), (2, "others")):
        (tmp_path / "plugin.py").write_text(PLUGIN.replace("{most}", str(number)))
        before = contents(tmp_path / "runs")
        changes = [*QUICK, "--set", 'train.curriculum={ kind = "mine" }', "--set", "evaluate.num_episodes=2"]
        ended.append(apart(cccad_run, spec, "--out", tmp_path / out, *changes))
    first, second, third = ended
    assert (first.code, second.code, third.code) == (0, 2, 0), [first.err, third.err]
    assert "holds what 'train-cad' made with another plugin.py; to keep it, give another --out" in second.err
    assert contents(tmp_path / "runs") == before


def test_a_full_disk_while_a_policy_is_released_is_one_sentence_and_leaves_nothing_half_written(
    copied_run, micro, cccad_run
):
    (copied_run / "stages.json").write_text(
        json.dumps({n: i for n, i in json.loads((copied_run / "stages.json").read_text()).items() if n != "release"})
    )
    for name in ("policy", "controls"):
        shutil.rmtree(copied_run / name)
    least = 20_000

    def with_little_disk(*arguments):
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, least))
        return cccad_run(*arguments)

    ended = apart(with_little_disk, micro, "--out", copied_run.parent, "--only", "release")
    assert ended.code == 1
    assert "the run stopped: the weights cannot be written" in ended.err
    assert ended.err.count("\n") == 1
    assert not list(copied_run.rglob("*.partial"))
    assert not (copied_run / "policy").exists()


def rewritten(run, out, change):
    """Copy *run* with other results."""
    copy = shutil.copytree(run, out)
    path = copy / "evaluation" / "results.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return copy


def test_a_run_that_is_named_twice_copied_or_linked_counts_once_and_the_page_says_so(micro_run, cccad, tmp_path):
    copy = shutil.copytree(micro_run, tmp_path / "copy")
    (tmp_path / "link").symlink_to(micro_run)
    second = rewritten(micro_run, tmp_path / "second", lambda results: {**results, "seed": 1})
    runs = [read_run(path) for path in (micro_run, second)]
    alone, seeds = pool(runs)
    assert pool([*runs, read_run(copy), read_run(tmp_path / "link"), runs[0]]) == (alone, seeds)
    ended = cccad("report", copy, micro_run, tmp_path / "link", second)
    assert ended.code == 0, ended.err
    assert f"warning: {micro_run.name} is the same run as copy, named twice or copied: it counts once\n" in ended.err
    page = next(tmp_path.glob("comparison-*.html")).read_text()
    assert f"{micro_run.name} is the same run as copy, named twice or copied: it counts once." in page
    assert "(2 seeds)" in page


def test_two_runs_of_one_seed_with_other_results_are_refused(micro_run, tmp_path):
    def change(results):
        results["agents"]["cad"]["returns"][0][0][0] += 1.0
        return results

    other = rewritten(micro_run, tmp_path / "other", change)
    with pytest.raises(ReportError, match=r"other are both seed 0 of micro-.*, with other results; name one of them"):
        pool([read_run(micro_run), read_run(other)])


def test_lives_of_different_lengths_are_said_on_the_page(micro_run, cccad, tmp_path):
    def shortened(results):
        for agent in results["agents"].values():
            agent["returns"] = [[life[:8] for life in task] for task in agent.get("returns", [])] or [[[0.0]]]
        del results["agents"]["source"]
        return {**results, "summary": {}}

    shutil.copytree(micro_run, tmp_path / "long")
    other = rewritten(micro_run, tmp_path / "other", lambda results: {**shortened(results), "spec_digest": "0" * 8})
    third = rewritten(micro_run, tmp_path / "third", lambda results: {**shortened(results), "seed": 1})
    ended = cccad("report", tmp_path / "long", other, third)
    assert ended.code == 0, ended.err
    page = next(tmp_path.glob("comparison-*.html")).read_text()
    assert "(2 seeds): lives of 8 to 12 episodes, cut to the shortest." in page


def test_a_folder_says_whether_it_has_a_record_of_a_content(tmp_path):
    folder = RunFolder(path=tmp_path)
    assert not folder.compare("histories", "0123", "the histories")
    folder.keep("histories", "0123")
    assert folder.compare("histories", "0123", "the histories")
    assert not folder.compare("policy", "0123", "the policy")
