"""The run folder: the contract that every tool reads, and the record of which stages are done on which inputs."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen
from cccad_core.artefact import copy_plugins
from cccad_core.specs import to_toml
from cccad_data.process import versions

from cccad_train import variables
from cccad_train.files import (
    NUMBER,
    TEXT,
    Json,
    RunFileError,
    each,
    read_json,
    read_metrics,
    table,
    write_json,
    write_text,
)
from cccad_train.fit.checkpoints import updates

STAGES = "stages.json"
METRICS = "metrics.jsonl"
CONTENT = "content.json"
META = table(optional={"continued": each(table()), "seconds": table(others=NUMBER)})


class OtherContentError(ValueError):
    """Something lies where the run's own histories or policy should be, and is another."""


@frozen(kw_only=True)
class RunFolder:
    """`<out>/<name>-<8 hex of the resolved spec>-s<seed>/`; files are replaced whole, never half-written."""

    path: Path

    @property
    def data(self) -> Path:
        """Where collected histories lie, shared by all runs of one `out` folder."""
        return self.path.parent / "data"

    @property
    def results(self) -> Path:
        """Where evaluation writes what it found."""
        return self.path / "evaluation" / "results.json"

    def artefact(self, agent: str, main: str) -> Path:
        """Return where the release artefact of *agent* lies; that of the *main* agent is `policy/`."""
        return self.path / "policy" if agent == main else self.path / "controls" / agent / "policy"

    def metrics(self, stage: str) -> list[Json]:
        """Return the lines of `metrics.jsonl` that belong to *stage*."""
        return [row for row in read_metrics(self.path / METRICS) if row["stage"] == stage]

    def checkpoints(self, stage: str) -> Path:
        """Return where the checkpoints of *stage* lie."""
        return self.path / "checkpoints" / stage

    def prepare(self, plain: Json, suppliers: Mapping[str, str], plugins: Iterable[Path] = ()) -> None:
        """Make the folder and write `spec.toml` from a *plain* spec, `meta.json`, and the *plugins* that it imports.

        In a run that goes on, `meta.json` stays that of its beginning, and what goes on is added under `continued`.
        """
        meta, first = _meta(plain["seed"], suppliers), self.meta()
        self.path.mkdir(parents=True, exist_ok=True)
        data = dict(plain["data"])
        if "path" in data:
            data["path"] = str(Path(data["path"]).absolute())
        copied = {**plain, "imports": copy_plugins(plugins, self.path), "data": data}
        write_text(self.path / "spec.toml", to_toml(copied))
        if first:
            meta = {**first, "continued": [*first.get("continued", []), meta]}
        write_json(self.path / "meta.json", meta)

    def meta(self) -> Json:
        """Return what ran where, and by which versions; nothing where that was not written."""
        return read_json(self.path / "meta.json", META) or {}

    def spend(self, stage: str, seconds: float) -> None:
        """Record in `meta.json` how long *stage* took, the last time that it was worked on."""
        meta = self.meta()
        write_json(self.path / "meta.json", {**meta, "seconds": {**meta.get("seconds", {}), stage: round(seconds, 1)}})

    def stages(self) -> dict[str, str]:
        """Return the digest of the inputs of every stage that is done, by name."""
        try:
            return read_json(self.path / STAGES, table(others=TEXT)) or {}
        except RunFileError as error:
            raise RunFileError(f"{error}; remove it, and what is finished is found in the checkpoints") from None

    def content(self) -> dict[str, str]:
        """Return the hashes of what the run uses and has made: its `histories`, and every policy by its folder."""
        return read_json(self.path / CONTENT, table(others=TEXT)) or {}

    def keep(self, name: str, content: str | None) -> None:
        """Record a hash, or forget it."""
        write_json(self.path / CONTENT, _with(self.content(), name, content))

    def compare(self, name: str, content: str, what: str) -> bool:
        """Say whether there is a record of *name*; raises OtherContentError when *what* has another content."""
        kept = self.content().get(name)
        if kept not in (None, content):
            raise OtherContentError(f"{what} hold something else than when {self.path} was made (see its {CONTENT})")
        return kept is not None

    def has_done(self, stage: str, inputs: str | None) -> bool:
        """Say whether *stage* was done on these *inputs*."""
        return inputs is not None and self.stages().get(stage) == inputs

    def finish(self, stage: str, inputs: str | None) -> None:
        """Record that *stage* is done on *inputs*; without these, that it is not."""
        write_json(self.path / STAGES, _with(self.stages(), stage, inputs))

    def sibling_with(self, stage: str, inputs: str) -> "RunFolder | None":
        """Return another run under the same `out` that has done *stage* on the same inputs, or None.

        A folder whose record cannot be read is passed over.
        """
        for record in sorted(self.path.parent.glob(f"*/{STAGES}")):
            other = RunFolder(path=record.parent)
            with suppress(RunFileError):
                if other.path != self.path and other.stages().get(stage) == inputs:
                    return other
        return None

    @property
    def is_unfinished(self) -> bool:
        """Say whether a training stage was begun here and not finished."""
        begun = {place.name for place in (self.path / "checkpoints").glob("[!.]*") if updates(place)}
        return bool(begun - set(self.stages()))


def _with(record: dict[str, str], name: str, value: str | None) -> dict[str, str]:
    if value is None:
        return {key: kept for key, kept in record.items() if key != name}
    return {**record, name: value}


def _meta(seed: int, suppliers: Mapping[str, str]) -> Json:
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {**versions(*variables.VERSIONED), "python": platform.python_version()},
        "parts": dict(suppliers),
        "git_commit": git_commit(),
        "host": {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()},
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "environment": variables.record(),
        "seed": seed,
    }


def git_commit() -> str | None:
    """Return the commit of the working directory, or None outside a repository."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return answer.stdout.strip() or None
