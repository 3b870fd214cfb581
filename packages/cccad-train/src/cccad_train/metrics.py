"""Numbers over time: one JSON object a line, and TensorBoard as a view of the same."""

import json
import time
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class Metrics:
    """Appends to `metrics.jsonl` of a run folder; lines of a stage beyond its checkpoint are dropped on resume."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"
        self.writer = SummaryWriter(str(folder / "tensorboard"))
        self.began = time.monotonic()

    def rewind(self, stage: str, update: int) -> None:
        """Drop the lines of *stage* after *update*, and a last line that a kill cut short."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["stage"] != stage or row["update"] <= update:
                kept.append(line + "\n")
        self.path.write_text("".join(kept), encoding="utf-8")

    def write(self, stage: str, update: int, values: dict[str, float]) -> None:
        """Append one line."""
        row: dict[str, Any] = {"stage": stage, "update": update, "time_s": round(time.monotonic() - self.began, 3)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row | {name: round(value, 6) for name, value in values.items()}) + "\n")
        for name, value in values.items():
            self.writer.add_scalar(f"{stage}/{name}", value, update)

    def close(self) -> None:
        """Flush what TensorBoard has."""
        self.writer.close()
