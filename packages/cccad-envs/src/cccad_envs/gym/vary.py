"""What makes a task: the values of every varied field, and all tasks that they make."""

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
from attrs import field, frozen

from cccad_envs.errors import SettingError
from cccad_envs.gym.imports import import_path, in_one_line
from cccad_envs.plain import Parameter, Table
from cccad_envs.streams import STRIDE, scrambled

T = TypeVar("T")
PLACES = ("constructor", "attribute", "wrapper", "option")
"Where a field may be, written before its name where it is in several: `vary = { attribute = { g = [5, 10] } }`."
_MOST_TASKS = 1_000_000
_LONGEST_ID = 110
_SIGNIFICANT = 6  # digits of numbers that are computed, so that ids are readable


@frozen(kw_only=True)
class Field:
    """One varied field: its name, where it is (or `""` to look for it) and its values or its distribution."""

    name: str
    place: str
    values: tuple[Parameter, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_whole: bool = field(default=False)

    @property
    def is_continuous(self) -> bool:
        """Whether values have to be drawn."""
        return not self.values

    def draw(self, word: int) -> Parameter:
        """Return the value that a random *word* of 64 bits stands for."""
        if self.values:
            return self.values[word % len(self.values)]
        uniform = (word >> 11) * 2.0**-53
        if self.is_whole:
            return int(self.low + math.floor(uniform * (self.high - self.low + 1)))
        if self.is_log:
            return rounded(math.exp(math.log(self.low) + uniform * (math.log(self.high) - math.log(self.low))))
        return rounded(self.low + uniform * (self.high - self.low))


def rounded(number: float) -> float:
    """Return *number* in few digits."""
    return float(f"{number:.{_SIGNIFICANT}g}")


def fields_of(vary: Mapping[str, object]) -> list[Field]:
    """Return the varied fields.

    Raises:
        SettingError: one of them is written in no known way.
    """
    varied = []
    for name, written in vary.items():
        if name in PLACES and isinstance(written, Mapping) and not _FORMS & set(written):
            varied += [_field(f"vary.{name}.{inner}", inner, name, value) for inner, value in written.items()]
        else:
            varied.append(_field(f"vary.{name}", name, "", written))
    names = [each.name for each in varied]
    if twins := {name for name in names if names.count(name) > 1}:
        raise SettingError(f"'vary' has {min(twins)!r} in two places; a name is that of one parameter")
    return varied


_FORMS = {"from", "to", "low", "high", "count", "call"}


def _field(where: str, name: str, place: str, written: object) -> Field:
    if isinstance(written, list | tuple):
        values = tuple(_value(where, value) for value in written)
        if not values:
            raise SettingError(f"'{where}' has no values")
        if twins := [value for index, value in enumerate(values) if value in values[:index]]:
            raise SettingError(f"'{where}' has the value {twins[0]!r} twice")
        return Field(name=name, place=place, values=values)
    if not isinstance(written, Mapping):
        raise SettingError(f"'{where}' must be a list of values or a table such as {_EXAMPLE}: {written!r}")
    if "call" in written:
        return Field(name=name, place=place, values=tuple(_called(where, dict(written))))
    if {"from", "to"} <= set(written) <= {"from", "to", "count"}:
        return Field(
            name=name, place=place, values=_range(where, **{f"{key}_": value for key, value in written.items()})
        )
    if {"low", "high"} <= set(written) <= {"low", "high", "count", "seed", "scale"}:
        return _distribution(where, name, place, **written)
    raise SettingError(f"'{where}' must be a list of values or a table such as {_EXAMPLE}: {dict(written)!r}")


_EXAMPLE = "{ from = 0.8, to = 1.2, count = 5 } or { low = 0.8, high = 1.2, count = 5, seed = 0 }"


def _value(where: str, value: object) -> Parameter:
    if isinstance(value, list | tuple):
        return [_value(where, part) for part in value]
    if isinstance(value, np.generic):
        return _value(where, value.item())
    if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise SettingError(f"'{where}' has {value!r:.80}; a value is a text, a finite number, true, false or a list")


def _number(where: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SettingError(f"'{where}.{name}' must be a finite number: {value!r}")
    return value


def _count(where: str, name: str, value: object) -> int:
    if type(value) is not int or not 1 <= value <= _MOST_TASKS:
        raise SettingError(f"'{where}.{name}' must be a whole number from 1 to {_MOST_TASKS:,}: {value!r}")
    return value


def _range(where: str, from_: object, to_: object, count_: object = None) -> tuple[Parameter, ...]:
    first, last = _number(where, "from", from_), _number(where, "to", to_)
    are_whole = isinstance(first, int) and isinstance(last, int)
    if count_ is None:
        if not are_whole or not first < last:
            raise SettingError(f"'{where}' needs a 'count', or whole numbers of which 'from' is the smaller")
        _count(where, "to", int(last - first) + 1)
        return tuple(range(int(first), int(last) + 1))
    count = _count(where, "count", count_)
    if count == 1 or first == last:
        raise SettingError(f"'{where}' must lead from one number to another, in 2 values at least")
    numbers = [first + (last - first) * place / (count - 1) for place in range(count)]
    if are_whole and all(number == round(number) for number in numbers):
        return tuple(round(number) for number in numbers)
    return tuple(rounded(number) for number in numbers)


def _distribution(where: str, name: str, place: str, low: object, high: object, **rest: object) -> Field:
    low, high = _number(where, "low", low), _number(where, "high", high)
    scale = rest.get("scale", "linear")
    if scale not in ("linear", "log") or (scale == "log" and low <= 0):
        raise SettingError(f"'{where}.scale' must be 'linear', or 'log' where 'low' is above 0: {scale!r}")
    if not low < high:
        raise SettingError(f"'{where}.low' must be less than its 'high': {low!r} and {high!r}")
    is_whole = isinstance(low, int) and isinstance(high, int) and scale == "linear"
    drawn = Field(name=name, place=place, low=low, high=high, is_log=scale == "log", is_whole=is_whole)
    if "count" not in rest:
        return drawn
    seed, count = rest.get("seed", 0), _count(where, "count", rest["count"])
    if type(seed) is not int or seed < 0:
        raise SettingError(f"'{where}.seed' must be a whole number of at least 0: {seed!r}")
    values = distinct((drawn.draw(word) for word in words(seed, 20 * count)), count, where)
    return Field(name=name, place=place, values=tuple(values))


def _called(where: str, written: Table) -> list[Parameter]:
    """Return what a function makes of the values of one argument, the one that is written as a range."""
    function = import_path(str(written.pop("call")), f"{where}.call")
    over = [name for name, value in written.items() if isinstance(value, Mapping)]
    if len(over) != 1:
        raise SettingError(f"'{where}.call' needs one argument that is a range, such as seed = {{ from = 0, to = 99 }}")
    arguments = _field(f"{where}.{over[0]}", over[0], "", written.pop(over[0]))
    values: list[Parameter] = []
    for argument in arguments.values:
        try:
            value = _value(where, function(**written, **{over[0]: argument}))
        except SettingError:
            raise
        except Exception as error:  # whatever the function of a stranger raises
            raise SettingError(f"'{where}.call' fails on {over[0]} = {argument!r}: {in_one_line(error)}") from error
        if value not in values:
            values.append(value)
    return values


def words(seed: int, count: int) -> list[int]:
    """Return *count* random words of 64 bits, the same on every platform."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * STRIDE
    start = scrambled(np.array([seed % 2**64], np.uint64) + STRIDE)
    drawn: list[int] = scrambled(start + steps).tolist()
    return drawn


def distinct(drawn: Iterable[T], count: int, where: str) -> list[T]:
    """Return the first *count* that differ."""
    kept: dict[str, T] = {}
    for value in drawn:
        kept.setdefault(repr(value), value)
        if len(kept) == count:
            return list(kept.values())
    raise SettingError(f"'{where}' has fewer than {count:,} different values")


def all_params(varied: list[Field], num_tasks: int, task_seed: int) -> list[dict[str, Parameter]]:
    """Return the parameters of every task: all combinations, or *num_tasks* that are drawn.

    Raises:
        SettingError: there are too many or too few.
    """
    if not varied:
        raise SettingError("'vary' is empty; it says what makes a task, such as vary = { gain = [-1.0, 1.0] }")
    if not num_tasks:
        if unlisted := [each.name for each in varied if each.is_continuous]:
            raise SettingError(f"'vary.{unlisted[0]}' is a distribution; give it a 'count', or the family 'num_tasks'")
        size = math.prod(len(each.values) for each in varied)
        if size > _MOST_TASKS:
            raise SettingError(f"'vary' makes {size:,} tasks; draw some of them: num_tasks = 1000")
        return [
            dict(zip((each.name for each in varied), values, strict=True))
            for values in itertools.product(*(each.values for each in varied))
        ]
    if all(each.values for each in varied) and (size := math.prod(len(each.values) for each in varied)) < num_tasks:
        raise SettingError(f"'num_tasks' is {num_tasks:,}, but 'vary' makes {size:,}")
    stream = iter(words(task_seed, 20 * num_tasks * len(varied)))
    drawn = ({each.name: each.draw(next(stream)) for each in varied} for _ in range(20 * num_tasks))
    return distinct(drawn, num_tasks, "num_tasks")


def id_of(name: str, params: Mapping[str, Parameter]) -> str:
    """Return the id of the task with these parameters, such as `gymnasium/Pendulum-v1/gain=-0.8,m=1.0`."""
    listed = ",".join(f"{key}={_text(value)}" for key, value in params.items())
    if len(listed) > _LONGEST_ID:
        listed = f"{listed[: _LONGEST_ID - 13]}~{hashlib.sha256(listed.encode()).hexdigest()[:12]}"
    return f"gymnasium/{name}/{listed}"


def _text(value: Parameter) -> str:
    if isinstance(value, list):
        return ":".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return re.sub(r"[^\w.+@-]", lambda match: f"%{ord(match[0]):02x}", str(value))
