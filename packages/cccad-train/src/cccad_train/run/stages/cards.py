"""Short descriptions for people: what an agent is, what it was trained on, and what the data hold."""

from collections.abc import Sequence

import numpy as np
from cccad_core.memory.compressed import CompressedSpec
from cccad_core.policy import Policy, PolicySpec
from cccad_core.registry import name_of
from cccad_core.specs import to_toml, unstructure
from cccad_data import Histories, early_late_returns, learning_curve

from cccad_train.experiment import BLIND, AgentSpec
from cccad_train.files import Json
from cccad_train.report.page import two_digits
from cccad_train.report.runs import RunRecord, estimates_of, name_of_best, read_agents, warnings_of
from cccad_train.report.statistics import NUM_LAST_EPISODES
from cccad_train.run.graph import Graph


def label(name: str, agent: AgentSpec) -> str:
    """Return what tables and charts call an agent: an emptied window and a task-blind policy say what they are."""
    if agent.policy.is_blind:
        return "task-blind" if name == BLIND else f"{name}, task-blind"
    return f"{name}, emptied window" if agent.policy.has_plain_window else name


def describe_agent(agent: AgentSpec) -> str:
    """Return one line that tells an agent's window, memory and size."""
    policy, memory = agent.policy, agent.policy.memory
    if agent.policy.is_blind:
        return f"sees the current observation alone, and so cannot tell tasks apart; {_size(policy)}"
    if not isinstance(memory, CompressedSpec):
        return f"memory by {name_of(type(memory), 'memory')[1]}; width {policy.width}"
    _, compressor = name_of(type(memory.compressor), "compressor")
    how = f"{memory.num_latents} latents by {compressor}" if memory.num_latents else "no latents"
    if policy.has_plain_window:
        how += f", emptied when it is full{f' but for its last {memory.carry} transitions' if memory.carry else ''}"
    return f"window of {memory.window} slots, {how}; {_size(policy)}"


def describe_sliding(agent: AgentSpec) -> str:
    """Return one line that tells how an agent's plain window slides."""
    policy = agent.policy
    return f"the same weights, every decision sees the newest {policy.memory.window} slots; {_size(policy)}"


def _size(policy: PolicySpec) -> str:
    return f"width {policy.width}, {policy.memory.num_layers} layers"


def num_parameters(policy: Policy) -> int:
    """Return how many weights the policy acts with; the reconstruction decoder only trains."""
    return sum(p.numel() for name, p in policy.named_parameters() if not name.startswith("reconstruction."))


def model_card(graph: Graph, name: str, policy: Policy, train_task_ids: Sequence[str], judged: RunRecord) -> str:
    """Return the `README.md` of a release artefact, with what *judged*, a finished evaluation, says of the agent."""
    spec = graph.spec
    agent, source = graph.agents[name], judged.data_card.get("source", {}).get("kind")
    histories = f"the learning histories of source `{source}`" if source else "learning histories"
    return f"""# {spec.name}: {name}

An in-context learner for `{policy.spaces.observation.kind}` observations, by Algorithm Distillation (arXiv 2210.14215):
{describe_agent(agent)}; {num_parameters(policy):,} weights.

Trained on {histories} on {len(train_task_ids)} tasks; their ids are in `spec.toml`, and
evaluation refuses to call any of them held out. Seed {spec.seed}, spec digest {graph.digest}.

{_scores(graph, name, judged)}

```python
from cccad_core.agent import Agent

agent = Agent.load("policy")
state = agent.begin(num_envs=1)
actions, state = agent.act(state, observations)  # then agent.observe(state, rewards, ...)
```

```toml
{to_toml(unstructure(agent.train)).strip()}
```
"""


def _scores(graph: Graph, name: str, judged: RunRecord) -> str:
    """Return what was measured on held-out tasks, as a table: one row for each environment that was played in."""
    spec, env = graph.spec, graph.plain["env"]
    others, best = judged.results.get("worlds", {}), name_of_best(judged.results)
    rows = [_score(place, name, results) for place, results in {env["kind"]: judged.results, **others}.items()]
    split = f"split seed {spec.split.seed}, {spec.split.held_out_frac:g} of all tasks held out"
    lines = [
        "## Scores, measured on held-out tasks",
        "",
        f"Normalised returns, with 0 the random policy and 1 the {best}, of the last ten episodes of a life (of all,",
        "if there are fewer), played with frozen weights. In brackets: the 95 % interval of the interquartile mean.",
        f"The tasks are those of {split}. {estimates_of(judged.results)}".rstrip(),
        "",
        "| environment | held-out tasks | lives per task | episodes | return | interquartile mean | worst task |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "Settings of the environment that it was trained in:",
        "",
        "```toml",
        to_toml(env).strip(),
        "```",
        *(f"\nWarning: {warning}." for warning in warnings_of(judged.results)),
    ]
    return "\n".join(lines)


def _score(place: str, name: str, results: Json) -> str:
    [agent] = (agent for agent in read_agents(results) if agent.name == name)
    interval = agent.row.get("ci95")
    spread = f" ({' to '.join(map(two_digits, interval))})" if interval else ""
    cells = [
        place,
        f"{len(agent.task_ids)}",
        f"{0 if agent.scores is None else agent.scores.shape[1]}",
        f"{len(agent.curve):,}",
        two_digits(agent.row.get("normalized_last10_mean")),
        f"{two_digits(agent.row.get('iqm'))}{spread}",
        two_digits(agent.row.get("worst_task_normalized")),
    ]
    return f"| {' | '.join(cells)} |"


def data_card(histories: Histories) -> Json:
    """Return what the report tells of the data."""
    early, late = np.array(list(early_late_returns(histories, num_episodes=NUM_LAST_EPISODES).values())).T
    episodes = f"{min(NUM_LAST_EPISODES, *map(len, learning_curve(histories).values()))}_episodes"
    return {
        "tasks": len(histories),
        "held_out_tasks": len(histories.held_out_task_ids),
        "histories": histories.num_histories,
        "env_steps": histories.num_env_steps,
        f"return_of_first_{episodes}": round(float(early.mean()), 3),
        f"return_of_last_{episodes}": round(float(late.mean()), 3),
        f"lowest_task_return_of_last_{episodes}": round(float(late.min()), 3),
        "source": histories.header["source"],
        "env": histories.header["env"],
        "seed": histories.header["seed"],
    }
