"""Rows of a race: every rule at the settings that are reported, held against the others seed by seed.

A rule beats another where the paired 95 % Student interval of their difference over the seeds leaves out
zero; all else is a tie. A rule's rank is one more than the number of rules of its block that beat it, so that
ties share a rank. The blocks, one source's causal and its current-batch rules, are never ranked together.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from balancesim.report.race.measures import Curve, measures, shift_of
from balancesim.report.race.variants import DEFAULT, TUNED, Variant, chosen, tuning_seeds, variants
from balancesim.sweep.groups import student_mean
from balancesim.sweep.parameters import Parameters
from balancesim.types import Float64Array

_SHARED = (
    "group", "source", "n_tokens", "k", "n_experts", "horizon", "causal", "rule", "rule_kind", "spread",
    "max_violation_floor",
)  # fmt: skip
_MEASURES = ("lost", "max_violation", "overall", "after_shift", "drop_rate")
_RANKED = ("lost", "max_violation")
_RESOLUTION = 1e-5
"""Differences in score below so many spreads are ties: rounding alone makes them, and every seed alike."""

_Cells = dict[int, dict[Any, Any]]
"""What one rule's cells came to, by seed."""


def race_rows(cells: pd.DataFrame, curves: Mapping[str, Curve]) -> pd.DataFrame:
    """One row per rule and reported setting, in blocks.

    Parameters
    ----------
    cells : DataFrame
        The summary of a run.
    curves : mapping of str to Curve
        Of each cell that reached its horizon.

    Returns
    -------
    DataFrame
        Sources in the run's order; of each the causal rules, then the current-batch ones, by their rank in
        imbalance. Means are over the seeds that were not tuned on, with 95 % intervals where there are two.
    """
    rows: list[dict[str, Any]] = []
    for _, own in cells.groupby("group", sort=False):
        rows += _source_rows(own, curves)
    return pd.DataFrame(rows)


def _source_rows(cells: pd.DataFrame, curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    first = cells.iloc[0]
    shift = shift_of(first["source_parameters"], int(cells["horizon"].max()))
    seeds = tuning_seeds(cells["seed"])
    found: dict[str, _Cells] = {}
    for cell in cells.to_dict("records"):
        if cell["outcome"] == "horizon_reached":
            judged: dict[Any, Any] = {**cell, **measures(cell, curves[cell["cell"]], shift)}
            found.setdefault(cell["rule"], {})[cell["seed"]] = judged
    rules: dict[str, Parameters] = {
        str(rule): json.loads(str(text))
        for rule, text in zip(cells["rule"], cells["rule_parameters"], strict=True)
    }
    families: dict[str, list[Variant]] = {}
    for variant in variants(rules):
        families.setdefault(variant.family, []).append(variant)
    rows = []
    for own in families.values():
        overall = _overall(own, found, seeds)
        for variant, role in chosen(own, overall):
            ended = cells[(cells["rule"] == variant.rule) & (cells["outcome"] != "horizon_reached")]
            kept = {s: one for s, one in found.get(variant.rule, {}).items() if s not in seeds}
            if kept:
                rows.append(_row(variant, role, kept, seeds, shift, ended))
    return [row for causal in (True, False) for row in _ranked([r for r in rows if r["causal"] == causal])]


def _overall(own: Sequence[Variant], found: Mapping[str, _Cells], seeds: Sequence[int]) -> dict[str, float]:
    """The mean over the tuning seeds of the whole run's MaxVio, of the rules that reached the end on all."""
    return {
        one.rule: float(np.mean([found[one.rule][seed]["overall"] for seed in seeds]))
        for one in own
        if seeds and one.rule in found and all(seed in found[one.rule] for seed in seeds)
    }


def _row(
    variant: Variant, role: str, cells: _Cells, seeds: Sequence[int], shift: int, ended: pd.DataFrame
) -> dict[str, Any]:
    any_cell = next(iter(cells.values()))
    return {
        **{name: any_cell[name] for name in _SHARED},
        "family": variant.family,
        "setting": variant.setting,
        "role": role,
        "is_default": variant.is_default,
        "n_seeds": len(cells),
        "tuning_seeds": list(seeds) if role else [],
        "n_early": len(ended),
        "reason": str(ended["reason"].iloc[0]) if len(ended) else "",
        "shift": shift if shift < any_cell["horizon"] else 0,
        **{
            key: value
            for name in _MEASURES
            for key, value in student_mean(name, _values(cells, name)).items()
        },
        **{name: float(np.median(_values(cells, name))) for name in ("reach", "recover")},
        "_cells": cells,
    }


def _ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rank a block's rows in both measures, mark the front, and sort by the rank in imbalance."""
    cells = [row.pop("_cells") for row in rows]
    for row, own in zip(rows, cells, strict=True):
        for name in _RANKED:
            least = _RESOLUTION * row["spread"] if name == "lost" else 0.0
            row[f"{name}_rank"] = 1 + sum(beats(other, own, name, least) for other in cells)
    for row in rows:
        row["on_front"] = not any(_dominates(other, row) for other in rows)
    return sorted(rows, key=lambda row: (row["max_violation_rank"], row["max_violation"]))


def beats(one: _Cells, other: _Cells, name: str, least: float = 0.0) -> bool:
    """Whether the first rule's measure is lower by more than ``least``, beyond the seeds' noise."""
    seeds = sorted(one.keys() & other.keys())
    difference = np.array([one[seed][name] - other[seed][name] for seed in seeds])
    return bool(student_mean("d", difference)["d_high"] < -least)


def _dominates(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the first row's means are both at most the second's, and one of them less."""
    pairs = [(one[name], other[name]) for name in _RANKED]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _values(cells: _Cells, name: str) -> Float64Array:
    return np.array([cells[seed][name] for seed in sorted(cells)], dtype=np.float64)


def representative(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per rule: the tuned one where there is one."""
    ranks = rows["role"].map({DEFAULT: 1, TUNED: 0}).fillna(0)
    return rows[ranks == ranks.groupby([rows["group"], rows["family"]]).transform("min")]
