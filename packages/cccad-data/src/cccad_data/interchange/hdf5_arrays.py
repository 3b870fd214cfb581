"""Any HDF5 of flat arrays (see `cccad_data.interchange.flat`): at its root, or a group for each task."""

from functools import partial

from cccad_data.interchange import flat
from cccad_data.interchange.hdf5 import h5_arrays

SETTINGS = flat.SETTINGS
TAKES_ENV = TAKES_MANY = True
read = partial(flat.read, "hdf5", h5_arrays)
