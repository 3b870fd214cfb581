"""Whether what was played agrees with the optimum and the random return that a task family declares."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from cccad_data.families.declared import contradiction, gap

from cccad_train.files import Json
from cccad_train.report.statistics import Floats

RULES = {"optimal": "the optimum", "random": "the random return"}


def contradictions(
    agents: Mapping[str, Json],
    ids: Sequence[str],
    optimal: Floats,
    random: Floats,
    cycle: int = 1,
    *,
    random_errors: Floats | float = 0.0,
) -> list[str]:
    """Return a sentence for everything that chance cannot account for; scores rest on the declared returns.

    The optimal and the random policy must earn what is declared, and nobody more than the optimum. *agents* are those
    of an evaluation, with `returns` `task replica episode`; the others are passed over. *random_errors* are the
    standard errors of random returns that are estimates, `task`. See `declared.gap`.
    """
    played = {name: agent for name, agent in agents.items() if "returns" in agent}
    return list(_contradictions(played, ids, optimal, random, cycle, random_errors))


def _contradictions(
    agents: Mapping[str, Json],
    ids: Sequence[str],
    optimal: Floats,
    random: Floats,
    cycle: int,
    random_errors: Floats | float,
) -> Iterator[str]:
    span = np.asarray(optimal) - np.asarray(random)
    for name, agent in agents.items():
        returns = agent["returns"]
        if name in RULES:
            declared, errors = (optimal, 0.0) if name == "optimal" else (random, random_errors)
            who, what = f"the {name} policy", RULES[name]
            if text := contradiction(who, what, returns, declared, span, ids, cycle=cycle, errors=errors):
                yield text
            continue
        distance, allowed = gap(returns, optimal, span, cycle)
        if (distance > allowed).any():
            worst = int(np.argmax(distance - allowed))
            yield (
                f"the optimum that the family declares is surpassed: on {ids[worst]} it is {optimal[worst]:.4g}, "
                f"but {agent['label']} earned {optimal[worst] + distance[worst]:.4g} a piece"
            )
