"""Short descriptions for people: what an agent is, what it was trained on, and what the data hold."""

from typing import Any

import numpy as np
from cccad_core.policy import Policy
from cccad_core.specs import to_toml, unstructure
from cccad_data import Histories, early_late_returns, learning_curve

from cccad_train.experiment import AgentSpec, ExperimentSpec
from cccad_train.statistics import NUM_LAST_EPISODES


def describe_agent(agent: AgentSpec) -> str:
    """Return one line that tells an agent's window, memory and size."""
    policy = agent.policy
    memory = policy.compressor.num_latents
    told = f"{memory} latents by {unstructure(policy)['compressor']['kind']}" if memory else "no latents"
    return f"window of {policy.context.window} slots, {told}; width {policy.width}, {policy.num_layers} layers"


def num_parameters(policy: Policy) -> int:
    """Return how many weights the policy acts with; the reconstruction decoder only trains."""
    return sum(p.numel() for name, p in policy.named_parameters() if not name.startswith("reconstruction."))


def model_card(spec: ExperimentSpec, name: str, policy: Policy, histories: Histories) -> str:
    """Return the `README.md` of a release artefact."""
    agent, source = spec.agents()[name], histories.header["source"]["kind"]
    return f"""# {spec.name}: {name}

An in-context learner for `{policy.spaces.observation.kind}` observations, by Algorithm Distillation (arXiv 2210.14215):
{describe_agent(agent)}; {num_parameters(policy):,} weights.

Trained on the learning histories of source `{source}` on {len(histories)} tasks; their ids are in `spec.toml`, and
evaluation refuses to call any of them held out. Seed {spec.seed}, spec digest {spec.digest()}.

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


def data_card(histories: Histories) -> dict[str, Any]:
    """Return what the report tells of the data."""
    early, late = np.array(list(early_late_returns(histories, num_episodes=NUM_LAST_EPISODES).values())).T
    told = f"{min(NUM_LAST_EPISODES, *map(len, learning_curve(histories).values()))}_episodes"
    return {
        "tasks": len(histories),
        "held_out_tasks": len(histories.held_out_task_ids),
        "histories": histories.num_histories,
        "env_steps": histories.num_env_steps,
        f"return_of_first_{told}": round(float(early.mean()), 3),
        f"return_of_last_{told}": round(float(late.mean()), 3),
        f"lowest_task_return_of_last_{told}": round(float(late.min()), 3),
        "source": histories.header["source"],
        "env": histories.header["env"],
        "seed": histories.header["seed"],
    }
