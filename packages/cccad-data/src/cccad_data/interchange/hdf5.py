"""Arrays of other people's HDF5 files: what kind they are is looked at before anything is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from cccad_data.errors import DataError
from cccad_data.histories.shards import open_shard
from cccad_data.plain import Array


def member(group: h5py.Group, name: str, source: Path, *, ndim: int | None = None) -> h5py.Dataset:
    """Return the dataset *name* of an open HDF5 *group*, unread.

    Raises DataError unless it holds numbers, at least one, and has *ndim* dimensions.
    """
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "biuf":
        raise DataError(f"{source}: {name!r} is no array of numbers")
    if not dataset.shape or dataset.shape[0] == 0 or (ndim is not None and dataset.ndim != ndim):
        wanted = "at least one entry" if ndim is None else f"{ndim} dimensions"
        raise DataError(f"{source}: {name!r} has the shape {list(dataset.shape or ())}; it must have {wanted}")
    return dataset


class H5Arrays:
    """The arrays of an open file, at its root and in its groups."""

    def __init__(self, source: Path, file: h5py.File) -> None:
        self.source, self.file = source, file
        groups = {key: file[key] for key in file if file.get(key, getclass=True) is h5py.Group}
        self.names = set(file) - set(groups) | {f"{key}/{name}" for key, group in groups.items() for name in group}

    def read(self, name: str) -> Array:
        """Return an array of numbers, or of texts; raises DataError where it is none."""
        dataset = self.file[name]
        if isinstance(dataset, h5py.Dataset) and h5py.check_string_dtype(dataset.dtype) is not None and dataset.ndim:
            return np.asarray(dataset.asstr()[...], np.str_)
        return np.asarray(member(self.file, name, self.source)[...])


@contextmanager
def h5_arrays(source: Path) -> Iterator[H5Arrays]:
    """Open a file; raises DataError where it is no HDF5."""
    with open_shard(source) as file:
        yield H5Arrays(source, file)


def check_groups(source: Path, file: h5py.File, dimensions: Mapping[str, Mapping[str, int | None]]) -> None:
    """Raise DataError unless each group of *file* has its arrays, of these numbers of dimensions (None: any)."""
    for group, arrays in dimensions.items():
        if not isinstance(file[group], h5py.Group):
            raise DataError(f"{source}: {group!r} is no group of arrays")
        missing = [name for name in arrays if name not in file[group]]
        if missing:
            raise DataError(f"{source}: group {group!r} lacks {', '.join(map(repr, missing))}")
        shapes = {name: member(file[group], name, source, ndim=ndim).shape[:2] for name, ndim in arrays.items()}
        if len(set(shapes.values())) != 1:
            raise DataError(f"{source}: the arrays of group {group!r} differ in their first two sizes: {shapes}")
