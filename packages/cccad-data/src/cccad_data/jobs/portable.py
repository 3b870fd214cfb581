"""Objects for other processes and machines, also of classes from a single file, which nothing there can import.

Pickle names a class by its module. One of a plugin file, loaded from wherever it lay, is sent with the path of its file
instead, and the file is run where the object arrives; nodes of a cluster must see it under the same path.
"""

import io
import pickle
import sys
from functools import reduce
from importlib.machinery import PathFinder
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from cccad_data.by_name import run_file


def packed(thing: object) -> bytes:
    """Return *thing* as bytes for `pickle.loads`."""
    out = io.BytesIO()
    _Pickler(out).dump(thing)
    return out.getvalue()


class _Pickler(pickle.Pickler):
    """Sends classes and functions of plugin files with their files."""

    def reducer_override(self, thing: object) -> Any:
        if not isinstance(thing, type | FunctionType):
            return NotImplemented
        module = sys.modules.get(thing.__module__)
        if module is None or not _is_from_file(module):
            return NotImplemented
        return _unpacked, (module.__name__, module.__file__, thing.__qualname__)


def _is_from_file(module: ModuleType) -> bool:
    """Say whether *module* came from a file that its name does not lead to."""
    name, file = module.__name__, getattr(module, "__file__", None)
    return file is not None and "." not in name and name != "__main__" and PathFinder.find_spec(name) is None


def _unpacked(name: str, file: str, qualname: str) -> object:
    """Return what *file* calls *qualname*, running the file as module *name* unless it was."""
    module = sys.modules[name] if name in sys.modules else run_file(name, Path(file))
    return reduce(getattr, qualname.split("."), module)
