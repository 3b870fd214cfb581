"""Write where an episode ends, if there is enough to fold: a trigger in one file.

Name the file in a spec, by its path relative to that spec, and its trigger is known there:

    imports = ["../plugins/reset_trigger.py"]

    [policy.memory]
    kind = "compressed"
    trigger = { kind = "long-episode", at_least = 5 }

Very short episodes then share a write. Copy the file, change the name, and run
`cccad_core.laws.trigger.check_trigger(YourSpec())`.
"""

import sys
from collections.abc import Sequence

from attrs import field, frozen, validators
from cccad_core.memory.moment import Moment
from cccad_core.memory.triggers import Limit
from cccad_core.registry import register
from torch import Tensor


@register("trigger", "long-episode")
@frozen(kw_only=True)
class LongEpisodeTrigger:
    """Write where an episode ends, unless fewer than so many decisions have come since the last write."""

    by_row = True

    at_least: int = field(default=5, validator=validators.ge(1), metadata={"help": "decisions worth a write"})

    def build(self) -> "LongEpisodeTrigger":
        return self

    def limits(self, segment: int, ends: Sequence[int], moment: Moment) -> Limit:
        def limit(start: int) -> int:
            enough = (end + 1 - start for end in ends if end + 1 - start >= self.at_least)
            return next(enough, sys.maxsize)

        return limit

    def is_due(self, num_new: Tensor, ended: Tensor) -> Tensor:
        return ended & (num_new >= self.at_least)
