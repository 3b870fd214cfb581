"""A run folder may come from anybody: no command runs what lies in it, or believes it, unless it is asked to."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

EVIL = """
from attrs import frozen
from cccad_core.registry import register

@register("executor", "evil")
@frozen
class EvilSpec:
    pass

open({!r}, "w").close()
"""


@pytest.fixture
def strange_run(copied_run):
    """A copy of a finished run whose spec imports a file that leaves a mark when it runs, and the mark."""
    mark, spec = copied_run / "it-ran", copied_run / "spec.toml"
    (copied_run / "evil.py").write_text(EVIL.format(str(mark)))
    spec.write_text(spec.read_text().replace("imports = []", 'imports = ["evil.py"]'))
    return copied_run, mark


@pytest.mark.parametrize("command", ["evaluate", "memory-report", "run"])
def test_no_command_on_a_run_folder_runs_its_plugins_unless_they_are_trusted(strange_run, cccad, command):
    run, mark = strange_run
    order = [command, run / "spec.toml", "--dry-run", "--out", run.parent] if command == "run" else [command, run]
    refused = cccad(*order)
    assert refused.code == 2
    assert "the plugin file 'evil.py'" in refused.err
    assert "--trust-plugins" in refused.err
    assert len(refused.err.splitlines()) == 1
    assert not mark.exists()


def test_plugins_of_a_run_folder_run_when_they_are_trusted(strange_run, cccad):
    run, mark = strange_run
    done = cccad("run", run / "spec.toml", "--dry-run", "--out", run.parent, "--trust-plugins")
    assert done.code == 0, done.err
    assert mark.exists()


@pytest.mark.parametrize("command", ["run", "check"])
def test_the_spec_of_a_strange_policy_runs_nothing_either(strange_run, cccad, command):
    run, mark = strange_run
    (run / "evil.py").rename(run / "policy" / "evil.py")
    (run / "spec.toml").rename(run / "policy" / "spec.toml")
    refused = cccad(command, run / "policy" / "spec.toml")
    assert refused.code == 2
    assert "--trust-plugins" in refused.err
    assert not mark.exists()


def test_plugins_outside_of_a_run_folder_never_run(strange_run, cccad):
    run, mark = strange_run
    (run / "evil.py").rename(run.parent / "evil.py")
    spec = run / "spec.toml"
    spec.write_text(spec.read_text().replace('"evil.py"', '"../evil.py"'))
    refused = cccad("evaluate", run, "--trust-plugins")
    assert refused.code == 2
    assert "must be a file in that folder" in refused.err
    assert not mark.exists()


def _int32(run):
    file = run / "policy" / "model.safetensors"
    save_file({name: value.int() for name, value in load_file(file).items()}, file)


def _format_9(run):
    file = run / "policy" / "spec.toml"
    file.write_text(file.read_text().replace("cccad-policy/2", "cccad-policy/9"))


def _no_ids(run):
    file = run / "policy" / "spec.toml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("train_task_ids")]
    file.write_text("train_task_ids = []\n" + "\n".join(lines))


@pytest.mark.parametrize("damage", [_int32, _format_9, _no_ids])
def test_a_damaged_policy_is_not_evaluated_and_its_results_stay_as_they_were(copied_run, cccad, damage):
    before = (copied_run / "evaluation" / "results.json").read_bytes()
    damage(copied_run)
    refused = cccad("evaluate", copied_run)
    assert refused.code == 2
    assert "policy/" in refused.err
    assert len(refused.err.splitlines()) == 1
    assert (copied_run / "evaluation" / "results.json").read_bytes() == before
    assert json.loads(before)["format"] == "cccad-results/1"


STRANGE = """
import sys, click
from cccad_data.process import print_anything
print_anything()
text = "a\\x1b[31mred\\x07\\r\\x9b1m\\u202eb\\u00fc\\tc"
click.echo(text)
click.echo(text, err=True)
print(text)
print(text, file=sys.stderr)
"""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_control_characters_reach_no_terminal_by_whatever_way_they_are_printed(encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", STRANGE], capture_output=True, env=environment, check=True)
    rest = r"red\x07\r\x9b1m\u202eb" + ("\u00fc" if encoding == "utf-8" else "?") + "\tc\n"
    assert done.stdout.decode() == done.stderr.decode() == f"a{rest}a\\x1b[31m{rest}"  # click leaves colours out


def test_a_file_name_in_an_error_cannot_speak_to_the_terminal(cccad, tmp_path):
    refused = cccad("report", tmp_path / "\x1b[2Jrun")
    assert refused.code == 2
    assert "\x1b" not in refused.err


def test_labels_and_kinds_in_files_cannot_speak_to_the_terminal(copied_run, cccad):
    results = copied_run / "evaluation" / "results.json"
    results.write_text(results.read_text().replace('"label": "ad"', '"label": "\\u001b[31mad"'))
    done = cccad("report", copied_run)
    assert "\x1b" not in done.out + done.err
    [data] = (copied_run.parent / "data").iterdir()
    manifest = data / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"noisy-oracle"', '"\\u001b[31mnoisy"'))
    looked = cccad("data", "info", data)
    assert "\x1b" not in looked.out + looked.err
