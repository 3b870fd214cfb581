"""Objects for other processes and machines, also of classes from a single file, which nothing there can import.

Pickle names a class by its module. One of a plugin file, loaded from wherever it lay, is sent with the path of its file
instead, and the file is run where the object arrives; nodes of a cluster must see it under the same path.
"""

import io
import pickle
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from types import FunctionType
from typing import Any


def packed(thing: Any) -> bytes:
    """Return *thing* as bytes for `pickle.loads`."""
    out = io.BytesIO()
    _Pickler(out).dump(thing)
    return out.getvalue()


class _Pickler(pickle.Pickler):
    """Sends classes and functions of plugin files with their files."""

    def reducer_override(self, thing: Any) -> Any:
        if not isinstance(thing, type | FunctionType):
            return NotImplemented
        module = sys.modules.get(thing.__module__)
        if module is None or not _is_from_file(module):
            return NotImplemented
        return _found, (module.__name__, module.__file__, thing.__qualname__)


def _is_from_file(module: Any) -> bool:
    """Say whether *module* came from a file that its name does not lead to."""
    name, file = module.__name__, getattr(module, "__file__", None)
    return file is not None and "." not in name and name != "__main__" and PathFinder.find_spec(name) is None


def _found(name: str, file: str, qualname: str) -> Any:
    """Return what *file* calls *qualname*, running the file as module *name* unless it was."""
    if name not in sys.modules:
        spec = spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    thing: Any = sys.modules[name]
    for part in qualname.split("."):
        thing = getattr(thing, part)
    return thing
