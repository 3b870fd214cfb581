"""Environments of other people's packages: make a virtual environment for each group, and run its tests there.

`python tools/worlds.py [mujoco minigrid]` runs all, or the groups named. A group is what can be installed together; its
environment stays in `.worlds/` and is used again until a requirement changes. `make test` needs none of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".worlds"
PACKAGES = ("cccad-core", "cccad-envs", "cccad-data", "cccad-train")
TEST_TOOLS = ("pytest>=8", "pytest-timeout>=2.3")

GROUPS = {
    "mujoco": ("metaworld==3.1.1", "mujoco==3.3.0", "packaging>=24"),  # metaworld imports packaging and does not say so
    "minigrid": ("minigrid==3.2.0",),
}
"""What is installed together, beside our packages. metaworld wants this mujoco, which does for Gymnasium as well."""
TESTS = {
    "mujoco": ("test_reacher.py", "test_metaworld_reach.py"),
    "minigrid": ("test_minigrid_goal.py",),
}


def test_group(group: str) -> None:
    """Install *group* into its environment, unless that is done, and run its tests; raises CalledProcessError."""
    room = PLACE / group
    python = room / "bin" / "python"
    ours = [str(ROOT / "packages" / package) for package in PACKAGES]
    wanted = [*GROUPS[group], *TEST_TOOLS]
    stamp, text = room / "installed.txt", "\n".join((*wanted, (ROOT / "constraints.txt").read_text(encoding="utf-8")))
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != text:
        venv.create(room, with_pip=True, symlinks=True, clear=True)
        editable = [word for package in ours for word in ("-e", package)]
        install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
        _run(*install, *wanted, "torch==2.13.0", *editable)
        stamp.write_text(text, encoding="utf-8")
    tests = [str(ROOT / "tests" / "worlds" / name) for name in TESTS[group]]
    _run(str(python), "-m", "pytest", "-q", *tests)


def _run(*command: str) -> None:
    print("$", Path(command[0]).name, *command[1:], flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, cwd=ROOT, check=True, env=environment)


def main(arguments: list[str]) -> int:
    """Test the groups named in *arguments*, or all of them; return the exit status."""
    if unknown := [name for name in arguments if name not in GROUPS]:
        print(f"there is no group named '{unknown[0]}'. There are: {', '.join(GROUPS)}")
        return 2
    failed = []
    for group in arguments or list(GROUPS):
        print(f"\n== {group}", flush=True)
        try:
            test_group(group)
        except subprocess.CalledProcessError as error:
            print(f"{group}: exit status {error.returncode}")
            failed.append(group)
    print(f"\nworlds: failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
