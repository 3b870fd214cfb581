"""The size limits and house rules that no linter knows; `make lint` runs it.

Checks every Python file of packages/, plugins/, tools/, studies/, benchmarks/ and tests/, and every text file for
addresses that belong to one machine. Prints one line per fault; exits with 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE_FOLDERS = ("packages", "plugins", "tools", "studies", "benchmarks", "tests")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 50
MAX_SRC_LINES = {"cccad-core": 6_150, "cccad-envs": 4_000, "cccad-data": 7_600, "cccad-train": 5_200}
"""Lines that are not blank, by package; raised only with a reason, in docs/decisions/ (0009)."""
VAGUE_NAMES = {"utils", "common", "misc", "helpers"}
VAGUE_VARIABLES = {"told", "seen", "found", "known", "made", "given"}
"""They say that somebody did something with a value, and not what it is."""
MAY_BE_VAGUE = ("packages/cccad-core/src", *(f"packages/cccad-{each}/tests" for each in ("core", "envs", "data")))
"""Where such variables are still allowed; take a folder out when it has none any more."""
MAX_TEXT_COLUMNS = 120
# Written so that this file does not match itself.
MACHINE_TEXT = re.compile(r"(?<![\w.])/(home|Users|root|work)/\w|pypi[.]org|download[.]pytorch[.]org")

PLAIN_CONSTRAINT = re.compile(r"(?!nvidia|cuda|triton)[a-z0-9-]+==[0-9][0-9a-z.]*")


def project_files() -> list[Path]:
    """Return what git tracks or would track, or everything but hidden folders where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return [path for path in sorted(ROOT.rglob("*")) if path.is_file() and not _is_hidden(path)]
    return [ROOT / name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]


def _is_hidden(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return any(part.startswith(".") or part in {"runs", "dist", "__pycache__"} for part in parts)


def python_faults(path: Path, text: str) -> Iterator[str]:
    """Yield what is wrong with one Python file: its length, its functions' lengths and its name."""
    name = path.relative_to(ROOT)
    num_lines = text.count("\n")
    if num_lines > MAX_FILE_LINES:
        yield f"{name}: {num_lines} lines; a file has at most {MAX_FILE_LINES}"
    if path.stem in VAGUE_NAMES:
        yield f"{name}: '{path.stem}' says nothing about what is inside"
    if path.name == "__init__.py" and "tests" in name.parts:
        yield f"{name}: a tests folder is no package; delete this file"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{name}:{node.lineno}: '{node.name}' has {length} lines, more than {MAX_FUNCTION_LINES}"


def name_faults(path: Path, text: str) -> Iterator[str]:
    """Yield the variables and arguments that say nothing of their value."""
    for node in ast.walk(ast.parse(text)):
        name, line = "", 0
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name, line = node.id, node.lineno
        elif isinstance(node, ast.arg):
            name, line = node.arg, node.lineno
        if name.strip("_") in VAGUE_VARIABLES:
            yield f"{path.relative_to(ROOT)}:{line}: '{name}' does not say what the value is"


def markdown_faults(path: Path, text: str) -> Iterator[str]:
    """Yield the lines of a document that are too long; rows of tables and single links cannot be broken."""
    is_code = False
    for number, line in enumerate(text.splitlines(), start=1):
        is_code ^= line.lstrip().startswith("```")
        can_break = not is_code and not line.startswith("|") and " " in line.strip()
        if len(line) > MAX_TEXT_COLUMNS and can_break:
            yield f"{path.relative_to(ROOT)}:{number}: {len(line)} columns; a line has at most {MAX_TEXT_COLUMNS}"


def test_faults(path: Path, text: str, sources: set[str]) -> Iterator[str]:
    """Yield a test file that neither has the name of one of the modules *sources* nor a first line on what it tests."""
    subject = re.sub("^test_(data_)?", "", path.stem)
    if subject not in sources and not ast.get_docstring(ast.parse(text)):
        yield f"{path.relative_to(ROOT)}: no module is called '{subject}'; say in the first line what is tested"


def constraint_faults(path: Path, text: str) -> Iterator[str]:
    """Yield the lines of constraints.txt that are no plain `name==version`, or that need an accelerator's packages."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line and not line.startswith("#") and not PLAIN_CONSTRAINT.fullmatch(line):
            yield f"{path.name}:{number}: '{line}' must be name==version of a package that every machine can install"


def text_faults(path: Path, text: str) -> Iterator[str]:
    """Yield the lines of a text file that only make sense on one machine."""
    for number, line in enumerate(text.splitlines(), start=1):
        if address := MACHINE_TEXT.search(line):
            place = f"{path.relative_to(ROOT)}:{number}"
            yield f"{place}: {address.group()!r} belongs to one machine or one package registry"


def house_faults(files: list[Path]) -> Iterator[str]:
    """Yield every fault in *files*, then those that only show over all of them."""
    test_names: dict[str, list[str]] = defaultdict(list)
    num_src_lines: dict[str, int] = defaultdict(int)
    sources = {path.stem for path in files if path.suffix == ".py" and not path.name.startswith("test_")}
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image or another binary
        parts = path.relative_to(ROOT).parts
        yield from text_faults(path, text)
        yield from constraint_faults(path, text) if path == ROOT / "constraints.txt" else ()
        yield from markdown_faults(path, text) if path.suffix == ".md" else ()
        if path.suffix != ".py" or parts[0] not in CODE_FOLDERS:
            continue
        yield from python_faults(path, text)
        if not str(path.relative_to(ROOT)).startswith(MAY_BE_VAGUE):
            yield from name_faults(path, text)
        if parts[0] == "packages" and "src" in parts:
            num_src_lines[parts[1]] += sum(1 for line in text.splitlines() if line.strip())
        if path.name.startswith("test_"):
            yield from test_faults(path, text, sources)
            test_names[path.name].append(str(path.relative_to(ROOT)))
    for name, places in test_names.items():
        if len(places) > 1:
            yield f"{name} exists {len(places)} times ({', '.join(places)}); test files are named once"
    for package, number in num_src_lines.items():
        if number > MAX_SRC_LINES[package]:
            yield f"{package}: {number:,} lines that are not blank; it has at most {MAX_SRC_LINES[package]:,}"


def main() -> int:
    """Print every fault and return the exit status."""
    files = project_files()
    faults = list(house_faults(files))
    for fault in faults:
        print(fault)
    print(f"house: {len(files)} files, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
