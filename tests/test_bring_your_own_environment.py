"""The page on environments of one's own: its files and its code run as they are written."""

import re
from pathlib import Path

import pytest
from cccad_core.specs import load
from cccad_data.families.laws import check_family
from cccad_train.experiment import ExperimentSpec

PAGE = Path(__file__).parents[1] / "docs" / "bring-your-own-environment.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_pendulum.toml").write_text(blocks("toml")[0], encoding="utf-8")
    Path("my_wrappers.py").write_text(blocks("python")[0], encoding="utf-8")
    return tmp_path


def test_the_spec_of_the_page_is_a_family_whose_expert_plays(folder):
    spec = load(folder / "my_pendulum.toml", ExperimentSpec)
    check_family(spec.env, is_quick=True)
    family = spec.env.build()
    assert spec.data.source is not None
    [histories] = spec.data.source.build().collect(family, family.tasks[:1], seed=0)
    assert histories.num_histories == 4


@pytest.mark.slow
def test_the_spec_of_the_page_runs_to_a_report(folder):
    from cccad_train.cli import main
    from click.testing import CliRunner

    for verb in ("check", "run"):
        result = CliRunner().invoke(main, [verb, str(folder / "my_pendulum.toml")])
        assert result.exit_code == 0, result.output
    assert list(folder.glob("runs/*/report.html"))


def test_the_code_of_the_page_runs(capsys):
    exec(blocks("python")[1], {})  # the page's own
    assert "gymnasium/FrozenLake-v1/desc=SFF:HFF:FFG" in capsys.readouterr().out
