"""The release artefact of a policy: weights as safetensors, its spec, and a model card; no pickle."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from attrs import field, frozen, validators
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cccad_core.errors import SpecError
from cccad_core.policy import Policy, PolicySpec
from cccad_core.spaces import Spaces
from cccad_core.specs import load, to_toml, unstructure

FORMAT = "cccad-policy/1"


@frozen(kw_only=True)
class ArtefactSpec:
    """What `spec.toml` of an artefact holds."""

    format: str = field(validator=validators.in_((FORMAT,)))
    policy: PolicySpec
    spaces: str = field(metadata={"help": "observation and action space, as JSON"})
    train_task_ids: tuple[str, ...] = field(default=())
    imports: tuple[str, ...] = ()


def save_policy(
    path: str | Path, policy: Policy, *, train_task_ids: tuple[str, ...], card: str, plugins: Iterable[Path] = ()
) -> Path:
    """Write `model.safetensors`, `spec.toml` and `README.md` into the folder *path*; returns it.

    *plugins* are the files that brought in parts of the policy; they are copied beside the spec.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    copied = tuple(copy_plugins(plugins, path))
    weights = {name: value.detach().cpu().contiguous() for name, value in policy.state_dict().items()}
    save_file(weights, path / "model.safetensors", metadata={"format": FORMAT})
    spec = ArtefactSpec(
        format=FORMAT,
        policy=policy.spec,
        spaces=json.dumps(policy.spaces.to_dict()),
        train_task_ids=train_task_ids,
        imports=copied,
    )
    (path / "spec.toml").write_text(to_toml(unstructure(spec)), encoding="utf-8")
    (path / "README.md").write_text(card, encoding="utf-8")
    return path


def copy_plugins(files: Iterable[Path], folder: Path) -> list[str]:
    """Copy plugin files into *folder* and return their names there."""
    names = []
    for file in files:
        if (folder / file.name).resolve() != file.resolve():
            shutil.copyfile(file, folder / file.name)
        names.append(file.name)
    return names


def load_artefact_spec(path: str | Path) -> ArtefactSpec:
    """Return what an artefact says of itself; raises SpecError naming the file where that is not possible."""
    file = Path(path) / "spec.toml"
    if not file.is_file():
        raise SpecError([("", f"no policy here: there is no file {file}")])
    return load(file, ArtefactSpec)


def load_policy(path: str | Path) -> Policy:
    """Return the policy in the folder *path*, ready to act.

    Raises SpecError naming the file if the spec or the weights are missing, or do not fit one another.
    """
    spec, file = load_artefact_spec(path), Path(path) / "model.safetensors"
    policy = spec.policy.build(Spaces.from_dict(json.loads(spec.spaces)), seed=0)
    if not file.is_file():
        raise SpecError([("", f"no weights here: there is no file {file}")])
    try:
        policy.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        raise SpecError([("", f"the weights in {file} do not fit the policy in the spec.toml beside them")]) from error
    return policy
