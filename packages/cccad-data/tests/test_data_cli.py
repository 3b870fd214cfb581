"""`cli`: the commands, their output and their exit codes."""

import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from cccad_data.cli import main
from cccad_data.errors import DataError, UnknownFamilyError
from cccad_data.families.registered import build_family


@pytest.mark.usefixtures("corridor_installed")
def test_a_family_is_found_by_its_name():
    family = build_family({"kind": "corridor", "size": 5})
    assert len(family.tasks) == 5


@pytest.mark.usefixtures("corridor_installed")
def test_an_unknown_family_is_answered_with_the_near_name():
    with pytest.raises(UnknownFamilyError, match=r"no installed .* 'coridor'; did you mean 'corridor'?"):
        build_family({"kind": "coridor"})


@pytest.mark.usefixtures("corridor_installed")
def test_a_family_with_other_fields_is_an_error():
    with pytest.raises(DataError, match="does not take"):
        build_family({"kind": "corridor", "width": 5})


@pytest.mark.usefixtures("corridor_installed")
def test_the_card_says_what_is_in_the_data(dataset, capsys):
    assert main(["info", str(dataset)]) == 0
    out = capsys.readouterr().out
    assert "6 collected, 1 held out" in out
    assert "18 of 1,728 env steps and 216 episodes" in out
    assert "normalised" in out
    assert "worst task corridor-7/goal-" in out
    assert "noisy-oracle (num_envs 3, env_steps 100" in out


def test_the_card_of_an_unknown_family_has_returns_without_an_optimum(dataset, capsys):
    assert main(["info", str(dataset)]) == 0
    out = capsys.readouterr().out
    assert "the task family is not installed" in out
    assert "returns" in out


@pytest.mark.usefixtures("corridor_installed")
def test_sound_data_verifies_with_exit_code_zero(dataset, capsys):
    assert main(["verify", str(dataset)]) == 0
    assert capsys.readouterr().out.endswith("no faults\n")


@pytest.mark.usefixtures("corridor_installed")
def test_faults_are_printed_with_exit_code_one(dataset, capsys):
    with h5py.File(dataset / "shards" / "unit-0000.h5", "r+") as file:
        file["tasks/00000/rewards"][100] = 7.0
    assert main(["verify", str(dataset)]) == 1
    out = capsys.readouterr().out
    assert "history 1, env step 4: the reward is 7.0" in out
    assert out.endswith("1 faults\n")


def test_without_the_family_verification_says_what_it_leaves_out(dataset, capsys):
    assert main(["verify", str(dataset)]) == 0
    assert "rewards and dynamics are not checked: no installed distribution offers" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["info", "verify"])
def test_an_unusable_path_exits_with_two_and_one_sentence(tmp_path, command, capsys):
    (tmp_path / "x.h5").write_text("not HDF5")
    for path in (tmp_path, tmp_path / "x.h5", tmp_path / "nowhere"):
        assert main([command, str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("cccad-data: ")
        assert error.count("\n") == 1


def test_wrong_arguments_exit_with_two(capsys):
    assert main(["inform", "x"]) == 2
    assert main([]) == 2
    assert "No such command 'inform'" in capsys.readouterr().err


def test_importing_the_package_needs_neither_torch_nor_gymnasium():
    code = (
        "import sys, cccad_data; from cccad_data import PPOSpec, SamplerSpec, collect, verify; import cccad_data.cli;"
        "PPOSpec().build(); sys.exit(bool({'torch', 'gymnasium'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("corridor_installed")
def test_the_card_is_written_as_markdown_and_as_a_plot(dataset, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    page, plot = tmp_path / "card.md", tmp_path / "card.png"
    assert main(["info", str(dataset), "--markdown", str(page), "--plot", str(plot)]) == 0
    assert capsys.readouterr().out.strip() in page.read_text()
    assert "coverage   " in page.read_text()
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert main(["info", str(dataset), "--plot", str(tmp_path / "card.doc")]) == 2
    assert "a plot cannot be written as 'doc'" in capsys.readouterr().err


@pytest.mark.usefixtures("corridor_installed")
@pytest.mark.parametrize("is_relative", [False, True])
def test_a_dataset_is_exported_imported_and_merged_from_the_command_line(
    dataset, tmp_path, monkeypatch, capsys, is_relative
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder = Path("../elsewhere/deeper") if is_relative else tmp_path
    archive, back, whole = (str(folder / name) for name in ("set.npz", "back", "whole"))
    dataset = Path("../set") if is_relative else dataset
    assert main(["export", str(dataset), archive, "--to", "npz"]) == 0
    assert main(["import", archive, back, "--from", "npz", "--compression", "lzf"]) == 0
    assert main(["merge", whole, back]) == 0
    assert main(["verify", whole]) == 0
    assert f"{whole}: 6 tasks, 18 histories, 1,728 env steps\n{whole}: no faults" in capsys.readouterr().out
    for again in (["merge", whole, back], ["export", whole, archive, "--to", "npz"]):
        assert main(again) == 2
        assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--split", "seed=1"], "'--split' says which tasks of a family are held out, so that it needs '--env'"),
        (["--set", "n=3", "n=4"], "'n' is given twice"),
        (["--set", "n=three"], "the setting 'n' of 'npz' must be a whole number: 'three'"),
        (["--set", "n=1e5"], "the setting 'n' of 'npz' must be a whole number: 100000.0"),
        (["--set", "clip=1"], "the setting 'clip' of 'npz' must be true or false: 1"),
        (["--set", "task_ids=3"], "the setting 'task_ids' of 'npz' must be a list of texts: 3"),
        (["--set", "action=discrete"], "the setting 'action' of 'npz' must be a space such as"),
        (["--set", "horizn=3"], "no setting 'horizn'; did you mean 'horizon'?"),
        (["--set", "seed"], "'seed' must be FIELD=VALUE"),
        (["--set", "seed=3"], "the reader of 'npz' has no setting 'seed'"),
        ([], "no readable npz"),
    ],
)
def test_an_import_that_cannot_be_says_why_in_one_line(tmp_path, arguments, words, capsys):
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    assert main(["import", str(tmp_path / "x.npz"), str(tmp_path / "out"), "--from", "npz", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_reader_that_has_read_enough_ends_the_command_quietly(dataset):
    for unbuffered in ([], ["-u"]):
        program = f"import sys; from cccad_data.cli import main; sys.exit(main(['info', {str(dataset)!r}]))"
        command = subprocess.Popen(
            [sys.executable, *unbuffered, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        command.stdout.close()
        assert command.stderr.read() == ""
        assert command.wait() == 1
        command.stderr.close()


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("cccad-data 0.")
