"""Whether what was played agrees with the optimum and the random return that a task family declares."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from cccad_data.families.declared import contradiction, gap
from cccad_data.families.scale import Scale

from cccad_train.files import Json

RULES = {"optimal": "the optimum", "random": "the random return"}


def contradictions(
    agents: Mapping[str, Json],
    ids: Sequence[str],
    scale: Scale,
    cycle: int = 1,
) -> list[str]:
    """Return a sentence for everything that chance cannot account for; scores rest on the declared returns.

    The optimal and the random policy must earn what is declared, and nobody more than the optimum. *agents* are those
    of an evaluation, with `returns` `task replica episode`; the others are passed over. A reference that is no optimum
    may be surpassed. See `declared.gap`.
    """
    played = {name: agent for name, agent in agents.items() if "returns" in agent}
    return list(_contradictions(played, ids, scale, cycle))


def unlearned(scale: Scale) -> list[str]:
    """Return a sentence where the source did not learn some tasks, so that they have no reference of their own."""
    if not scale.not_learned:
        return []
    more = f" and {len(scale.not_learned) - 1} more" if len(scale.not_learned) > 1 else ""
    tasks = f"{scale.not_learned[0]}{more} (of {len(scale.best)})"
    why = "where it ends no higher than a random policy"
    return [
        f"the source did not learn {tasks}, {why}; returns there are measured by the mean reference of the other tasks"
    ]


def _contradictions(
    agents: Mapping[str, Json],
    ids: Sequence[str],
    scale: Scale,
    cycle: int,
) -> Iterator[str]:
    optimal, span = scale.best, scale.best - scale.random
    for name, agent in agents.items():
        returns = agent["returns"]
        if name in RULES:
            declared, errors = (optimal, 0.0) if name == "optimal" else (scale.random, scale.random_errors)
            who, what = f"the {name} policy", RULES[name]
            if text := contradiction(who, what, returns, declared, span, ids, cycle=cycle, errors=errors):
                yield text
            continue
        if not scale.is_optimum:
            continue
        distance, allowed = gap(returns, optimal, span, cycle)
        if (distance > allowed).any():
            worst = int(np.argmax(distance - allowed))
            yield (
                f"the optimum that the family declares is surpassed: on {ids[worst]} it is {optimal[worst]:.4g}, "
                f"but {agent['label']} earned {optimal[worst] + distance[worst]:.4g} a piece"
            )
