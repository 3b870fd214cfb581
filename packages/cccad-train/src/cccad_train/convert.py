"""From files of earlier formats, which stay readable, to the newest: what `cccad convert` does."""

import shutil
from pathlib import Path

from cccad_core.artefact import CARD, FORMAT, load_artefact, save_policy
from cccad_data.histories.dataset import read_manifest
from cccad_data.histories.shards import read_header

from cccad_train.files import read_json, read_text
from cccad_train.report.runs import check_results


class ConversionError(ValueError):
    """There is nothing that can be converted, or something lies already where it would go."""


def convert(old: Path, new: Path, *, trust_plugins: bool = False) -> str:
    """Write to *new*, in the newest format, what lies at *old*; return a sentence on what was done.

    A policy, results or histories of the newest format are left alone, and nothing is written. Python files beside a
    policy run only if *trust_plugins* says so. Raises ConversionError where *old* is none of these or *new* is there,
    and as the readers do where *old* is damaged.
    """
    if (old / "model.safetensors").exists():
        return _convert_policy(old, new, trust_plugins=trust_plugins)
    if (old / "manifest.json").exists():
        return _current(old, "these histories are", str(read_manifest(old)["format"]))
    if old.is_file() and old.suffix == ".h5":
        return _current(old, "these histories are", str(read_header(old)["format"]))
    if old.is_file() and old.suffix == ".json":
        results = check_results(read_json(old, lambda _: None), str(old))
        return _current(old, "these results are", str(results["format"]))
    if not old.exists():
        raise ConversionError(f"{old}: there is nothing here")
    takes = "the folder of a policy, results.json, or histories: their folder or one of its shards"
    raise ConversionError(f"{old}: this can be converted: {takes}")


def _current(old: Path, what: str, form: str) -> str:
    return f"{old}: {what} of the newest format, {form}; nothing is written"


def _convert_policy(old: Path, new: Path, *, trust_plugins: bool) -> str:
    """Read a policy, whatever its format, and release it again with its own card, task ids and plugins."""
    artefact = load_artefact(old, trust_plugins=trust_plugins)
    spec = artefact.spec
    if spec.format == FORMAT:
        return _current(old, "this policy is", spec.format)
    if new.exists():
        raise ConversionError(f"{new}: this is there already, and is not written over; give another name")
    plugins = [old / name for name in spec.imports]
    partial = new.with_name(f".{new.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        card = read_text(old / CARD) or ""
        save_policy(partial, artefact.policy, train_task_ids=spec.train_task_ids, card=card, plugins=plugins)
        partial.rename(new)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return f"{new}: the policy in {old}, of format {spec.format}, is written in the newest, {FORMAT}"
