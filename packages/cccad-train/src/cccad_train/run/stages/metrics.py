"""Numbers over time: one JSON object a line, and TensorBoard as a view of the same."""

import json
import math
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from cccad_train.files import Json, read_metrics, write_text
from cccad_train.run.folder import METRICS


class Metrics:
    """Appends the numbers of one stage to `metrics.jsonl`, and to `tensorboard/<stage>/`.

    What there is of the stage beyond *update*, where its checkpoint stands, is dropped from both, and so is a line that
    a kill cut short.
    """

    def __init__(self, folder: Path, stage: str, update: int) -> None:
        self.path, self.stage = folder / METRICS, stage
        kept = self._rewind(update)
        self.began = time.monotonic() - (kept[-1].get("time_s", 0.0) if kept else 0.0)
        view = folder / "tensorboard" / stage
        shutil.rmtree(view, ignore_errors=True)
        self.writer = SummaryWriter(str(view))
        for row in kept:
            self._show(row)

    def _rewind(self, update: int) -> list[Json]:
        """Return the rows of the stage that stay."""
        rows = read_metrics(self.path)
        kept = [row for row in rows if row["stage"] != self.stage or row.get("update", 0) <= update]
        write_text(self.path, "".join(map(_line, kept)))
        return [row for row in kept if row["stage"] == self.stage]

    def write(self, update: int, values: dict[str, float]) -> None:
        """Append one line."""
        row: Json = {
            "stage": self.stage,
            "update": update,
            "time_s": round(time.monotonic() - self.began, 3),
            **values,
        }
        self._append(row)

    def adopt(self, rows: Iterable[Json]) -> None:
        """Append the lines of another run in which the stage was done."""
        for row in rows:
            self._append(row)

    def _append(self, row: Json) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(_line(row))
        self._show(row)

    def _show(self, row: Json) -> None:
        for name, value in row.items():
            if name not in ("stage", "update", "time_s"):
                self.writer.add_scalar(name, value, row.get("update"))

    def close(self) -> None:
        """Flush what TensorBoard has."""
        self.writer.close()


def _line(row: Json) -> str:
    """Return *row* as a line of JSON, which has no word for what is no finite number but null."""
    plain = {name: value if type(value) is str or math.isfinite(value) else None for name, value in row.items()}
    return json.dumps(plain, allow_nan=False) + "\n"
