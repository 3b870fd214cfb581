"""Foreign HDF5 files are not believed: they borrow no bytes from other files, and hold as many as they declare."""

import math
from pathlib import Path

import h5py

from cccad_data.errors import HistoryFileError

DEFLATE, SHUFFLE, FLETCHER32, SZIP, LZF = 1, 2, 3, 4, 32000
_PACKERS, _FILTERS = {DEFLATE, SZIP, LZF}, {DEFLATE, SHUFFLE, FLETCHER32, SZIP, LZF}
MOST_SHRINKAGE = 1_100
"A filter makes at most so many bytes of one: deflate 1,032."
_LINK = "{path}: {name!r} is a link to elsewhere, which is not followed"
_SMALL_BYTES = 1 << 16  # of a dataset that need not be there: its fill value stands for it


def check_dataset(dataset: h5py.Dataset, path: Path, name: str) -> int:
    """Return the bytes of an open dataset, given as h5py's low-level object.

    Raises HistoryFileError unless its bytes are in this file, as many as it declares, and packed by nothing strange.
    """
    plist = dataset.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
        raise HistoryFileError(f"{path}: {name!r} borrows its bytes from other files, which is not followed")
    filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
    packers = [one for one in filters if one in _PACKERS]
    if not _FILTERS.issuperset(filters) or len(packers) > 1:
        raise HistoryFileError(f"{path}: {name!r} is packed by the filters {filters}, which are not known here")
    stored, shape = dataset.get_storage_size(), dataset.shape or ()
    declared = math.prod(shape) * int(dataset.get_type().get_size())
    if declared > stored * (MOST_SHRINKAGE if packers else 1) + _SMALL_BYTES or stored > path.stat().st_size:
        raise HistoryFileError(
            f"{path}: {name!r} declares {declared:,} bytes in the shape {shape}, but the file holds {stored:,} for it"
        )
    return declared


def check_link(group: h5py.Group, name: str, path: Path) -> None:
    """Raise HistoryFileError when *name* in an open group leads elsewhere, into this file or out of it."""
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise HistoryFileError(_LINK.format(path=path, name=name))


def check_all(file: h5py.File, path: Path) -> int:
    """Return the bytes of all datasets of an open file; raises HistoryFileError as the other checks do."""
    datasets: list[tuple[str, h5py.Dataset]] = []
    links: list[str] = []

    def visit(link: bytes, info: h5py.h5l.LinkInfo) -> None:
        name = link.decode(errors="replace")
        if info.type != h5py.h5l.TYPE_HARD:
            links.append(name)
            return
        opened = h5py.h5o.open(file.id, link)
        if isinstance(opened, h5py.h5d.DatasetID):
            datasets.append((name, opened))

    file.id.links.visit(visit, info=True)
    if links:
        raise HistoryFileError(_LINK.format(path=path, name=links[0]))
    return sum(check_dataset(dataset, path, name) for name, dataset in datasets)
