"""The table of results in the terminal: every number stands under its own title."""

import numpy as np
from cccad_train.report.page import summary_table
from cccad_train.report.statistics import summarise

OPTIMAL, RANDOM = [10.0, 4.0, 8.0], [0.0, 0.0, 0.0]
RETURNS = np.repeat([[[9.0]], [[0.4]], [[6.0]]], 2, axis=1).repeat(20, axis=2)  # of the optimum: 0.9, 0.1, 0.75


def results():
    tasks = [
        {"task_id": f"hall/{index}", "optimal_return": best, "random_return": worst, "split": "held-out"}
        for index, (best, worst) in enumerate(zip(OPTIMAL, RANDOM, strict=True))
    ]
    agent = {"label": "cad", "role": "agent", "description": "", "returns": RETURNS.tolist(), "compressions": []}
    agent |= {"compressions_per_history": 7.0, "actions_per_s": 1234.0}
    summary = {"cad": summarise(RETURNS, OPTIMAL, RANDOM)}
    return {"format": "cccad-results/1", "horizon": 8, "tasks": tasks, "agents": {"cad": agent}, "summary": summary}


def column(title):
    """Return what stands under *title* in the agent's line."""
    head, line = summary_table(results()).splitlines()
    end = head.index(title) + len(title)
    return line[:end].split()[-1]


def test_every_number_stands_under_its_title():
    assert column("last 10") == "0.58"
    assert column("IQM") == "0.62"  # 0.1 0.1 0.75 0.75 0.9 0.9: one is cut off at each end
    assert column("worst task") == "0.10"
    assert column("compressions") == "7"
    assert column("actions/s") == "1,234"
