"""Types of plain data: arrays of numbers, and what JSON, TOML and HDF5 attributes hold."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"Numbers of some kind, in some shape; a docstring says which."
DType: TypeAlias = np.dtype[Any]
"The kind of numbers of an array."
Parameter: TypeAlias = str | float | bool | int | list["Parameter"]
"What JSON has besides tables and null: the value of one parameter of a task."
Table: TypeAlias = dict[str, Any]
"A JSON object, or a TOML table."
Fields: TypeAlias = Mapping[str, Any]
"A table that is only read."
