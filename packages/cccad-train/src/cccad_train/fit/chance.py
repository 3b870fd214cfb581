"""The chance that helps a policy to learn through many writes: off unless asked for."""

from typing import Literal

from attrs import field, frozen, validators


@frozen(kw_only=True)
class StatePassingSpec:
    """Stretches that begin with the memory that a stretch of the batch ended with (arXiv 2507.02782).

    Of `another`, mostly of another task, so that what memory says may be wrong; or of its `own`, so that the memory of
    its task is twice as old.
    """

    # 0 by default: a row that starts from a final state takes a second fold of the whole batch, without gradients.
    frac: float = field(
        default=0.0, validator=[validators.ge(0.0), validators.le(1.0)], metadata={"help": "of all stretches"}
    )
    donor: Literal["another", "own"] = field(default="another", metadata={"help": "whose memory it is"})
