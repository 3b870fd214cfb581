"""An experiment on its way: its graph, its folder, the histories that it learns from and the devices that do it."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from accelerate import Accelerator
from attrs import frozen
from cccad_data import Histories
from cccad_data.family import Task, TaskFamily

from cccad_train.console import say
from cccad_train.experiment import ExperimentSpec
from cccad_train.launch import as_main
from cccad_train.run import progress
from cccad_train.run.environments import Environments, refuse_leaks
from cccad_train.run.folder import RunFolder
from cccad_train.run.graph import Graph, Stage
from cccad_train.run.histories import content_of, open_existing
from cccad_train.run.progress import UnfinishedRunError


@frozen(kw_only=True, slots=False)
class Run:
    """An experiment on its way: what is wanted, where it goes, and the devices that do it."""

    graph: Graph
    environments: Environments
    folder: RunFolder
    accelerator: Accelerator
    plugins: tuple[Path, ...] = ()

    @property
    def spec(self) -> ExperimentSpec:
        """What is wanted."""
        return self.graph.spec

    @property
    def family(self) -> TaskFamily:
        """The task family of the spec."""
        return self.environments.own.family

    @cached_property
    def dataset(self) -> Path:
        """The folder of the histories."""
        return progress.dataset(self.graph, self.folder)

    @property
    def held_out(self) -> Sequence[Task]:
        """The tasks that are kept for evaluation."""
        return self.environments.own.held_out

    @cached_property
    def histories(self) -> Histories:
        """The histories of training tasks, collected or given.

        Raises UnfinishedRunError when they are not (all) there, HistoryFileError when they are damaged, SpecError when
        those that were given are of another environment, LeakError when a held-out task is among the collected, and
        OtherContentError when they are not those that the run was made with.
        """
        if self.spec.data.path is not None:
            histories = open_existing(self.spec, self.environments.own)[0]
        elif not progress.is_collected(self.dataset):
            problem = f"there are no finished histories in {self.dataset}"
            raise UnfinishedRunError(f"{problem}; run with '--only collect' first")
        else:
            histories = Histories.open(self.dataset)
            refuse_leaks(self.held_out, histories.task_ids, f"the data in {self.dataset}")
        if self.is_main:
            content = content_of(histories)
            if not self.folder.compare("histories", content, f"the histories in {self.dataset}"):
                self.folder.keep("histories", content)
        return histories

    @property
    def has_histories(self) -> bool:
        """Say whether the histories are there, which a run folder that was copied alone has left behind."""
        return self.dataset.exists() if self.spec.data.path is not None else progress.is_collected(self.dataset)

    @property
    def is_main(self) -> bool:
        """Say whether this process is the one that writes and speaks."""
        return bool(self.accelerator.is_main_process)

    def is_done(self, stage: Stage, is_whole: Callable[[], bool] = lambda: True) -> bool:
        """Say whether *stage* was done on the same inputs and its outcome *is_whole*; all processes hear the same."""
        done = bool(as_main(self.folder.has_done(stage.name, stage.inputs) and is_whole()))
        if done and self.is_main:
            say(f"{stage.name}: done before, nothing to do")
        return done
