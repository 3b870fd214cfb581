"""Change the code a little, 200 times, and see whether a test of the part fails each time; `make mutants` runs it.

Mutants are cosmic-ray's (https://cosmic-ray.readthedocs.io): another operator, number, condition, loop or decorator. A
place of a module is drawn by the hash of its line, so that the sample stays much the same while other lines change,
and one of the changes that are possible there. Each is tested in a copy of the repository, by a forked process that
has imported the third-party packages already. Survivors that no test can kill stand, with the reason, in
`equivalent_mutants.toml`; `docs/testing.md` tells the score.

    python tools/mutants.py [--num 200] [--again] [MODULE ...]
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

from attrs import asdict, evolve, frozen
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider

ROOT = Path(__file__).resolve().parent.parent
RESULTS, EQUIVALENT = ROOT / "runs" / "mutants.json", ROOT / "tools" / "equivalent_mutants.toml"
PACKAGES = ("core", "envs", "data", "train")
SEED = "12"
ARITHMETIC, LOGIC = {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod"}, {"BitAnd", "BitOr", "BitXor"}
THIRD_PARTY = (
    *("torch", "numpy", "attrs", "cattrs", "einops", "safetensors.torch", "h5py", "gymnasium", "accelerate", "jinja2"),
    *("click", "pytest", "hypothesis", "tensorboard", "torch.utils.tensorboard", "tqdm", "matplotlib.figure", "tomli"),
)

CORE = (
    *("core/test_agent", "core/test_border", "core/test_windows", "core/test_window_is_plain_ad"),
    "core/test_planted_bugs_of_triggers",
)
TESTS: dict[str, tuple[str, ...]] = {
    "core/memory/context": ("core/test_context", *CORE),
    "core/memory/windows": ("core/test_windows", *CORE, "core/test_moment"),
    "core/memory/triggers": ("core/test_triggers", *CORE),
    "core/memory/compressed": ("core/test_imitation", *CORE, "core/test_moment", "core/test_memory_laws"),
    "core/agent": CORE,
    "core/objectives/imitation": ("core/test_imitation", "core/test_reconstruction", "core/test_planted_bugs"),
    "data/sampling/sampler": ("data/test_data_sampling", "data/test_data_columns", "data/test_data_detours"),
    "data/sources/ppo": ("data/test_data_ppo", "data/test_data_sources"),
    "train/report/statistics": ("train/test_statistics", "train/test_summary_table"),
    "train/run/stages/held_out": ("train/test_evaluation", "train/test_pipeline"),
    "train/fit/checkpoints": ("train/test_checkpoints", "train/test_fitting"),
    "train/run/histories": ("train/test_existing_histories",),
    "train/run/folder": ("train/test_pipeline", "train/test_known_by_content"),
}
"""The modules that are changed, and the tests of that part, the quick ones first."""


@frozen(kw_only=True)
class Mutant:
    """A line of a module before and after a change; *outcome* is `killed`, `timeout`, `survived` or `equivalent`."""

    module: str
    line: int
    within: str
    before: str
    after: str
    outcome: str = ""
    killer: str = ""


def source(module: str, root: Path = ROOT) -> Path:
    """Return the file of a module such as `core/agent`."""
    package, name = module.split("/", 1)
    return root / "packages" / f"cccad-{package}" / "src" / f"cccad_{package}" / f"{name}.py"


def test_file(name: str) -> str:
    """Return the path of a test file such as `core/test_agent`."""
    package, stem = name.split("/")
    return f"packages/cccad-{package}/tests/{stem}.py"


# The sample ---------------------------------------------------------------------------------------------------------


def idle_lines(code: str) -> set[tuple[int, int]]:
    """Return the (line, column) of all that does not run: annotations, and what is imported for types alone."""
    idle: set[tuple[int, int]] = set()
    for node in ast.walk(ast.parse(code)):
        notes = [getattr(node, name, None) for name in ("annotation", "returns")]
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            notes.append(node.test)
        for note in notes:
            if isinstance(note, ast.expr) and note.end_lineno is not None and note.end_col_offset is not None:
                assert note.end_lineno == note.lineno
                idle |= {(note.lineno, column) for column in range(note.col_offset, note.end_col_offset)}
    return idle


def is_silly(operator: str) -> bool:
    """Say whether *operator* makes what almost any type refuses, such as a shift of a float: an easy kill."""
    words = operator.removeprefix("ReplaceBinaryOperator_").split("_")
    return len(words) == 2 and not any(set(words) <= kind for kind in (ARITHMETIC, LOGIC))


def places(code: str) -> dict[tuple[int, int, str], list[tuple[str, int]]]:
    """Return the changes (operator, occurrence) that are possible at each place (line, column, kind) of *code*."""
    places, idle, tree, provider = defaultdict(list), idle_lines(code), get_ast(code), OperatorProvider()
    for name in provider:
        if provider[name].arguments() or is_silly(name):
            continue
        operator, occurrence = provider[name](), 0
        for node in ast_nodes(tree):
            for start, _ in operator.mutation_positions(node):
                if start not in idle:
                    places[(*start, name.split("_")[0])].append((name, occurrence))
                occurrence += 1
    return dict(places)


def rank(*words: object) -> str:
    """Return a number that *words* decide, as text."""
    return hashlib.sha256("\0".join(map(str, (SEED, *words))).encode()).hexdigest()


def sample(modules: list[str], num: int) -> list[tuple[Mutant, str]]:
    """Return the first *num* mutants of *modules* in the order of their hashes, each with its module's changed code."""
    ranked: list[tuple[str, str, str, int]] = []
    for module in modules:
        code = source(module).read_text(encoding="utf-8")
        lines = code.splitlines()
        copies: dict[tuple[str, str, str], int] = defaultdict(int)
        for (line, _, kind), changes in sorted(places(code).items()):
            text = lines[line - 1].strip()
            key = (module, text, kind, copies[module, text, kind])
            copies[module, text, kind] += 1
            operator, occurrence = min(changes, key=lambda change: rank(*key, change[0]))
            ranked.append((rank(*key), module, operator, occurrence))
    mutants = (_mutant(module, operator, place) for _, module, operator, place in sorted(ranked))
    return list(islice(filter(None, mutants), num))


def _mutant(module: str, operator: str, occurrence: int) -> tuple[Mutant, str] | None:
    """Return a mutant and its code, or None where that is no Python."""
    code = source(module).read_text(encoding="utf-8")
    changed = mutate_code(code, OperatorProvider()[operator](), occurrence)
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(changed, module, "exec")
    except SyntaxError:
        return None
    before, after = code.splitlines(), changed.splitlines()
    first = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(after))
    after_line = after[first].strip() if len(after) == len(before) else f"({operator})"
    within = _within(code, first + 1)
    mutant = Mutant(module=module, line=first + 1, within=within, before=before[first].strip(), after=after_line)
    return mutant, changed


def _within(code: str, line: int) -> str:
    """Return the innermost function or class around *line*."""
    kinds = ast.FunctionDef | ast.ClassDef
    around = [n for n in ast.walk(ast.parse(code)) if isinstance(n, kinds) and n.lineno <= line <= (n.end_lineno or 0)]
    return ".".join(node.name for node in around)


# The tests ----------------------------------------------------------------------------------------------------------


def copy_of_the_repository(folder: Path) -> None:
    """Copy what the tests need, and let Python import the packages from there, in child processes too."""
    skipped = shutil.ignore_patterns(".*", "runs", "dist", "results", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=skipped, dirs_exist_ok=True)
    paths = [str(folder / "packages" / f"cccad-{package}" / "src") for package in PACKAGES]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])


def exchange(place: Path, code: str, clock: Iterator[int] = count(1)) -> None:  # noqa: B008 - one clock for all
    """Write *code*, of a time of its own: byte code of a change of the same second and size would hide it."""
    place.write_text(code, encoding="utf-8")
    os.utime(place, (tick := next(clock), tick))


def outcome(folder: Path, tests: tuple[str, ...], limit_s: float) -> tuple[str, str]:
    """Run *tests* in a forked process; return `killed`, `timeout` or `survived`, and the test that failed."""
    log = folder / "pytest.log"
    child = os.fork()
    if child == 0:
        _run_tests(folder, tests, log)
    before = time.monotonic()
    try:
        while not (done := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() - before > limit_s:
                return "timeout", ""
            time.sleep(0.02)
    finally:  # what a test has started ends with it
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    failed = [line.split(" - ")[0].split("/")[-1] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return ("survived", "") if done[1] == 0 else ("killed", failed[0] if failed else f"status {done[1]}")


def _run_tests(folder: Path, tests: tuple[str, ...], log: Path) -> None:
    """Run pytest and leave this process."""
    os.setsid()
    os.chdir(folder)
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not gpu", f"--basetemp={folder / 'tmp'}"]
        code = 1
        try:  # whatever happens, the child must not go on as if it were its parent
            code = int(pytest.main([*options, *map(test_file, tests)]))
        finally:
            sys.stdout.flush()
            os._exit(code)


def tested(folder: Path, chosen: list[tuple[Mutant, str]]) -> Iterator[Mutant]:
    """Yield every mutant with its outcome, module by module."""
    reasons = equivalent()
    for module in dict.fromkeys(mutant.module for mutant, _ in chosen):
        place = source(module, folder)
        whole, before = place.read_text(encoding="utf-8"), time.monotonic()
        verdict, killer = outcome(folder, TESTS[module], 900)
        baseline_s = time.monotonic() - before
        if verdict != "survived":
            sys.exit(f"{module}: its tests fail without any change: {killer}")
        print(f"-- {module}: {baseline_s:.0f} s without a change", flush=True)
        for mutant, code in chosen:
            if mutant.module == module:
                exchange(place, code)
                verdict, killer = outcome(folder, TESTS[module], 20 + 4 * baseline_s)
                if verdict == "survived" and (module, mutant.before, mutant.after) in reasons:
                    verdict = "equivalent"
                yield evolve(mutant, outcome=verdict, killer=killer)
        exchange(place, whole)


def equivalent() -> dict[tuple[str, str, str], str]:
    """Return why changes cannot be seen, by module, line before and line after."""
    rows = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("mutant", []) if EQUIVALENT.is_file() else []
    return {(row["module"], row["before"], row["after"]): row["why"] for row in rows}


def report(mutants: list[Mutant]) -> None:
    """Print the score by module and in all."""
    print(f"\n{'module':<20}{'mutants':>8}{'killed':>8}{'timeout':>9}{'equivalent':>12}{'survived':>10}{'score':>8}")
    for module in (*dict.fromkeys(mutant.module for mutant in mutants), "all"):
        outcomes = [mutant.outcome for mutant in mutants if module in (mutant.module, "all")]
        killed, late, same, alive = map(outcomes.count, ("killed", "timeout", "equivalent", "survived"))
        score = (killed + late) / max(1, len(outcomes) - same)
        print(f"{module:<20}{len(outcomes):>8}{killed:>8}{late:>9}{same:>12}{alive:>10}{score:>8.1%}")


def main() -> int:
    """Test the sample and print what survives; returns 1 where fewer than nine in ten are killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"some of {', '.join(TESTS)}")
    parser.add_argument("--num", type=int, default=200, help="size of the sample over the modules (default: 200)")
    parser.add_argument("--again", action="store_true", help="go on: test what the last time did not kill")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.modules) - set(TESTS)):
        parser.error(f"{unknown[0]} is none of {', '.join(TESTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = sample(list(TESTS), arguments.num)
    if arguments.modules:
        chosen = [(mutant, code) for mutant, code in chosen if mutant.module in arguments.modules]
    mutants = [Mutant(**row) for row in json.loads(RESULTS.read_text(encoding="utf-8"))] if arguments.again else []
    mutants = [mutant for mutant in mutants if mutant.outcome in {"killed", "timeout"}]
    killed = {(mutant.module, mutant.before, mutant.after) for mutant in mutants}
    chosen = [(mutant, code) for mutant, code in chosen if (mutant.module, mutant.before, mutant.after) not in killed]
    for name in THIRD_PARTY:
        importlib.import_module(name)
    RESULTS.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        copy_of_the_repository(Path(folder))
        for mutant in tested(Path(folder), chosen):
            mutants.append(mutant)
            print(f"{mutant.outcome:<10} {mutant.module}:{mutant.line} {mutant.within} | {mutant.killer}", flush=True)
            if mutant.outcome == "survived":
                print(f"    - {mutant.before}\n    + {mutant.after}", flush=True)
            RESULTS.write_text(json.dumps([asdict(mutant) for mutant in mutants], indent=1), encoding="utf-8")
    report(mutants)
    outcomes = [mutant.outcome for mutant in mutants if mutant.outcome != "equivalent"]
    return int(outcomes.count("survived") > 0.1 * len(outcomes))


if __name__ == "__main__":
    sys.exit(main())
