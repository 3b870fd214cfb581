"""`make mutants` names modules and tests that are there; a module that moves takes its line along."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def named():
    """Return the table `TESTS` of tools/mutants.py, without importing what only that tool needs."""
    tree = ast.parse((ROOT / "tools" / "mutants.py").read_text(encoding="utf-8"))
    names: dict[str, dict[str, tuple[str, ...]]] = {}
    for node in tree.body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if getattr(target, "id", None) in ("CORE", "TESTS"):
            exec(compile(ast.Module([node], []), "mutants", "exec"), names)
    return names["TESTS"]


def test_every_module_and_every_test_that_mutants_names_exists():
    lost = []
    for module, tests in named().items():
        package, name = module.split("/", 1)
        folder = ROOT / "packages" / f"cccad-{package}"
        files = [folder / "src" / f"cccad_{package}" / f"{name}.py"]
        files += [
            ROOT / "packages" / f"cccad-{each.split('/')[0]}" / "tests" / f"{each.split('/')[1]}.py" for each in tests
        ]
        lost += [str(file.relative_to(ROOT)) for file in files if not file.is_file()]
    assert lost == []
