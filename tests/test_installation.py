"""Every line by which a document installs something works: in a fresh environment, without a registry.

The environment holds pip, what builds our wheels, and what our packages say that they need; none of ours.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
import tomli
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
BUILDERS = ("hatchling", "editables", "setuptools", "wheel")
WHOLE = "pip install -c constraints.txt -r requirements.txt"
NEEDED = {  # what has to be installed before a document's own line, and what shows that it worked
    "docs/earlier-scripts.md": ("", "import cccad_train.run.execute"),
    "packages/cccad-core/README.md": ("", None),  # its example
    "packages/cccad-envs/README.md": ("", None),
    "packages/cccad-data/README.md": ("", None),
    "packages/cccad-train/README.md": ("", "import cccad_train.run.execute, stable_baselines3"),
    "plugins/cccad-plugin-gru/README.md": (WHOLE, None),
}

NOT_OURS = {
    "pip install torch accelerate ...": "what was typed for the earlier scripts",
    "pip install submitit": "from a registry, into an environment that has ours",
}


def documents():
    """Return the lines that install something of ours, by document."""
    patterns = ("*.md", "docs/**/*.md", "packages/*/README.md", "plugins/*/README.md")
    paths = [path for each in patterns for path in ROOT.glob(each)]
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
    lines = {name: re.findall(r"(?:^|`)(pip install [^`#\n]+)", text, re.MULTILINE) for name, text in texts.items()}
    ours = {name: [line.strip() for line in each if line.strip() not in NOT_OURS] for name, each in lines.items()}
    return {name: each for name, each in ours.items() if each}


def needed(name, measured, extras=()):
    """Add to *found* every distribution that *name* needs, itself included, as far as it is installed here."""
    try:
        about = distribution(name)
    except ModuleNotFoundError:
        return
    if (about.name, *extras) in measured:
        return
    measured[(about.name, *extras)] = about
    for text in about.requires or ():
        each = Requirement(text)
        if any(each.marker is None or each.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            needed(each.name, measured, tuple(each.extras))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with what our packages need, of what is installed here, and none of ours."""
    folder, measured = tmp_path_factory.mktemp("shelf"), dict[str, Distribution]()
    for package in ("cccad-core", "cccad-envs", "cccad-data", "cccad-train"):
        project = tomli.loads((ROOT / "packages" / package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        for text in [*project["dependencies"], *extras.get("card", []), *extras.get("rl", [])]:
            needed(Requirement(text).name, measured)
    for builder in BUILDERS:
        needed(builder, measured)
    for about in measured.values():
        if about.name.startswith("cccad"):
            continue
        for top in {file.parts[0] for file in about.files or () if file.parts[0] not in ("..", "__pycache__")}:
            place = Path(str(about.locate_file(top)))
            if place.exists() and not (folder / top).exists():
                (folder / top).symlink_to(place)
    return folder


@pytest.fixture
def room(tmp_path, shelf):
    """Run a shell line in a fresh environment and a copy of the repository, without any registry."""
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    [packages] = (tmp_path / "venv").glob("lib/python*/site-packages")
    for own in (*packages.glob("setuptools*"), packages / "pkg_resources", packages / "_distutils_hack"):
        shutil.rmtree(own, ignore_errors=True)  # Python 3.11 brings an old one, which would hide that of the shelf
    (packages / "distutils-precedence.pth").unlink(missing_ok=True)
    (packages / "shelf.pth").write_text(f"{shelf}\n", encoding="utf-8")
    ignored = shutil.ignore_patterns(".*", "runs", "dist", "__pycache__", "docs", "benchmarks")
    shutil.copytree(ROOT, tmp_path / "copy", ignore=ignored)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    kept |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    kept["PATH"] = f"{tmp_path / 'venv' / 'bin'}{os.pathsep}{kept['PATH']}"

    def run(line, place="copy"):
        words = ["bash", "-c", line]
        return subprocess.run(words, cwd=tmp_path / place, env=kept, capture_output=True, text=True, check=False)

    return run


def test_every_document_that_installs_something_is_tried():
    assert set(documents()) == set(NEEDED)


@pytest.mark.slow
@pytest.mark.parametrize("document", list(NEEDED))
def test_what_a_document_installs_is_there_afterwards_and_its_example_runs(document, room):
    before, proof = NEEDED[document]
    for line in [before, *documents()[document]] if before else documents()[document]:
        done = room(line)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    text = (ROOT / document).read_text(encoding="utf-8")
    code = proof or re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    done = room(f"python -W error -c {shlex.quote(code)}", "venv")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE) == done.stdout.splitlines()
    if document.startswith("plugins/"):
        assert "conv-gru" in room("cccad describe compressor conv-gru", "venv").stdout


@pytest.mark.slow
def test_the_environment_of_the_others_holds_none_of_our_packages(room):
    for name in ("cccad_core", "cccad_envs", "cccad_data", "cccad_train"):
        assert room(f"{Path(sys.executable).name} -c 'import {name}'", "venv").returncode == 1
