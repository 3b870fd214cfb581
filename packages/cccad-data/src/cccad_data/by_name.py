"""Things by name: `package.module:thing`, or `folder/file.py:thing` for a Python file."""

import importlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from cccad_data.errors import DataError, hint


def thing_at(path: str, where: str) -> Any:
    """Return what *path* names; *where*, the field of the spec, begins every error.

    A file is looked for from the working directory. Raises DataError where the path is none, or leads nowhere.
    """
    place, _, name = path.rpartition(":")
    if not place or not name:
        raise DataError(f"{where}: {path!r} is no import path; write 'package.module:thing' or 'folder/file.py:thing'")
    try:
        thing: object = _of_file(Path(place), where) if place.endswith(".py") else importlib.import_module(place)
    except DataError:
        raise
    except (Exception, SystemExit) as error:  # whatever the module of a stranger raises
        raise DataError(f"{where}: {place!r} cannot be imported: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(thing, part):
            public = [other for other in vars(thing) if not other.startswith("_")]
            raise DataError(f"{where}: {place!r} has no {part!r}; {hint(part, public)}")
        thing = getattr(thing, part)
    return thing


def _of_file(path: Path, where: str) -> ModuleType:
    """Return the module that a file is, run once, under the name of its stem where that is free."""
    if not path.is_file():
        raise DataError(f"{where}: there is no file {str(path)!r} in {str(Path.cwd())!r}")
    file, present = path.resolve(), sys.modules.get(path.stem)
    if present is not None and getattr(present, "__file__", None) == str(file):
        return present
    name = path.stem if present is None else f"{path.stem}_{abs(hash(file)):x}"
    if name in sys.modules:
        return sys.modules[name]
    return run_file(name, file)


def run_file(name: str, file: Path) -> ModuleType:
    """Run a Python *file* as the module *name*, which is forgotten where that fails; raises what the file raises."""
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
