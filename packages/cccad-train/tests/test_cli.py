"""The commands: what they print, what they touch, and how they end."""

import resource
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest
from cccad_core.blame import shortened
from cccad_train import cli


def files(folder):
    return sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_help_of_every_command_names_its_arguments(cccad, cccad_run):
    for text, words in (
        (cccad_run("--help"), ["SPEC", "--set", "--out", "--resume", "--dry-run", "--only", "--processes", "--device"]),
        (cccad("--help"), ["list", "describe", "data", "evaluate", "report", "run"]),
        (cccad("evaluate", "--help"), ["RUN_FOLDER", "--set"]),
        (cccad("data", "--help"), ["collect SPEC", "info", "verify"]),
    ):
        assert text.code == 0
        assert [word for word in words if word not in text.out] == []


def test_collecting_has_a_help_of_its_own(cccad):
    ended = cccad("data", "collect", "--help")
    assert ended.code == 0
    assert "Usage: cccad data collect [OPTIONS] SPEC" in ended.out
    assert "Collect the learning histories" in ended.out
    assert [option for option in ("--set", "--out", "--dry-run") if option not in ended.out] == []
    assert [option for option in ("--only", "--processes") if option in ended.out] == []


def test_every_command_tells_its_version_and_those_of_what_it_computes_with(cccad, cccad_run):
    others = [f"{name} {version(name)}" for name in ("cccad-core", "cccad-data", "cccad-envs", "torch")]
    for command in (cccad, cccad_run):
        ended = command("--version")
        assert ended.code == 0
        assert ended.out.split()[1] == version("cccad-train")
        assert [other for other in others if other not in ended.out] == []


@pytest.mark.parametrize("arguments", [("list",), ("describe",), ("describe", "source", "ppo"), ("describe", "env")])
def test_what_there_is_to_choose_from_fits_the_terminal(arguments, cccad, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    ended = cccad(*arguments)
    assert ended.code == 0
    assert [line for line in ended.out.splitlines() if len(line) > 50] == []


def test_list_shows_every_kind_with_who_offers_it_and_what_it_is(cccad):
    ended = cccad("list")
    assert ended.code == 0
    for kind in ("compressor", "tokens", "curriculum", "env", "source", "executor"):
        assert f"{kind}:\n" in ended.out
    assert "gated-query        cccad-core 0.1.0  Latents look" in ended.out
    assert "env" not in cccad("list", "curriculum").out.split()


def test_describe_prints_defaults_and_constraints(cccad):
    ended = cccad("describe", "compressor", "gated-query").out
    assert "num_latents: int = 8  (>= 1)" in ended
    assert "tokens of memory" in ended
    assert "targets_per_update: int = 24000  (>= 1)" in cccad("describe").out


def test_describe_of_a_kind_lists_it_and_says_how_to_add_to_it(cccad):
    listed = cccad("describe", "objective").out
    assert {"imitation", "reconstruction"} <= set(listed.partition("\n\n")[0].split())
    assert '@register("objective", NAME)' in listed
    assert "cccad check objective NAME --imports FILE" in listed
    for kind, example in cli.EXAMPLES.items():
        assert f"plugins/{example}" in cccad("describe", kind).out
    assert "cccad check" not in cccad("describe", "executor").out  # for which there are no laws


def test_a_wrong_name_gets_the_near_one_and_exit_2(cccad):
    ended = cccad("describe", "compressor", "gated-qery")
    assert ended.code == 2
    assert "Did you mean 'gated-query'?" in ended.err
    assert cccad("list", "compresor").code == 2


def test_a_spec_with_typos_tells_all_of_them_at_once_without_a_traceback(micro, tmp_path):
    wrong = tmp_path / "wrong.toml"
    text = micro.read_text().replace('"gated-query"', '"gated-qery"').replace("num_replicas", "num_replica")
    wrong.write_text("seed = 4.7\n" + text)
    ended = subprocess.run(
        [sys.executable, "-m", "cccad_train.cli", str(wrong)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ended.returncode == 2
    assert "Did you mean 'gated-query'?" in ended.stderr
    assert "extra field 'num_replica' (did you mean 'num_replicas'?) @ evaluate" in ended.stderr
    assert "expected int, got 4.7 @ seed" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == [wrong]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.num_updates=none", "sets no TOML value"),
        ("train.num_update=3", "did you mean 'num_updates'?"),
        ("train.num_updates=0", "must be >= 1"),
        ("split.held_out_frac=0.001", "leaves no held-out task"),
        ("pretrain.num_writes=0", "'pretrain.num_writes' must be >= 1"),
    ],
)
def test_a_wrong_override_is_one_message_and_exit_2(override, message, micro, cccad_run, tmp_path):
    ended = cccad_run(micro, "--out", tmp_path / "runs", "--set", override)
    assert ended.code == 2
    assert message in ended.err
    assert not (tmp_path / "runs").exists()


def test_a_spec_that_is_not_there_is_one_line(cccad_run, tmp_path):
    ended = cccad_run(tmp_path / "none.toml")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "cannot be read" in ended.err


def test_a_dry_run_is_readable_and_touches_nothing(micro, cccad_run, micro_run, tmp_path):
    fresh = cccad_run(micro, "--out", tmp_path / "runs", "--dry-run", "--set", "seed=3")
    assert fresh.code == 0
    assert "learning_rate = 0.003" in fresh.out
    assert "14 training tasks, 2 held-out tasks" in fresh.out
    assert "train-ad                 to do" in fresh.out
    assert list(tmp_path.iterdir()) == []
    before = files(micro_run.parent)
    done = cccad_run(micro, "--out", micro_run.parent, "--dry-run", "--only", "train")
    assert "train-ad                 done" in done.out
    assert "evaluate                 left out by --only" in done.out
    assert files(micro_run.parent) == before


def test_a_reader_that_has_read_enough_ends_the_command_quietly(micro):
    program = f"from cccad_train.cli import run; run([{str(micro)!r}, '--dry-run'])"
    command = subprocess.Popen(
        [sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    assert command.stderr.read() == ""
    assert command.wait() == 1
    command.stderr.close()


def test_the_printed_dry_run_is_itself_the_same_spec(micro, cccad_run, tmp_path):
    first = cccad_run(micro, "--out", tmp_path / "runs", "--dry-run").out
    (tmp_path / "again.toml").write_text(first)
    second = cccad_run(tmp_path / "again.toml", "--out", tmp_path / "runs", "--dry-run").out
    assert first.split("\n", 1)[1] == second.split("\n", 1)[1]


@pytest.mark.parametrize("stage", ["pretrain", "train", "evaluate", "release", "report"])
def test_a_stage_before_its_time_says_what_it_needs_and_leaves_nothing(stage, micro, cccad_run, tmp_path):
    ended = cccad_run(micro, "--out", tmp_path / "runs", "--only", stage)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert f"'{stage}' needs '{'evaluate' if stage == 'report' else 'collect'}'" in ended.err
    assert not (tmp_path / "runs").exists()


def test_an_output_folder_that_cannot_be_made_is_one_line_and_exit_1(micro, cccad_run, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    ended = cccad_run(micro, "--out", tmp_path / "file")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert str(tmp_path / "file") in ended.err


def test_a_full_disk_is_one_line_and_exit_1_and_leaves_only_whole_files(micro, micro_run, tmp_path):
    shutil.copytree(micro_run.parent / "data", tmp_path / "data")
    ended = subprocess.run(
        [sys.executable, "-m", "cccad_train.cli", str(micro), "--out", str(tmp_path), "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert [line for line in ended.stderr.splitlines() if "the run stopped: File too large" in line]
    [folder] = tmp_path.glob("micro-*")
    assert [path for path in folder.rglob("*") if "partial" in path.name] == []
    assert not list((folder / "checkpoints" / "pretrain-cad").glob("update_*"))


INTERRUPTED = """
import os, signal, sys
from cccad_train import cli
with_kept = {{"kept": cli.RESUMES}} if {resumes} else {{}}
cli.guarded(lambda: os.kill(os.getpid(), signal.{name}), **with_kept)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("resumes", [True, False])
def test_a_signal_is_one_line_that_names_resume_only_where_there_is_one(name, code, resumes):
    program = INTERRUPTED.format(name=name, resumes=resumes)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    kept = "; what was finished is kept, and --resume goes on" if resumes else ""
    assert (done.returncode, done.stderr) == (code, f"stopped by {name}{kept}\n")


def test_a_second_signal_ends_the_process_at_once_and_quietly():
    program = """
import os, signal, time
from cccad_train.cli import guarded
from cccad_data.process import unstopped
def work():
    with unstopped():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # `timeout` sends two
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
guarded(work)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


def test_data_of_a_spec_can_be_collected_and_looked_at_alone(micro, cccad, tmp_path):
    collected = cccad("data", "collect", micro, "--out", tmp_path)
    assert collected.code == 0, collected.err
    [data] = (tmp_path / "data").iterdir()
    assert cccad("data", "collect", micro, "--out", tmp_path).out.splitlines()[-1] == f"collect: found in {data}"
    assert cccad("data", "info", data).code == 0
    assert cccad("data", "verify", data).code == 0
    assert cccad("data", "info", tmp_path / "none").code == 2


def test_a_failure_of_the_system_inside_a_unit_is_told_without_its_traceback():
    lost = 'd: 1 of 2 units failed\nunit of 1 tasks:\nTraceback (most recent call last):\n  File "{}", line 3, in f\n{}'
    ours, full = "/x/cccad_data/histories/shards.py", "OSError: [Errno 28] No space left on device"
    wrong = "ZeroDivisionError: 0"
    head = "d: 1 of 2 units failed\nunit of 1 tasks:\n"
    assert shortened(lost.format(ours, full)) == f"{head}{full} (shards.py:3, in f)"
    assert shortened(lost.format("/x/my_world.py", wrong)) == f"{head}{wrong} (my_world.py:3, in f)"
    assert shortened(lost.format(ours, wrong)) == lost.format(ours, wrong)


def test_a_loss_that_is_no_number_ends_the_run_with_one_line_and_exit_1(micro, cccad_run, tmp_path):
    wild = ["--set", "pretrain.optimizer.learning_rate=1e30", "--set", "pretrain.optimizer.warmup_updates=0"]
    ended = cccad_run(micro, "--out", tmp_path, *wild)
    assert ended.code == 1
    assert "pretrain-cad: the loss is nan" in ended.err
    assert not list(tmp_path.glob("micro-*/checkpoints/pretrain-cad/update_*"))
