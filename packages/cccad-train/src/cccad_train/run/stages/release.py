"""The stage `release`: policies that have been judged, with scores on their cards; and how they are read back."""

import errno
import shutil
from collections.abc import Mapping

from cccad_core.artefact import CARD, Artefact, load_artefact, save_policy
from cccad_core.spaces import Spaces
from safetensors import SafetensorError

from cccad_train.files import write_text
from cccad_train.report.runs import read_run
from cccad_train.run.environments import refuse_leaks
from cccad_train.run.graph import Stage
from cccad_train.run.histories import content_of_policy
from cccad_train.run.progress import UnfinishedRunError
from cccad_train.run.run import Run
from cccad_train.run.stages.cards import model_card


def do_release(run: Run, stage: Stage) -> None:
    """Release the policy of every agent, with what the evaluation measured on its card."""
    if run.is_done(stage, is_whole=lambda: all(_is_there(run, name) for name in run.graph.agents)):
        return
    if run.is_main:
        for name in run.graph.agents:
            _release(run, name)
        run.folder.finish(stage.name, stage.inputs)
    run.accelerator.wait_for_everyone()


def _is_there(run: Run, name: str) -> bool:
    return (run.folder.artefact(name, run.spec.agent) / "spec.toml").is_file()


def _release(run: Run, name: str) -> None:
    """Write the release artefact of a trained agent, whole or not at all."""
    task_ids = run.histories.task_ids  # before anything is written: a leak is refused here
    policy = run.trained_policy(name)
    place = run.folder.artefact(name, run.spec.agent)
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    card = model_card(run.graph, name, policy, task_ids, read_run(run.folder.path))
    try:
        save_policy(partial, policy, train_task_ids=task_ids, card=card, plugins=run.plugins)
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
        run.folder.keep(str(place.relative_to(run.folder.path)), content_of_policy(place))
    except SafetensorError as error:  # a full disk, in the words of another language
        raise OSError(errno.EIO, f"the weights cannot be written ({error})", str(place)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refresh_cards(run: Run, artefacts: Mapping[str, Artefact]) -> None:
    """Write the cards of all released policies anew, after another evaluation; weights and specs stay as they are."""
    stage, judged = run.graph.stage("release"), read_run(run.folder.path)
    for name, artefact in artefacts.items():
        card = model_card(run.graph, name, artefact.policy, artefact.spec.train_task_ids, judged)
        write_text(run.folder.artefact(name, run.spec.agent) / CARD, card)
    run.folder.finish(stage.name, stage.inputs)


def released(run: Run, name: str) -> Artefact:
    """Return what was released of an agent, its policy on the run's device.

    Raises UnfinishedRunError when it is not there or not the one that the spec describes, LeakError when it was trained
    on a task that is held out, and ArtefactError when it is damaged.
    """
    place = run.folder.artefact(name, run.spec.agent)
    if not _is_there(run, name):
        raise UnfinishedRunError(f"there is no released policy in {place}; finish the run first")
    artefact = load_artefact(place)  # the run has brought in its plugins, of which the policy has copies
    refuse_leaks(run.held_out, artefact.spec.train_task_ids, f"the training of the policy in {place}")
    if artefact.spec.policy != run.graph.agents[name].policy:  # fields added since have their defaults
        raise UnfinishedRunError(f"the policy in {place} is not the one that the run's spec describes")
    if artefact.policy.spaces != Spaces.from_dict(run.family.spaces):
        raise UnfinishedRunError(f"the policy in {place} was trained for other spaces than those of {run.family.name}")
    run.folder.compare(str(place.relative_to(run.folder.path)), content_of_policy(place), f"the files in {place}")
    artefact.policy.to(run.accelerator.device)
    return artefact
