"""Every package stands alone: build the four wheels, then test each one in a fresh environment without the repository.

`python tools/check_wheels.py [cccad-envs ...]` builds all and checks all, or only the packages named. An environment
holds one wheel, its dependencies and pytest; what the wheel must do without is shown to be absent before its tests run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis", "numpy")  # worlds, and so tests, speak NumPy

# package -> modules that must not be there when it is installed alone
ABSENT = {
    "cccad-core": ("gymnasium", "h5py", "stable_baselines3", "cccad_envs", "cccad_data"),
    "cccad-envs": ("torch", "h5py", "stable_baselines3", "cccad_core", "cccad_data"),
    "cccad-data": ("torch", "gymnasium", "stable_baselines3", "cccad_core", "cccad_envs"),
    "cccad-train": ("cccad_envs",),
}
NEEDED = {"cccad-train": ("cccad-core", "cccad-data")}
"""Which of the other wheels a package depends on."""
NEEDED_BY_TESTS = {"cccad-train": ("cccad-envs",)}
"""Which wheels its tests play with besides: a run joins a task family by entry point alone."""
ENTRANCES = {
    "cccad-core": "cccad_core.agent",
    "cccad-envs": "cccad_envs",
    "cccad-data": "cccad_data",
    "cccad-train": "cccad_train.run.execute",
}

ABSENCE = """
import importlib.util, sys
present = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
sys.exit(f"must be absent, but installed: {', '.join(present)}" if present else 0)
"""


def build_wheels() -> dict[str, Path]:
    """Build every package into dist/ and return its wheel by name."""
    shutil.rmtree(DIST, ignore_errors=True)
    for package in ABSENT:
        _run(sys.executable, "-m", "build", "--wheel", "--outdir", str(DIST), str(ROOT / "packages" / package))
    return {package: next(DIST.glob(f"{package.replace('-', '_')}-*.whl")) for package in ABSENT}


def check_alone(package: str, wheels: dict[str, Path]) -> None:
    """Install *package* from its wheel into a fresh environment, import it, and run its own tests there."""
    with tempfile.TemporaryDirectory(prefix=f"{package}-") as folder:
        room = Path(folder)
        venv.create(room / "venv", with_pip=True, symlinks=True)
        python = str(room / "venv" / "bin" / "python")
        needed = [wheels[name] for name in (package, *NEEDED.get(package, ()))]
        install = [python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
        _run(*install, *map(str, needed), *TEST_TOOLS)
        _run(python, "-c", ABSENCE, *ABSENT[package])
        _run(python, "-c", f"import {ENTRANCES[package]}")
        for name in NEEDED_BY_TESTS.get(package, ()):
            _run(*install, str(wheels[name]))
        bare = room / package  # tests and README, without the source
        shutil.copytree(ROOT / "packages" / package, bare, ignore=shutil.ignore_patterns("src", "__pycache__"))
        settings = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={bare}", "-p", "no:cacheprovider"]
        _run(python, "-m", "pytest", *settings, "-m", "not slow", "tests", cwd=bare)


def _run(*command: str, cwd: Path = ROOT) -> None:
    shown = " ".join(word if "\n" not in word else "..." for word in command[1:])
    print(f"$ {Path(command[0]).name} {shown}", flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, cwd=cwd, check=True, env=environment)


def main(arguments: list[str]) -> int:
    """Check the packages named in *arguments*, or all of them; return the exit status."""
    unknown = [name for name in arguments if name not in ABSENT]
    if unknown:
        print(f"there is no package named '{unknown[0]}'. Known: {', '.join(ABSENT)}")
        return 2
    wheels = build_wheels()
    failed = []
    for package in arguments or list(ABSENT):
        print(f"\n== {package} alone", flush=True)
        try:
            check_alone(package, wheels)
        except subprocess.CalledProcessError as error:
            print(f"{package}: exit status {error.returncode}")
            failed.append(package)
    print(f"\nwheels: {len(wheels)} built, failed alone: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
