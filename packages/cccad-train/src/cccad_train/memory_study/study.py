"""What a trained agent's memory holds and is good for, measured on lives that it lives: a run in, JSON data out."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import define, frozen
from cccad_core.agent import Agent
from cccad_core.compressors.base import Compressor, take_rows
from cccad_core.memory.compressed import Compressed, compressed
from cccad_core.memory.controls import ZeroedLatents
from cccad_core.play import Played, Player, play
from cccad_core.policy import Policy
from cccad_core.registry import name_of
from cccad_data.families.scale import Scale
from cccad_data.family import NeedsReference, Task, VectorEnvironment
from numpy.typing import ArrayLike

from cccad_train.console import Meter
from cccad_train.experiment import recorded
from cccad_train.files import Json
from cccad_train.memory_study.lives import Lent, Torn, Witness
from cccad_train.memory_study.probes import effective_rank, fit_probe, score, told_exactly
from cccad_train.report.runs import read_agents, read_run
from cccad_train.report.statistics import Floats, normalise
from cccad_train.run.run import Run
from cccad_train.run.stages.release import released

FORMAT = "cccad-memory/1"
WRITES = (1, 2, 5, 10, 20)  # after which a memory is probed and lent
FROZEN_AFTER = (1, 5)  # writes
NUM_LENDERS, NUM_LOANS = 8, 4  # tasks in the swap matrix, and lives for each pair of them


class MemoryReportError(ValueError):
    """The agent of a run has no memory to report on."""


@frozen(kw_only=True)
class Watched:
    """Lives that were lived side by side, the task of each in *rows*, and what their witness kept."""

    rows: list[Task]
    num_replicas: int
    witness: Witness
    lent: Lent
    played: Played

    @property
    def tasks(self) -> list[Task]:
        """The tasks that were lived on."""
        return self.rows[:: self.num_replicas]

    def latents(self, number: int, of: int | None = None) -> tuple[Floats, Any]:
        """Return what is read after write *number*, `b k d`, by lives that reached write *of*, and which, `b`."""
        is_there = self.witness.reached[number if of is None else of]
        read = self.lent.read(self.witness.memories[number]).detach()
        return read[is_there].double().cpu().numpy(), is_there.cpu().numpy()

    def shapes(self) -> list[Json]:
        """Return size, effective rank and movement of the latents by write."""
        rows = []
        for number in range(1, len(self.witness.reached)):
            (now, _), (before, _) = self.latents(number), self.latents(number - 1, of=number)
            flat, moved = now.reshape(len(now), -1), np.linalg.norm(now - before, axis=(1, 2))
            row = {
                "write": number,
                "lives": len(now),
                "norm": float(np.linalg.norm(now, axis=2).mean()),
                "rank_within_a_life": float(effective_rank(now).mean()),
                "rank_across_lives": float(effective_rank(flat - flat.mean(0))),
                "moved": float((moved / np.maximum(np.linalg.norm(before, axis=(1, 2)), 1e-12)).mean()),
            }
            opened = self.lent.openness.get(number)
            rows.append({**row, "gate": float(np.mean(opened))} if opened else row)
        return rows

    def attention(self) -> Json:
        """Return the share of attention on latents by layer, and by the raw tokens in view, beside the even share."""
        mass, looks = (values.double().cpu().numpy() for values in (self.witness.mass, self.witness.looks))
        [slots] = np.nonzero(looks)
        even = self.lent.num_latents / (slots + 1)
        return {
            "by_layer": (mass.sum(1) / looks.sum()).tolist(),
            "even": float(even @ looks[slots] / looks.sum()),
            "raw_tokens": (slots + 1 - self.lent.num_latents).tolist(),
            "mass": (mass[:, slots] / looks[slots]).tolist(),
            "even_by_raw_tokens": even.tolist(),
        }


@define
class Study:
    """An agent under study, and how much of its living is done."""

    run: Run
    policy: Policy
    meter: Meter
    num_lived_episodes: int = 0

    @property
    def memory(self) -> Compressed:
        """The memory under study."""
        return compressed(self.policy.memory)

    def agent(self, compressor: Compressor) -> Agent:
        """Return the agent that remembers with another *compressor* around its own."""
        return Agent(self.policy, self.memory.with_compressor(compressor))

    def live(self, agent: Player, environments: VectorEnvironment, num_episodes: int) -> Played:
        """Live *num_episodes* in every row of *environments*."""
        before, spec = self.num_lived_episodes, self.run.spec.evaluate
        self.num_lived_episodes += num_episodes
        return play(
            agent,
            environments,
            num_episodes=num_episodes,
            generator=torch.Generator(next(self.policy.parameters()).device).manual_seed(spec.seed),
            greedy=spec.greedy,
            seed=spec.seed,
            progress=lambda finished: self.meter.show(before + finished),
        )

    def watch(self, tasks: Sequence[Task], num_lives: int, num_episodes: int) -> Watched:
        """Live on *tasks* with the memory as it is, and keep what can be seen of it."""
        num_replicas, lent = max(1, num_lives // len(tasks)), Lent(self.memory.compressor)
        rows = [task for task in tasks[:num_lives] for _ in range(num_replicas)]
        witness = Witness(self.agent(lent))
        played = self.live(witness, self.run.family.make_vec(rows), num_episodes)
        return Watched(rows=rows, num_replicas=num_replicas, witness=witness, lent=lent, played=played)

    def normalised(self, returns: ArrayLike, tasks: Sequence[Task]) -> Floats:
        """Return *returns*, `e ...`, one row for each of *tasks*, as shares of what lies between random and optimal."""
        family, values = self.run.family, np.asarray(returns).reshape(len(tasks), 1, -1)
        references = []
        if isinstance(family, NeedsReference):  # which were measured where the run was evaluated
            judged = {task["task_id"]: task for task in read_run(self.run.folder.path).results["tasks"]}
            references = [(judged[task.task_id]["optimal_return"], 0.0) for task in tasks]
        scale = Scale.of(family, tasks, references)
        return normalise(values, scale.best, scale.random)[:, 0]

    def retention(self, watched: Watched) -> Json:
        """Return normalised return by episode with the memory intact, unread, and no longer written."""
        rows, inner, returns = watched.rows, self.memory.compressor, {"intact": watched.played.returns}
        others: dict[str, Compressor] = {"zeroed": ZeroedLatents(inner)}
        others |= {f"frozen after write {number}": Lent(inner, last_write=number) for number in FROZEN_AFTER}
        for name, compressor in others.items():
            agent, num_episodes = self.agent(compressor), watched.played.returns.shape[1]
            returns[name] = self.live(agent, self.run.family.make_vec(rows), num_episodes).returns
        curves = {name: self.normalised(lived, rows).mean(0).tolist() for name, lived in returns.items()}
        return {"curves": curves, "writes": watched.played.writes[0]}

    def swaps(self, watched: Watched) -> Json:
        """Return what the first episode of lives looks like that begin with the memory of a life on another task."""
        tasks, reached = watched.tasks[:NUM_LENDERS], watched.witness.reached
        num_tasks, num_loans = len(tasks), min(NUM_LOANS, watched.num_replicas)
        measured: Json = {"tasks": [task.task_id for task in tasks], "by_write": [], "matrix": None}
        own, donor, loan = (axis.ravel() for axis in np.indices((num_tasks, num_tasks, num_loans)))
        for number in (0, *WRITES) if num_tasks > 1 else ():
            if number < len(reached) and bool(reached[number].all()):
                lender = torch.as_tensor(donor * watched.num_replicas + loan, device=reached[number].device)
                memory = take_rows(watched.witness.memories[number], lender)
                returns, torn = self._lend(memory, [tasks[i] for i in own], [tasks[i] for i in donor])
                row = {**_followed(returns, own != donor), **torn.agreement(own != donor)}
                measured["by_write"].append({"write": number, **row})
                means = returns.reshape(2, num_tasks, num_tasks, num_loans).mean(-1).tolist()
                measured["matrix"] = {"write": number, "own": means[0], "donor": means[1]}
        return measured

    def _lend(self, memory: Any, own: list[Task], donors: list[Task]) -> tuple[Floats, Torn]:
        """Return the first episode's normalised return on the own and on the donors' terms, `2 e`, and who lived it."""
        environments = self.run.family.make_vec(own)
        agent = self.agent(Lent(self.memory.compressor, start=memory))
        torn = Torn(agent, environments, self.run.family.make_vec(donors), self.run.spec.evaluate.seed)
        played = self.live(torn, environments, 1)
        returns = [self.normalised(played.returns, own)[:, 0], self.normalised(torn.returns, donors)[:, 0]]
        return np.stack(returns), torn


def _followed(returns: Floats, is_swapped: Any) -> Json:
    """Return means over lives on a lent memory: returns, and how many earn more on which terms (and above random)."""
    own, donor = returns[:, is_swapped]
    return {
        "return_intact": float(returns[0, ~is_swapped].mean()),
        "return_own": float(own.mean()),
        "return_donor": float(donor.mean()),
        "follows_own": float((own > np.maximum(donor, 0)).mean()),
        "follows_donor": float((donor > np.maximum(own, 0)).mean()),
    }


def probe(trained: Watched, held_out: Watched) -> Json:
    """Return how well a linear map from latents tells a held-out task, fitted on training tasks write by write."""
    params = [task.params for task in trained.rows]
    numbers = [name for name, value in params[0].items() if not isinstance(value, str)]  # a map tells no texts
    names = [name for name in numbers if len({values[name] for values in params}) > 1]
    y, y_new = (
        np.array([[task.params[name] for name in names] for task in watched.rows], dtype=np.float64)
        for watched in (trained, held_out)
    )
    exact = told_exactly(names, y)
    chance = {name: 1 / len(np.unique(y[:, where], axis=0)) for name, where in exact.items()}
    first, by_write, tasks = None, [], np.arange(len(y)) // trained.num_replicas
    most = min(len(trained.witness.reached), len(held_out.witness.reached)) if names else 0
    for number in (number for number in WRITES if number < most):
        (x, is_there), (x_new, is_there_new) = (watched.latents(number) for watched in (trained, held_out))
        if len(np.unique(tasks[is_there])) > 1:
            fitted = fit_probe(x.reshape(len(x), -1), y[is_there], tasks[is_there])
            first, guess, flat = first or fitted, y[is_there].mean(0), x_new.reshape(len(x_new), -1)
            own, transferred = (score(each(flat), y_new[is_there_new], guess, names, exact) for each in (fitted, first))
            by_write.append({"write": number, "lives": len(flat), **own, "transferred": transferred})
    return {"params": names, "chance": chance, "by_write": by_write}


def by_environment(path: Path) -> list[Json]:
    """Return normalised last returns and writes in a life by agent, in every environment of the evaluation in *path*.

    The first, unnamed, is the run's own; none where it has no others.
    """
    results = read_run(path).results if (path / "evaluation" / "results.json").is_file() else {}
    others = results.get("worlds", {})
    return [
        {
            "world": name,
            "horizon": inner.get("horizon"),
            "agents": {
                agent.name: {"return": agent.row["normalized_last10_mean"], "writes": agent.compressions_per_history}
                for agent in read_agents(inner)
            },
        }
        for name, inner in [(None, results), *others.items()]
        if others
    ]


def study(run: Run, num_lives: int) -> Json:
    """Return all that is measured on about *num_lives* lives on held-out and three times as many on training tasks.

    Raises UnfinishedRunError where the run has released no policy, and MemoryReportError where that has no latents.
    """
    spec, name = run.spec, run.folder.path.name
    artefact = released(run, spec.agent)
    policy, trained_ids = artefact.policy, artefact.spec.train_task_ids
    memory = spec.policy.memory
    _, compressor = name_of(type(getattr(memory, "compressor", memory)))
    if not (isinstance(policy.memory, Compressed) and policy.spec.num_latents):
        raise MemoryReportError(f"{name}: '{compressor}' has no latents to look into; name a run whose compressor has")
    short = math.ceil(policy.memory.length_of(WRITES[-1]) / run.family.horizon)
    long = max(short, spec.evaluate.num_episodes)
    with Meter("memory-report", short + long * (2 + len(FROZEN_AFTER)) + 1 + len(WRITES), "episodes") as meter:
        lived = Study(run, policy, meter)
        watched = lived.watch(run.held_out, num_lives, long)
        trained = lived.watch([run.family.task(task_id) for task_id in trained_ids], 3 * num_lives, short)
        swapped, retained = lived.swaps(watched), lived.retention(watched)
    return {
        "format": FORMAT,
        "run": name,
        "seed": spec.seed,
        "agent": spec.agent,
        "compressor": compressor,
        "num_latents": policy.spec.num_latents,
        "window": spec.policy.memory.window,
        "horizon": run.family.horizon,
        "evaluate": recorded(run.graph.plain["evaluate"]),
        "tasks": {"training": len(trained.tasks), "held_out": len(watched.tasks)},
        "lives": {"training": len(trained.rows), "held_out": len(watched.rows)},
        "probe": probe(trained, watched),
        "swap": swapped,
        "latents": watched.shapes(),
        "attention": watched.attention(),
        "retention": retained,
        "worlds": by_environment(run.folder.path),
    }
