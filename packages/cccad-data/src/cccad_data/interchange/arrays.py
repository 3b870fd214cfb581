"""A folder of flat arrays, a `.npy` file each (see `cccad_data.interchange.flat`), or a folder in it for each task."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from cccad_data.errors import DataError
from cccad_data.interchange import flat
from cccad_data.plain import Array

SETTINGS = flat.SETTINGS
TAKES_ENV = TAKES_MANY = True


class _Folder:
    """The arrays of a folder."""

    def __init__(self, source: Path) -> None:
        files = [*source.glob("*.npy"), *source.glob("*/*.npy")]
        self.files = {file.relative_to(source).with_suffix("").as_posix(): file for file in files}
        self.names = set(self.files)

    def read(self, name: str) -> Array:
        """Return an array; NumPy raises where it is none, or would have to run what is in it."""
        return np.asarray(np.load(self.files[name], allow_pickle=False))


@contextmanager
def _opened(source: Path) -> Iterator[_Folder]:
    if not source.is_dir():
        raise DataError(f"{source}: is no folder of .npy files")
    yield _Folder(source)


read = partial(flat.read, "arrays", _opened)
