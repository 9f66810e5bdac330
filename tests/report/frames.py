"""Made-up results of a run, in the form that the sweep hands to the report."""

import numpy as np
import pandas as pd

STEPS = np.unique(np.round(np.geomspace(1, 1000, 24)).astype(np.int64))
EXACT = ("exact", "exact", None, np.nan, 0.0)
RULES = (
    ("no balancing", "none", None, np.nan, 1.0),
    ("sign x0.3", "alf-lb", "sign", 0.3, 0.5),
    ("sign x1", "alf-lb", "sign", 1.0, 0.4),
    ("harmonic x0.3", "alf-lb", "harmonic", 0.3, 0.4),
    ("harmonic x1", "alf-lb", "harmonic", 1.0, 0.0),
)
GROUP = {
    "source_kind": "uniform",
    "source_parameters": "{}",
    "rule_parameters": "{}",
    "n_tokens": 256,
    "k": 2,
    "n_experts": 16,
    "horizon": 1000,
    "n_groups": 0,
    "n_chosen_groups": 0,
    "comparator": "population",
    "modulus": 1.07,
    "modulus_low": 1.07,
    "modulus_high": 1.07,
    "modulus_method": "closed form (S2)",
    "exchangeable": True,
    "spread": 0.19,
}


def regret_curve(exponent: float, seed: int) -> np.ndarray:
    """Logarithmic for exponent 0, else a power, with a seed's own height."""
    steps = STEPS.astype(float)
    growth = np.log(steps) if exponent == 0.0 else (steps**exponent - 1.0) / exponent
    return (0.2 + 0.1 * growth) * (1.0 + 0.05 * seed)


def results(
    n_seeds: int = 6,
    sources: tuple[str, ...] = ("Uniform", "Pareto (index 0.8)"),
    rules: tuple[tuple[str, str, str | None, float, float], ...] = RULES,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The grouped summary, the summary and the trajectories of a run; "exact" alone is not causal."""
    groups, cells, records = [], [], []
    for group, source in enumerate(sources):
        for rule, kind, schedule, multiple, exponent in rules:
            is_harmonic = schedule == "harmonic"
            row = {
                **GROUP,
                "group": group,
                "source": source,
                "rule": rule,
                "rule_kind": kind,
                "causal": kind != "exact",
                "schedule": schedule,
                "step_multiple": multiple,
                "step_unit": None if schedule is None else "inverse-modulus" if is_harmonic else "spread",
                "step_size": multiple / 1.07 if is_harmonic else multiple * 0.19,
                "mu_times_step": multiple,
            }
            sign = -1.0 if kind == "exact" else 1.0
            curves = sign * np.array([regret_curve(exponent, seed) for seed in range(n_seeds)])
            for seed, curve in enumerate(curves):
                cell = f"{group:02}{rule}{seed:04}"
                cells.append({**row, "cell": cell, "seed": seed, "outcome": "horizon_reached"})
                records.append(pd.DataFrame({"cell": cell, "step": STEPS, "regret": curve}))
            mean = curves[:, -1].mean()
            groups.append(
                {
                    **row,
                    "n_seeds": n_seeds,
                    "n_early": 0,
                    "reason": "",
                    **interval("regret", mean, 0.01 * abs(mean)),
                    **interval("slope", 0.1, 0.01),
                    **interval("exponent", exponent, 0.05),
                    **interval("kept_of_exact", 1.0 if kind == "exact" else 1.0123, 0.001),
                    **interval("score_over_exact", 0.0 if kind == "exact" else 0.0456, 0.001),
                    "exact_reason": "",
                    "verdict": "power" if exponent else "logarithmic",
                    "predicted_slope": 0.1 if is_harmonic and multiple > 0.5 else np.nan,
                    "predicted_exponent": 0.4 if is_harmonic and multiple < 0.5 else np.nan,
                    "bound": 6.5,
                    **interval("max_violation", 0.33, 0.01),
                    "max_violation_floor": 0.31,
                    "drop_rate": 0.0,
                }
            )
    return pd.DataFrame(groups), pd.DataFrame(cells), pd.concat(records, ignore_index=True)


def interval(name: str, value: float, half: float) -> dict[str, float]:
    return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
