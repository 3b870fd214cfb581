"""Types of plain data: arrays of numbers, and what JSON holds."""

from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"Numbers of some kind, in some shape; a docstring says which."
Parameter: TypeAlias = str | float | bool | int | list["Parameter"]
"What JSON has besides tables and null: the value of one parameter of a task."
Table: TypeAlias = dict[str, Any]
"A JSON object, or Gymnasium's infos and options."
