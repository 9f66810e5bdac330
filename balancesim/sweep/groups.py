"""What a sweep found, over seeds: one row per source and rule, beside what the theory says of it."""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from balancesim import theory
from balancesim.sweep.configuration import reference_rule
from balancesim.sweep.labels import rule_labels
from balancesim.sweep.store import RunDirectory, read_configuration
from balancesim.sweep.summary import load_summary, load_trajectories
from balancesim.types import Float64Array, IntArray

if TYPE_CHECKING:
    import pandas as pd

_SHARED = (
    "group", "source", "source_kind", "source_parameters", "rule", "rule_kind", "rule_parameters", "causal",
    "schedule", "step_multiple", "step_unit", "step_size", "mu_times_step", "modulus", "modulus_low",
    "modulus_high", "modulus_method", "exchangeable", "spread", "n_tokens", "k", "n_experts", "horizon",
    "comparator", "every", "lag", "n_ranks", "n_groups", "n_chosen_groups", "group_score",
)  # fmt: skip
_MEANS = (
    "max_violation_floor", "window_max_violation", "window_max_violation_floor", "score_kept",
    "coefficient_of_variation", "dead_experts", "drop_rate",
)  # fmt: skip

_Curve = tuple[IntArray, Float64Array]


def group_summary(run: RunDirectory) -> "pd.DataFrame":
    """One row per source, run parameters and rule, over the seeds that are done.

    Means are over the seeds that reached the horizon, with 95 % Student intervals; differences are paired by
    seed, which common random numbers make sharp, and never taken between a causal and a current-batch rule or
    between runs of different lengths.
    Growth fits are S6's, predictions S7's and S8's, the bound is S4's with the modulus at p* (a statement for
    projected iterates only).

    Raises
    ------
    RunDirectoryError
        If the directory is no run directory, has no finished cell, or a part is damaged.
    """
    import pandas as pd

    configuration = read_configuration(run)
    reference = rule_labels(configuration)[reference_rule(configuration)]
    curves = _curves(load_trajectories(run, ["cell", "step", "regret"]))
    members: dict[tuple[int, str], list[dict[Any, Any]]] = {}
    for cell in load_summary(run).to_dict("records"):
        members.setdefault((cell["group"], cell["rule"]), []).append(cell)
    rows = []
    for (group, _), cells in members.items():
        whole, early = _by_outcome(cells)
        rivals = _by_outcome(members.get((group, reference), []))[0]
        alike = [cell for cell in rivals if _is_comparable(cell, cells[0])]
        others = {cell["seed"]: cell["regret"] for cell in alike}
        paired = [cell["regret"] - others[cell["seed"]] for cell in whole if cell["seed"] in others]
        rows.append(
            {
                **{name: cells[0][name] for name in _SHARED},
                "n_seeds": len(cells),
                "n_early": len(early),
                "reason": early[0]["reason"] if early else "",
                **student_mean("regret", [cell["regret"] for cell in whole]),
                "reference": reference,
                **student_mean("difference", paired),
                **_growth(
                    [_against_population(curves[cell["cell"]], cell) for cell in whole], cells[0]["causal"]
                ),
                **_predictions(cells[0]),
                **student_mean("max_violation", [cell["max_violation"] for cell in whole]),
                **student_mean("kept_of_exact", [cell["kept_of_exact"] for cell in whole]),
                **student_mean("score_over_exact", [cell["score_over_exact"] for cell in whole]),
                "exact_reason": next((cell["exact_reason"] for cell in whole if cell["exact_reason"]), ""),
                **{name: student_mean(name, [cell[name] for cell in whole])[name] for name in _MEANS},
            }
        )
    return pd.DataFrame(rows)


def group_records(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows of :func:`group_summary` as JSON can hold them: what is not finite becomes null."""
    records: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return records


def _curves(trajectories: "pd.DataFrame") -> dict[str, _Curve]:
    """Steps and regret of every cell; the rows of a cell follow each other."""
    keys = trajectories["cell"].to_numpy(dtype=object)
    steps, regret = trajectories["step"].to_numpy(), trajectories["regret"].to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    ends = np.append(starts[1:], len(keys))
    return {
        str(keys[start]): (steps[start:end], regret[start:end])
        for start, end in zip(starts, ends, strict=True)
    }


def _by_outcome(cells: list[dict[Any, Any]]) -> tuple[list[dict[Any, Any]], list[dict[Any, Any]]]:
    """The cells that reached the horizon, and those that ended early."""
    whole = [cell for cell in cells if cell["outcome"] == "horizon_reached"]
    return whole, [cell for cell in cells if cell["outcome"] != "horizon_reached"]


def student_mean(name: str, numbers: Sequence[float] | Float64Array) -> dict[str, float]:
    """The mean and its 95 % Student interval; NaN limits where there are fewer than two values."""
    from scipy.special import stdtrit

    n, values = len(numbers), np.array(numbers, dtype=np.float64)
    mean = float(values.mean()) if n else math.nan
    half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}


def _is_comparable(cell: dict[Any, Any], other: dict[Any, Any]) -> bool:
    """Whether the regrets of two cells are of one kind; those on rules' own objectives (P6) never are."""
    alike = all(cell[key] == other[key] for key in ("causal", "horizon", "comparator"))
    is_own = cell["comparator"] == "rule"
    return alike and (not is_own or cell["rule_parameters"] == other["rule_parameters"])


def _against_population(curve: _Curve, cell: dict[Any, Any]) -> _Curve:
    """Take out what a comparator fitted in hindsight gains by fitting noise: linear along the run (S6)."""
    steps, regret = curve
    return steps, regret - cell["comparator_gain"] * steps / cell["final_step"]


def _growth(curves: list[_Curve], causal: bool) -> dict[str, Any]:
    estimates = dict.fromkeys(("slope", "exponent", "plain_exponent"), (math.nan, math.nan, math.nan))
    if not causal:
        verdict, reason = "not fitted", "a current-batch rule has seen the batch: it has nothing to learn"
    elif not curves:
        verdict, reason = "inconclusive", "no seed reached the horizon"
    elif not all(np.isfinite(regret).all() for _, regret in curves):
        verdict = "not fitted"
        reason = "regret is not defined: no price, a choice other than the K best, or nothing to compare with"
    else:
        fit = theory.fit_growth(curves[0][0], np.stack([regret for _, regret in curves]))
        estimates = {name: getattr(fit, name)[:3] for name in ("slope", "exponent", "plain_exponent")}
        verdict, reason = fit.verdict, fit.reason
    intervals = {
        f"{name}{end}": value
        for name, values in estimates.items()
        for end, value in zip(("", "_low", "_high"), values, strict=True)
    }
    return {**intervals, "verdict": verdict, "verdict_reason": reason}


def _predictions(cell: dict[Any, Any]) -> dict[str, float]:
    """S7's slope, S8's exponent, S4's bound: on D, of undelayed updates, choosing among all experts."""
    slope = exponent = bound = math.nan
    is_limited = cell["n_chosen_groups"] < cell["n_groups"]
    is_other = is_limited or cell["comparator"] == "rule"
    if is_other or (cell["every"], cell["lag"], cell["n_ranks"]) != (1, 0, 1):
        return {"predicted_slope": slope, "predicted_exponent": exponent, "bound": bound}
    modulus, multiple = float(cell["modulus"]), float(cell["mu_times_step"])
    k, n_experts, n_tokens = int(cell["k"]), int(cell["n_experts"]), int(cell["n_tokens"])
    if cell["schedule"] == "harmonic" and multiple > 0.5 and cell["exchangeable"]:
        slope = theory.sharp_slope(
            modulus=modulus, k=k, n_experts=n_experts, n_tokens=n_tokens, multiple=multiple
        )
    if cell["schedule"] == "harmonic" and 0.0 < multiple < 0.5:
        exponent = theory.power_exponent(multiple)
    if modulus > 0.0:
        horizon = int(cell["horizon"])
        bound = theory.regret_bound(modulus=modulus, k=k, n_experts=n_experts, horizon=horizon)
    return {"predicted_slope": slope, "predicted_exponent": exponent, "bound": bound}
