"""Rows of a race: every rule at the settings that are reported, held against the others seed by seed.

A rule beats another where the paired 95 % Student interval of their difference over the seeds leaves out
zero; all else is a tie. A rule's rank is one more than the number of other rules of its block that beat it,
at whatever setting, so that ties share a rank. The blocks, one source's causal and its current-batch rules,
are never ranked together.

Score given up is compared among rules that fill all T K places alone: an empty place scores zero, so that a
rule may leave out whatever has a negative score. Rules with empty places have no rank in it, beat no other
one there, and are not on the front.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from balancesim.report.race.measures import Curve, measures, shift_of
from balancesim.report.race.variants import DEFAULT, TUNED, Variant, chosen, tuning_seeds, variants
from balancesim.sweep.groups import student_mean
from balancesim.sweep.parameters import Parameters
from balancesim.types import Float64Array

if TYPE_CHECKING:
    import pandas as pd

_SHARED = (
    "group", "source", "n_tokens", "k", "n_experts", "horizon", "causal", "rule", "rule_kind", "spread",
    "max_violation_floor",
)  # fmt: skip
_MEASURES = ("lost", "max_violation", "overall", "after_shift", "drop_rate")
_MEDIANS = ("reach", "recover")
_RANKED = ("lost", "max_violation")
_COLUMNS = (
    *_SHARED, "family", "setting", "role", "is_default", "n_seeds", "tuning_seeds", "n_early", "reason",
    "shift", *(f"{name}{end}" for name in _MEASURES for end in ("", "_low", "_high")), *_MEDIANS,
    *(f"{name}_rank" for name in _RANKED), "on_front",
)  # fmt: skip
_RESOLUTION = 1e-5
"""Differences in score below so many spreads are ties: rounding alone makes them, and every seed alike."""

_Cells = dict[int, dict[Any, Any]]
"""What one rule's cells came to, by seed."""


def race_rows(cells: "pd.DataFrame", curves: Mapping[str, Curve]) -> "pd.DataFrame":
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
        A setting that ended early on every seed has a row with ``n_seeds`` 0, NaN for the measures, and the
        ``reason``. ``lost_rank`` is NaN where places stay empty, both ranks where ``n_seeds`` is 0.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for _, own in cells.groupby("group", sort=False):
        rows += _source_rows(own, curves)
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _source_rows(cells: "pd.DataFrame", curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
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
        reported = chosen(own, overall)
        named = {variant.rule for variant, _ in reported}
        reported += [(one, one.setting) for one in own if one.rule not in (*named, *found)]
        for variant, role in reported:
            all_cells = cells[cells["rule"] == variant.rule]
            kept = {s: one for s, one in found.get(variant.rule, {}).items() if s not in seeds}
            if kept or (all_cells["outcome"] != "horizon_reached").any():
                rows.append(_row(variant, role, all_cells, kept, seeds, shift))
    return [row for causal in (True, False) for row in _ranked([r for r in rows if r["causal"] == causal])]


def _overall(own: Sequence[Variant], found: Mapping[str, _Cells], seeds: Sequence[int]) -> dict[str, float]:
    """The mean over the tuning seeds of the whole run's MaxVio, of the rules that reached the end on all."""
    return {
        one.rule: float(np.mean([found[one.rule][seed]["overall"] for seed in seeds]))
        for one in own
        if seeds and one.rule in found and all(seed in found[one.rule] for seed in seeds)
    }


def _row(
    variant: Variant, role: str, all_cells: "pd.DataFrame", cells: _Cells, seeds: Sequence[int], shift: int
) -> dict[str, Any]:
    ended = all_cells[all_cells["outcome"] != "horizon_reached"]
    first: dict[Any, Any] = all_cells.to_dict("records")[0]
    return {
        **{name: first[name] for name in _SHARED},
        "family": variant.family,
        "setting": variant.setting,
        "role": role,
        "is_default": variant.is_default,
        "n_seeds": len(cells),
        "tuning_seeds": list(seeds),
        "n_early": len(ended),
        "reason": str(ended["reason"].iloc[0]) if len(ended) else "",
        "shift": shift if shift < first["horizon"] else 0,
        **{
            key: value
            for name in _MEASURES
            for key, value in student_mean(name, _values(cells, name)).items()
        },
        **{name: float(np.median(_values(cells, name))) if cells else np.nan for name in _MEDIANS},
        "_cells": cells,
    }


def _ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rank a block's rows in both measures, mark the front, and sort by the rank in imbalance."""
    cells = [row.pop("_cells") for row in rows]
    block = list(zip(rows, cells, strict=True))
    for name in _RANKED:
        alike = [pair for pair in block if pair[1] and (name != "lost" or _fills_all_places(pair[0]))]
        for row in rows:
            row[f"{name}_rank"] = np.nan
        for row, own in alike:
            least = _RESOLUTION * row["spread"] if name == "lost" else 0.0
            better = {other["family"] for other, theirs in alike if beats(theirs, own, name, least)}
            row[f"{name}_rank"] = 1 + len(better - {row["family"]})
    compared = [row for row in rows if row["n_seeds"] and _fills_all_places(row)]
    for row in rows:
        row["on_front"] = False
    for row in compared:
        row["on_front"] = not any(_dominates(other, row) for other in compared)
    return sorted(rows, key=lambda row: (not row["n_seeds"], row["max_violation_rank"], row["max_violation"]))


def _fills_all_places(row: Mapping[str, Any]) -> bool:
    """Whether no place of T K stays empty; True where that was not recorded."""
    return not row["drop_rate"] > 0.0


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


def representative(rows: "pd.DataFrame") -> "pd.DataFrame":
    """One row per rule: the tuned one where there is one."""
    ranks = rows["role"].map({DEFAULT: 1, TUNED: 0}).fillna(0)
    return rows[ranks == ranks.groupby([rows["group"], rows["family"]]).transform("min")]
