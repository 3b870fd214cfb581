"""D4RL's flat arrays in HDF5 (arXiv 2004.07219): one long history of one task, in the order of the file.

`observations actions rewards terminals`, and where there are any `timeouts next_observations`. Discrete actions are
whole numbers in one column.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cccad_data.histories.shards import open_shard
from cccad_data.interchange import Found, Wishes, lives, reading
from cccad_data.interchange.episodes import UNKNOWN_LAST
from cccad_data.interchange.flat import FLAGS, MAYBE, NEEDED, as_sentences, life_of
from cccad_data.interchange.hdf5 import member
from cccad_data.interchange.lives import Life, gathered, task_of

SETTINGS = lives.SETTINGS
TAKES_ENV = TAKES_MANY = True


def read(sources: Sequence[Path], wishes: Wishes) -> Found:
    """Return the histories of D4RL files, one each; without a setting, each is of a task of its own."""
    notes: Counter[str] = Counter()
    all_lives: list[Life] = []
    for index, source in enumerate(sources):
        task_id = task_of(index, f"d4rl/{source.stem}", wishes, len(sources))
        with reading(source, "not flat arrays as D4RL has them"), open_shard(source) as file:
            names = [name for name in (*NEEDED, *MAYBE, *FLAGS) if name in file]
            arrays = {name: np.asarray(member(file, name, source)[...]) for name in names}
            all_lives.append(life_of(source, task_id, arrays, wishes.settings, notes))
    last = "repeated" if UNKNOWN_LAST in +notes else "true"
    return gathered("d4rl", sources, all_lives, wishes, as_sentences(notes), last_observations=last)
