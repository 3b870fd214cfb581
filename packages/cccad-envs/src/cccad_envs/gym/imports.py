"""Things by name: `package.module:thing`, or `folder/file.py:thing` for a Python file."""

import difflib
import importlib
import sys
from collections.abc import Iterable
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from cccad_envs.errors import SettingError


def in_one_line(error: BaseException) -> str:
    """Return what an error of a stranger's code was, and says."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def near_names(name: str, names: Iterable[str], *, most: int = 3) -> str:
    """Return a sentence that names what *name* may have meant."""
    listed = sorted(set(names))
    near = difflib.get_close_matches(name, listed, n=most, cutoff=0.5)
    near = near or [other for other in listed if name.lower() in other.lower()][:most]
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    shown = ", ".join(listed[:12]) + (", ..." if len(listed) > 12 else "")
    return f"there are {shown}" if listed else "there are none"


def import_path(path: str, where: str) -> Any:
    """Return what *path* names; *where*, the field of the spec, begins every error.

    A file is looked for from the working directory. So is the file `module.py`, where no module of that name can be
    imported.

    Raises:
        SettingError: the path is no path, or the module or the thing in it is not there, or the module fails.
    """
    module_name, _, name = path.rpartition(":")
    if not module_name or not name:
        raise SettingError(f"{where}: {path!r} is no import path; write 'package.module:thing' or 'file.py:thing'")
    module = _module(module_name, where)
    thing: Any = module
    for part in name.split("."):
        if not hasattr(thing, part):
            offered = [other for other in vars(thing) if not other.startswith("_")]
            raise SettingError(f"{where}: {module_name} has no {part!r}; {near_names(part, offered)}")
        thing = getattr(thing, part)
    return thing


def _module(name: str, where: str) -> ModuleType:
    if name.endswith(".py"):
        return _file(Path(name), where)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        beside = Path(f"{name.replace('.', '/')}.py")
        if beside.is_file():
            return _file(beside, where)
        missing = (error.name or name).partition(".")[0]
        raise SettingError(
            f"{where}: {name!r} needs the package {missing!r}, which is not installed: pip install {missing}"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the module of a stranger raises
        raise SettingError(f"{where}: {name!r} fails when it is imported: {in_one_line(error)}") from error


def _file(path: Path, where: str) -> ModuleType:
    if not path.is_file():
        raise SettingError(f"{where}: there is no file {str(path)!r} in {str(Path.cwd())!r}")
    return _loaded(path.resolve(), path.stat().st_mtime_ns, where)


@cache
def _loaded(path: Path, _version: int, where: str) -> ModuleType:
    """Run a file as a module, once per version of it; its name is its stem where that leads nowhere else."""
    module_spec = spec_from_file_location(path.stem, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = module_from_spec(module_spec)
    sys.modules.setdefault(path.stem, module)
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the file of a stranger raises
        if sys.modules.get(path.stem) is module:
            del sys.modules[path.stem]
        raise SettingError(f"{where}: {str(path.name)!r} fails when it is run: {in_one_line(error)}") from error
    return module
