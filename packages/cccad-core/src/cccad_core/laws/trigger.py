"""The laws of a trigger: a life writes where a pass does, windows go on, and no window hears of what comes after it."""

from typing import Any

import torch

from cccad_core.laws.law import require
from cccad_core.memory.context import RollingContext
from cccad_core.memory.moment import CALM, Moment
from cccad_core.memory.windows import Window

LENGTH, WINDOW = 60, 12
ENDS: tuple[list[int], ...] = ([], [0], [6, 13, 20, 27, 59], [3, 4, 5, 30])


def check_trigger(spec: Any) -> None:
    """Check every law for a trigger *spec*; raises LawBroken."""
    trigger = spec.build()
    for name in ("by_row", "limits", "is_due"):
        require("a trigger is whole", hasattr(trigger, name), f"what build() returns has no {name}")
    for carry in (0, 3):
        context = RollingContext(window=WINDOW, carry=carry, trigger=trigger, num_latents=2)
        for ends in ENDS:
            _check_lives(context, ends)
            _check_no_future(context, ends)
        if not trigger.by_row:
            alone = [context.cut(LENGTH, ends) for ends in ENDS]
            require("rows that differ write apart", all(cut == alone[0] for cut in alone), "it asks for ends: by_row")
        _check_chance(context)


def _check_lives(context: RollingContext, ends: list[int]) -> None:
    """Without chance, a life writes before the same decisions as a pass."""
    windows = context.cut(LENGTH, ends)
    asked, num_raw, num_new = [], 0, 0
    for t in range(LENGTH):
        ended = torch.tensor([t - 1 in ends])
        if bool(context.due(torch.tensor([num_raw]), torch.tensor([num_new]), ended)):
            asked.append(t)
            num_raw, num_new = min(num_raw, context.carry), 0
        num_raw, num_new = num_raw + 1, num_new + 1
    wanted = [window.start for window in windows[1:]]
    require("a life writes where a pass does", asked == wanted, f"before {asked} in a life, {wanted} in a pass")


def _check_no_future(context: RollingContext, ends: list[int]) -> None:
    """A window that is over stays as it is, whatever comes later."""
    for window in context.cut(LENGTH, ends):
        early = [end for end in ends if end < window.stop]
        again = context.cut(LENGTH, [*early, *range(window.stop, LENGTH)])
        require("no future", window in again, f"{window} of episodes that end at {ends} is another if more end later")


def _check_chance(context: RollingContext) -> None:
    """The same moment gives the same windows; of different processes, too; and each makes a decision and fits."""
    for seed in range(5):
        first, again = (_of_process(context, seed, process) for process in (1, 2))
        require("chance is shared", first == again, f"processes of one update cut {first} and {again}")
        for moment in (CALM, Moment(shared_seed=seed)):
            for window in context.cut(LENGTH, moment=moment):
                fits = 0 < window.stop - window.start <= context.first_segment
                require("windows go on", fits, f"{window} makes no decision, or more than there is room for")


def _of_process(context: RollingContext, seed: int, process: int) -> list[Window]:
    return context.cut(LENGTH, moment=Moment(seed=process, shared_seed=seed))
