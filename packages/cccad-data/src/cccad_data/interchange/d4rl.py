"""D4RL's flat arrays in HDF5 (arXiv 2004.07219): one long history of one task, in the order of the file.

`observations actions rewards terminals`, and where there are any `timeouts next_observations`. Discrete actions are
whole numbers in one column.
"""

from functools import partial

from cccad_data.interchange import flat
from cccad_data.interchange.hdf5 import h5_arrays

SETTINGS = flat.SETTINGS
TAKES_ENV = TAKES_MANY = True
read = partial(flat.read, "d4rl", h5_arrays)
