"""Numbers over time: one JSON object a line, and TensorBoard as a view of the same."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from cccad_train.folder import METRICS, write_text


class Metrics:
    """Appends the numbers of one stage to `metrics.jsonl`, and to `tensorboard/<stage>/`.

    What the file has of the stage beyond *update*, where its checkpoint stands, is dropped, and so is a line that a
    kill cut short.
    """

    def __init__(self, folder: Path, stage: str, update: int) -> None:
        self.path, self.stage = folder / METRICS, stage
        before = self._rewind(update)
        self.began = time.monotonic() - before
        self.writer = SummaryWriter(str(folder / "tensorboard" / stage), purge_step=update + 1)

    def _rewind(self, update: int) -> float:
        """Return the seconds that the stage has taken until *update*."""
        kept, time_s = [], 0.0
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["stage"] != self.stage:
                kept.append(line)
            elif row["update"] <= update:
                kept.append(line)
                time_s = row["time_s"]
        write_text(self.path, "".join(f"{line}\n" for line in kept))
        return time_s

    def write(self, update: int, values: dict[str, float]) -> None:
        """Append one line."""
        row: dict[str, Any] = {
            "stage": self.stage,
            "update": update,
            "time_s": round(time.monotonic() - self.began, 3),
            **{name: round(value, 6) for name, value in values.items()},
        }
        self._append(row)

    def adopt(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append the lines of another run in which the stage was done."""
        for row in rows:
            self._append(row)

    def _append(self, row: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            if name not in ("stage", "update", "time_s"):
                self.writer.add_scalar(name, value, row["update"])

    def close(self) -> None:
        """Flush what TensorBoard has."""
        self.writer.close()
