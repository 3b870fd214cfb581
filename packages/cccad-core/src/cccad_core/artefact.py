"""The release artefact of a policy: weights as safetensors, its spec, and a model card; no pickle.

Whoever loads one may not know who wrote it: everything is checked before it is used, in this one reader, and no Python
file that lies in the folder is run unless the caller says so.
"""

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from attrs import field, frozen, validators
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cccad_core.errors import ArtefactError, SpaceError, SpecError, UntrustedPlugin
from cccad_core.footprint import outline
from cccad_core.policy import Policy, PolicySpec
from cccad_core.spaces import DEEPEST, Spaces
from cccad_core.specs import load, to_toml, unstructure
from cccad_core.specs.toml import show

FORMAT, EARLIER = "cccad-policy/2", "cccad-policy/1"
_NO_LONGER_KEPT = {"num_passes"}
"""Tensors that the earlier format kept and that no policy has any more."""
_MOVED = {"compressor.": "memory.compressor.", "backbone.": "memory.backbone."}
"""How names of tensors began in the earlier format, and how they begin now; fields move by `PolicySpec.MOVED`."""
T = TypeVar("T")
CARD = "README.md"
"""The model card, for people; it may be edited and written anew."""
LARGEST_WEIGHT = 1e6
"""Trained weights stay far below; much larger ones overflow in the first products."""
LARGEST_IMAGE = 2_000_000
"""Numbers of an observation that may be more than the weights are: convolutions have few, however large the image."""
_DTYPES = {"F32": torch.float32, "I64": torch.int64, "BOOL": torch.bool}


@frozen(kw_only=True)
class ArtefactSpec:
    """What `spec.toml` of an artefact holds."""

    format: str = field(validator=validators.in_((FORMAT, EARLIER)))
    policy: PolicySpec
    spaces: str = field(metadata={"help": "observation and action space, as JSON"})
    train_task_ids: tuple[str, ...] = field(
        validator=[validators.min_len(1), validators.deep_iterable(validators.min_len(1))],
        metadata={"help": "the tasks of the histories: none of them may be called held out"},
    )
    imports: tuple[str, ...] = ()


def save_policy(
    path: str | Path, policy: Policy, *, train_task_ids: tuple[str, ...], card: str, plugins: Iterable[Path] = ()
) -> Path:
    """Write `model.safetensors`, `spec.toml` and `README.md` into the folder *path*; returns it.

    *plugins* are the files that brought in parts of the policy; they are copied beside the spec.
    """
    if not train_task_ids or not all(train_task_ids):
        raise ValueError(f"'train_task_ids' must name the tasks that a policy was trained on: {train_task_ids}")
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    copied = tuple(copy_plugins(plugins, path))
    weights = {name: value.detach().cpu().contiguous() for name, value in policy.state_dict().items()}
    save_file(weights, path / "model.safetensors", metadata={"format": FORMAT})
    spec = ArtefactSpec(
        format=FORMAT,
        policy=policy.spec,
        spaces=json.dumps(policy.spaces.to_dict(), allow_nan=False),
        train_task_ids=train_task_ids,
        imports=copied,
    )
    (path / "spec.toml").write_text(to_toml(unstructure(spec)), encoding="utf-8")
    (path / CARD).write_text(card, encoding="utf-8")
    return path


def copy_plugins(files: Iterable[Path], folder: Path) -> list[str]:
    """Copy plugin files into *folder* and return their names there; raises SpecError for two of one name."""
    files, names = list(files), list[str]()
    for file in files:
        others = [other for other in files if other.name == file.name and other.read_bytes() != file.read_bytes()]
        if others:
            raise SpecError([("imports", f"two plugin files have the name {file.name}: {file} and {others[0]}")])
        if (folder / file.name).resolve() != file.resolve():
            shutil.copyfile(file, folder / file.name)
        names.append(file.name)
    return names


def load_artefact_spec(path: str | Path, *, trust_plugins: bool = False) -> ArtefactSpec:
    """Return what an artefact says of itself; raises ArtefactError naming the file where that is not possible."""
    file = _own_file(Path(path), "spec.toml", "no policy here")
    try:
        return load(file, ArtefactSpec, is_bundle=True, trust_plugins=trust_plugins)
    except UntrustedPlugin:
        raise
    except SpecError as error:
        raise ArtefactError(error.problems, error.source) from None


@frozen(kw_only=True, eq=False)
class Artefact:
    """A released policy, ready to act, and what its artefact says of it."""

    spec: ArtefactSpec
    policy: Policy


def load_policy(path: str | Path, *, trust_plugins: bool = False) -> Policy:
    """Return the policy in the folder *path*, ready to act: in evaluation mode and frozen; see `load_artefact`."""
    return load_artefact(path, trust_plugins=trust_plugins).policy


def load_artefact(path: str | Path, *, trust_plugins: bool = False) -> Artefact:
    """Return the policy in the folder *path*, in evaluation mode and frozen, with its spec.

    Python files in the folder are run only if *trust_plugins* says so, or if a copy of them is in already. Raises
    UntrustedPlugin where they are needed and not trusted, and ArtefactError naming the file if the spec or the weights
    are missing, damaged, of another format, type or size, or do not fit one another.
    """
    spec, file = load_artefact_spec(path, trust_plugins=trust_plugins), Path(path) / "spec.toml"
    weights = _own_file(Path(path), "model.safetensors", "no weights here")
    stored = _stored(weights)
    try:
        spaces = _spaces(spec.spaces, num_stored=sum(math.prod(shape) for _, shape in stored.values()))
        wanted = outline(spec.policy, spaces)[0].state_dict()
    except (SpaceError, ValueError) as error:
        raise ArtefactError([("", _sentence(error))], str(file)) from None
    _check_fit(stored, wanted, weights)
    policy = spec.policy.build(spaces, seed=0)
    policy.load_state_dict(_checked(weights))
    return Artefact(spec=spec, policy=policy.eval().requires_grad_(False))


def _own_file(folder: Path, name: str, without: str) -> Path:
    """Return the file *name* of *folder*; raises ArtefactError if it is not there, or a link to somewhere else."""
    file = folder / name
    if not file.is_file():
        raise ArtefactError([("", f"{without}: there is no file {file}")])
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ArtefactError([("", f"is a link to {file.resolve()}, outside of its folder; copy it here")], str(file))
    return file


def _sentence(error: Exception) -> str:
    return "; ".join(message for _, message in error.problems) if isinstance(error, SpecError) else str(error)


def _spaces(text: str, num_stored: int) -> Spaces:
    """Return the spaces that JSON describes; raises SpaceError, also where they need more numbers than are stored."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpaceError(f"'spaces' is no JSON: {error}") from None
    if not isinstance(content, Mapping) or not {"observation", "action"} <= content.keys():
        raise SpaceError(f"'spaces' must hold an observation and an action space: {show(text)}")
    for name in ("observation", "action"):  # before a box of 10**12 numbers is written out
        if (needed := _num_columns(content[name])) > max(num_stored, LARGEST_IMAGE):
            raise SpaceError(f"'spaces' has an {name} of {needed:,} numbers; the weights are {num_stored:,}")
    return Spaces.from_dict(content)


def _num_columns(space: Any, depth: int = DEEPEST) -> int:
    if isinstance(space, Mapping) and isinstance(parts := space.get("parts"), Mapping | list) and depth:
        return sum(_num_columns(part, depth - 1) for part in (parts.values() if isinstance(parts, Mapping) else parts))
    sizes = [space.get(name) for name in ("n", "sizes", "shape")] if isinstance(space, Mapping) else []
    lists = [size if isinstance(size, list) else [size] for size in sizes if size is not None]
    whole = [[size for size in each if type(size) is int] for each in lists]
    return max((math.prod(each) if each is space.get("shape") else sum(each) for each in whole), default=0)


def _stored(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the type and shape of every tensor in *file* by its present name, from a header that fits the file."""
    try:
        with safe_open(file, "pt") as opened:
            form = (opened.metadata() or {}).get("format", FORMAT)
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - it is no dictionary
            stored = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in _renamed(slices).items()}
    except (SafetensorError, OSError, ValueError) as error:
        cause = str(error).partition(":")[0] or type(error).__name__
        problem = f"the weights cannot be read: the file is damaged or cut off ({cause})"
        raise ArtefactError([("", problem)], str(file)) from None
    if form.startswith("cccad-") and form not in (FORMAT, EARLIER):
        raise ArtefactError([("", f"the weights are of format {show(form)}; this version reads {FORMAT}")], str(file))
    return stored


def _renamed(tensors: Mapping[str, T]) -> dict[str, T]:
    """Return *tensors* by their present names, without those that are no longer kept."""
    moved = {name: next((old for old in _MOVED if name.startswith(old)), "") for name in tensors}
    present = {name: _MOVED.get(old, "") + name.removeprefix(old) for name, old in moved.items()}
    return {present[name]: value for name, value in tensors.items() if name not in _NO_LONGER_KEPT}


def _check_fit(stored: Mapping[str, tuple[str, tuple[int, ...]]], wanted: Mapping[str, Tensor], file: Path) -> None:
    """Raise ArtefactError unless *stored* has the names, types and shapes that are *wanted*."""
    fault = ""
    for name, value in wanted.items():
        dtype, shape = stored.get(name, ("", ()))
        if not dtype:
            fault = f"{name} is missing"
        elif shape != tuple(value.shape):
            fault = f"{name} has shape {shape}, not {tuple(value.shape)}"
        elif _DTYPES.get(dtype) != value.dtype:
            fault = f"{name} has type {dtype}, not {str(value.dtype).removeprefix('torch.')}"
        if fault:
            break
    extra = sorted(set(stored) - set(wanted))
    fault = fault or (f"{show(extra[0])} is not of this policy" if extra else "")
    if fault:
        raise ArtefactError(
            [("", f"the weights do not fit the policy in the spec.toml beside them: {fault}")], str(file)
        )


def _checked(file: Path) -> dict[str, Tensor]:
    """Return the weights in *file*; raises ArtefactError if one is no number, or larger than training can make it."""
    weights = _renamed(load_file(file))
    for name, value in weights.items():
        largest = float(value.abs().max()) if value.is_floating_point() and value.numel() else 0.0
        if not largest <= LARGEST_WEIGHT:  # also for NaN
            value_text = f"reaches {largest:.3g}" if math.isfinite(largest) else f"is {largest}"
            raise ArtefactError([("", f"the weights are damaged: a value of {name} {value_text}")], str(file))
    return weights
