"""One training stage: objective, batches, optimizer and hooks put together, resumable to the bit."""

import math
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from attrs import asdict, frozen
from cccad_core.encoders.base import measured
from cccad_core.memory.compressed import Compressed
from cccad_core.objectives.base import Objective
from cccad_core.policy import HEADS, Policy
from cccad_data import Sampler
from cccad_data.process import Stopped, unstopped
from torch import Tensor

from cccad_train.console import Meter, say, warn
from cccad_train.experiment import AgentSpec
from cccad_train.fit import checkpoints
from cccad_train.fit.batches import Batches
from cccad_train.fit.checkpoints import Progress
from cccad_train.fit.loop import fit
from cccad_train.fit.spec import FitSpec
from cccad_train.launch import Agreement, as_main
from cccad_train.run.folder import RunFolder
from cccad_train.run.graph import Stage
from cccad_train.run.stages.metrics import Metrics
from cccad_train.variables import LaunchError


class DivergedError(ValueError):
    """Training has left the realm of numbers; what was saved before is kept."""


class UnusableCheckpointsError(ValueError):
    """There are checkpoints of a stage, and none that it can go on from."""


def shared(policy: Policy) -> tuple[str, ...]:
    """Return how the names of the weights begin that *policy* takes over where it begins with another agent's."""
    return ("layout.", "head.", *(f"memory.{part}." for part in policy.memory.shared))


def assemble(stage: Stage, policy: Policy, agent: AgentSpec, others: Mapping[str, Policy]) -> Objective:
    """Return what *stage*, which trains *agent*, minimises; *others*, by place, are trained, and frozen from here.

    Heads that the objective does not ask stay as they are. Where an agent is pre-trained on top of another one's
    weights, so does all that it took from that one: only its memory is new.
    """
    spec = agent.fit(stage.kind)
    objective: Objective = spec.objective.build(policy, spec.max_gradient_rounds, others)
    for head in HEADS:
        getattr(policy, head).requires_grad_(head in objective.heads)
    if stage.kind == "pretrain" and agent.train.warm_start is not None:
        for name, weight in policy.named_parameters():
            if name.startswith(shared(policy)):
                weight.requires_grad_(False)
    return objective


@frozen
class Fit:
    """A training stage in a run folder; its checkpoints carry the digest of its inputs."""

    folder: RunFolder
    accelerator: Accelerator
    stage: Stage

    def run(
        self, policy: Policy, agent: AgentSpec, sampler: Sampler, others: Mapping[str, Policy] | None = None
    ) -> None:
        """Train *policy* in place, from the newest checkpoint of the same inputs if there is one.

        *others* are the policies of the agents that the objective names, by the field that names them.
        """
        spec, accelerator = agent.fit(self.stage.kind), self.accelerator
        whole = assemble(self.stage, policy, agent, others or {})
        compressor = policy.memory.compressor if isinstance(policy.memory, Compressed) else None
        optimizer = spec.optimizer.build(policy, compressor)
        progress = self._resume(policy, optimizer, spec.num_updates)
        batches = Batches(
            sampler=sampler,
            memory=policy.memory,
            curriculum=spec.curriculum.build(),
            spec=spec,
            rank=accelerator.process_index,
            num_processes=accelerator.num_processes,
            device=accelerator.device,
            spaces=policy.spaces,
        )
        if not progress.update and (encoders := measured(policy)):
            observations = batches.observations()
            for encoder in encoders:
                encoder.measure(observations)
        objective, optimizer = accelerator.prepare(whole, optimizer)
        recorder = _Recorder(self, policy, optimizer, progress, spec)
        try:
            with unstopped() as asked:
                agreement = Agreement(asked, accelerator)
                fit(objective, batches, optimizer, progress, accelerator, hooks=[recorder], is_to_stop=agreement)
                if agreement.number:
                    raise Stopped(agreement.number, recorder.stop(progress.update))
            if asked():  # after the last update
                raise Stopped(asked())
        finally:
            recorder.close()

    def _resume(self, policy: Policy, optimizer: torch.optim.Optimizer, num_updates: int) -> Progress:
        place = self.folder.checkpoints(self.stage.name)
        fit_ = checkpoints.fitting(policy.state_dict(), optimizer, num_updates)
        is_main = self.accelerator.is_main_process
        state = checkpoints.load_latest(place, fit_, warn if is_main else lambda _: None)
        update = None if state is None else state["progress"]["update"]
        if update != as_main(update):
            rank = self.accelerator.process_index
            raise LaunchError(f"process {rank} sees other checkpoints in {place} than process 0")
        if state is None and checkpoints.updates(place):
            raise UnusableCheckpointsError(
                f"no checkpoint in {place} can be used to go on from; "
                f"remove that folder to begin {self.stage.name} anew"
            )
        if state is None:
            return Progress()
        if state["inputs"] != self.stage.inputs:
            raise UnusableCheckpointsError(
                f"the checkpoints in {place} are of other histories, plugin files or versions than this run would use; "
                f"remove that folder to begin {self.stage.name} anew, or give another --out"
            )
        policy.load_state_dict(state["policy"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
        if is_main and progress.update < num_updates:
            say(f"{self.stage.name}: going on from update {progress.update:,} of {num_updates:,}")
        return progress


class _Recorder:
    """The hook that keeps count: metrics every few updates, checkpoints every few hundred."""

    def __init__(
        self, fit_: Fit, policy: Policy, optimizer: torch.optim.Optimizer, progress: Progress, spec: FitSpec
    ) -> None:
        name = fit_.stage.name
        self.fit, self.policy, self.optimizer, self.progress, self.spec = fit_, policy, optimizer, progress, spec
        self.pending: list[Tensor] = []
        self.saved = progress.update
        self.is_main = bool(fit_.accelerator.is_main_process)
        self.metrics = Metrics(fit_.folder.path, name, progress.update) if self.is_main else None
        self.meter = Meter(
            fit_.stage.name, spec.num_updates, "updates", done=progress.update, is_silent=not self.is_main
        )

    def __call__(self, update: int, losses: dict[str, Tensor]) -> None:
        self.pending.append(torch.stack([value.detach().float() for value in losses.values()]))
        last = update == self.spec.num_updates
        saves = last or update % self.spec.checkpoint_every_updates == 0
        if saves or update % self.spec.log_every_updates == 0:
            self._log(update, list(losses))
        if saves and self.is_main:
            self._save(update)

    def _log(self, update: int, names: list[str]) -> None:
        rows = self._reduced()
        self.progress.advance(rows[:, names.index("loss")].tolist())
        means = dict(zip(names, rows.double().mean(0).tolist(), strict=True))
        if not math.isfinite(means["loss"]):
            raise DivergedError(
                f"{self.fit.stage.name}: the loss is {means['loss']} by update {update:,}; "
                "a lower learning rate may help"
            )
        means["learning_rate"] = self.spec.optimizer.rate(update - 1, self.spec.num_updates)
        if self.metrics is not None:
            self.metrics.write(update, means)
        self.meter.show(update, loss=f"{means['loss']:.4f}{_against_majority(means)}")

    def _reduced(self) -> Tensor:
        """Return the losses of all updates since the last line, averaged over the processes, `u l`."""
        earlier, self.progress.pending = self.progress.pending, []
        rows: Tensor = torch.tensor(earlier)
        if self.pending:
            rows = self.fit.accelerator.reduce(torch.stack(self.pending), reduction="mean")
            rows = torch.cat([rows.new_tensor(earlier), rows]) if earlier else rows
        self.pending = []
        return rows

    def stop(self, update: int) -> str:
        """Save what there is after *update*, wherever between two checkpoints it is; return where and what is kept."""
        self.progress.pending = self._reduced().tolist()
        if self.is_main and self.saved != update:
            self._save(update, may_be_best=False)
        where = f" after update {update:,} of {self.spec.num_updates:,} of {self.fit.stage.name}"
        return f"{where}, which is saved; --resume goes on from there"

    def _save(self, update: int, *, may_be_best: bool = True) -> None:
        loss, self.saved = self.progress.smoothed_loss, update
        is_best = may_be_best and loss is not None and loss < self.progress.best
        if is_best and loss is not None:
            self.progress.best = loss
        state = {
            "inputs": self.fit.stage.inputs,
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
        }
        checkpoints.save(self.fit.folder.checkpoints(self.fit.stage.name), update, state, is_best=is_best)

    def close(self) -> None:
        """Flush, and end the meter's line."""
        self.meter.close()
        if self.metrics is not None:
            self.metrics.close()


def _against_majority(means: dict[str, float]) -> str:
    """Return the accuracy of every rebuilt field beside that of always telling its most common value."""
    fields = [name.removesuffix("_majority") for name in means if name.endswith("_majority")]
    accuracies = {f.removeprefix("reconstruction_"): (means[f"{f}_accuracy"], means[f"{f}_majority"]) for f in fields}
    return "".join(f", {name} {right:.1%} (majority {most:.1%})" for name, (right, most) in accuracies.items())
