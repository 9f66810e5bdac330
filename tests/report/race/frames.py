"""Made-up cells of a race, by the imbalance that each rule leaves on each seed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from balancesim.report.race.measures import Curve

STEPS = np.array([1, 2, 4, 8, 16, 32, 64, 90, 100])
FLOOR = 0.2
ALF = {
    "kind": "alf-lb", "schedule": "", "step_size": 0.0, "recentre": False, "radius": None, "delay": 0,
    "step_unit": "spread",
}  # fmt: skip


def parameters(rule: str) -> dict[str, Any]:
    if rule in ("no balancing", "exact"):
        return {"kind": rule.replace("no balancing", "none")}
    schedule, step = rule.split(" x")
    return {**ALF, "schedule": schedule, "step_size": float(step)}


def cells_of(
    rules: Mapping[str, Sequence[float] | np.ndarray], switch_at: int = 0
) -> tuple[pd.DataFrame, dict[str, Curve]]:
    """The summary and the curves; imbalance is level, and what a rule leaves it does not lose."""
    source = {"kind": "normal", "n_experts": 8}
    if switch_at:
        source = {
            "kind": "drifting",
            "n_experts": 8,
            "offsets": "iqr",
            "walk_rate": 0.0,
            "switch_at": switch_at,
        }
    cells, curves = [], {}
    for rule, values in rules.items():
        for seed, value in enumerate(np.asarray(values, dtype=float).tolist()):
            cell = f"{rule} {seed}"
            cells.append(
                {
                    "cell": cell, "seed": seed, "group": 0, "source": "Normal", "n_tokens": 64, "k": 2,
                    "n_experts": 8, "horizon": 100, "causal": rule != "exact", "rule": rule,
                    "rule_kind": parameters(rule)["kind"], "rule_parameters": json.dumps(parameters(rule)),
                    "source_parameters": json.dumps(source), "spread": 0.8, "max_violation_floor": FLOOR,
                    "final_step": 100, "window_steps": 10, "outcome": "horizon_reached", "reason": "",
                }
            )  # fmt: skip
            curves[cell] = Curve(STEPS, np.full(STEPS.size, value), STEPS * 1.0 / (1.0 + value))
    return pd.DataFrame(cells), curves


def printed(table: Any, width: int = 200) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
