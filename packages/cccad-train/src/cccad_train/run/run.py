"""An experiment on its way: its graph and its folder, the histories and weights in it, and the devices that do it."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from accelerate import Accelerator
from attrs import frozen
from cccad_core.policy import Policy
from cccad_core.spaces import Spaces
from cccad_data import Histories
from cccad_data.family import Task, TaskFamily
from torch import Tensor

from cccad_train.console import say, warn
from cccad_train.experiment import ExperimentSpec
from cccad_train.files import Json
from cccad_train.fit import checkpoints
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
            histories = self.existing_histories()[0]
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

    def existing_histories(self, *, lazy: bool | None = None) -> tuple[Histories, str]:
        """Return the histories that the spec names, and what there is to say of them; see `open_existing`."""
        assert self.spec.data.path is not None
        limit = self.spec.split.max_train_tasks
        return open_existing(self.spec.data.path, self.environments.own, limit, lazy=lazy)

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

    def fresh_policy(self, stage: Stage) -> Policy:
        """Return the policy that *stage* trains, with the weights that the spec's seed gives it."""
        return self.graph.agent_of(stage).policy.build(Spaces.from_dict(self.family.spaces), self.spec.seed)

    def outcome(self, stage: Stage, folder: RunFolder) -> Json | None:
        """Return the state at the end of *stage* as it lies in *folder*, or None: it is missing, damaged or another's.

        The folder may be that of another run.
        """
        fit = checkpoints.fitting(self.fresh_policy(stage).state_dict())
        state = checkpoints.load_latest(folder.checkpoints(stage.name), fit, warn if self.is_main else lambda _: None)
        if state is None or state["inputs"] != stage.inputs:
            return None
        num_updates = self.graph.agent_of(stage).fit(stage.kind).num_updates
        return state if state["progress"]["update"] == num_updates else None

    def weights(self, stage: Stage) -> dict[str, Tensor]:
        """Return the weights at the end of *stage*; raises UnfinishedRunError when it is not finished, or damaged."""
        is_done = self.folder.has_done(stage.name, stage.inputs)
        state = self.outcome(stage, self.folder) if is_done else None
        if state is None:
            cause = "its checkpoint is damaged; run" if is_done else "run"
            raise UnfinishedRunError(
                f"'{stage.name}' is not done in {self.folder.path}; {cause} it first, or without '--only'"
            )
        weights: dict[str, Tensor] = state["policy"]
        return weights

    def trained_policy(self, agent: str) -> Policy:
        """Return the policy of *agent* as its training left it; raises as `weights` does."""
        stage = self.graph.stage("train", agent)
        policy = self.fresh_policy(stage)
        policy.load_state_dict(self.weights(stage))
        return policy
