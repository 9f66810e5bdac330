"""The report "minibatch-bias": what phi-balancing loses to its batches' noise, against their size (P5)."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from balancesim import balancers, theory
from balancesim.balancers import PhiBalance
from balancesim.penalised import penalised_minimiser, share_slope
from balancesim.potentials import Potential
from balancesim.report.registry import Report
from balancesim.report.tables import blocks_of, number
from balancesim.sweep import RunDirectory, load_summary, load_trajectories
from balancesim.sweep.configuration import build_source
from balancesim.sweep.delays import NO_DELAYS
from balancesim.sweep.groups import student_mean
from balancesim.types import Estimate, Float64Array, IntArray

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CURVES = ["cell", "step", "regret"]
"""Columns of the trajectories that the report reads."""

_SAMPLE_SEED = 2**63 - 5
_SAMPLE_TOKENS = 2**16
_BATCH_SIZES = (128, 256, 512, 1024)
_N_BATCHES = 2000

_NOTES = """\
regret/step: per token, over the last half of the steps; on a rule's own objective if it has an analytic value
analytic: to first order in 1/T; for small rates about rate/(2-rate) strength tr(Hess phi Cov)/(2T) (P5)
ratio: regret/step over analytic
slope: of the logarithm of regret/step in that of T, over all T; -1 by P5
B x bias: the limit of theory.minibatch_bias on tokens drawn at the minimiser; beside it what P5 says
means are over seeds, with 95 % intervals; Hess phi at the minimiser, Cov of one token's shares there"""
_PANEL = ("source_parameters", "k", "n_experts", "horizon")
_SHARED = ("group", *_PANEL, "n_tokens", "rule")
_LABEL = "phi-balancing selection, "


class _Measured(NamedTuple):
    """Shares, a token's covariance and the shares' slope at the minimiser; P5 measured, and P5's value."""

    shares: Float64Array
    covariance: Float64Array
    share_slope: Float64Array
    slope: Estimate
    analytic: float


_UNKNOWN = Estimate(math.nan, math.nan, math.nan, "not measured")


def late_regret(steps: IntArray, regret: Float64Array) -> float:
    """Regret per step since the last record within the first half of the steps; NaN if there is none."""
    start = int(np.searchsorted(steps, 0.5 * float(steps[-1]), side="right")) - 1
    if start < 0:
        return math.nan
    return float((regret[-1] - regret[start]) / (steps[-1] - steps[start]))


def log_slope(per_seed: Mapping[int, Mapping[int, float]]) -> dict[str, float]:
    """Fit the logarithm of the mean over seeds by a line in that of the batch size.

    Parameters
    ----------
    per_seed : mapping
        From the batch size to a value of each seed; seeds that all sizes have are used.

    Returns
    -------
    dict
        ``log_slope`` with its 95 % Student interval over seeds, in which the logarithm is linear about the
        mean (one seed's value may be negative). NaN with one size, or where a mean is not positive.
    """
    seeds = sorted(set.intersection(*(set(values) for values in per_seed.values()))) if per_seed else []
    values = np.array([[per_seed[size][seed] for size in per_seed] for seed in seeds])
    unknown = student_mean("log_slope", [math.nan])
    if len(per_seed) < 2 or not seeds:
        return unknown
    mean = values.mean(axis=0)
    if not (mean > 0.0).all():
        return unknown
    x = np.log(list(per_seed))
    x -= x.mean()
    return student_mean("log_slope", (np.log(mean) + values / mean - 1.0) @ x / float(x @ x))


def minibatch_bias_rows(cells: "pd.DataFrame", trajectories: "pd.DataFrame") -> "pd.DataFrame":
    """One row per source, rule and batch size; means are over the seeds that reached the horizon.

    Parameters
    ----------
    cells : DataFrame
        The summary of a run.
    trajectories : DataFrame
        At least the columns of `CURVES`.

    Returns
    -------
    DataFrame
        ``panel`` and ``source`` count and name sources whatever the batch size; ``label``, ``potential`` and
        ``ema_rate`` are the rule's; ``excess`` is regret per late step, ``analytic`` what P5 says of it,
        ``log_slope`` the same for all sizes of a rule, ``bias_slope`` and ``bias_analytic`` those of
        `theory.minibatch_bias`, the same for all rates too. What is not phi-balancing on its own objective,
        with undelayed updates and a choice among all experts, has regret alone, the rest NaN.
    """
    import pandas as pd

    curves = {
        cell: late_regret(own["step"].to_numpy(), own["regret"].to_numpy())
        for cell, own in trajectories.groupby("cell", sort=False)
    }
    rows = []
    for panel, (_, of_source) in enumerate(cells.groupby(list(_PANEL), sort=False)):
        for _, of_rule in of_source.groupby("rule", sort=False):
            found: dict[int, dict[int, float]] = {size: {} for size in of_rule["n_tokens"].unique()}
            for cell in of_rule[of_rule["outcome"] == "horizon_reached"].to_dict("records"):
                found[cell["n_tokens"]][cell["seed"]] = curves[cell["cell"]]
            slope = log_slope({size: values for size, values in found.items() if values})
            for n_tokens, values in found.items():
                own = of_rule[of_rule["n_tokens"] == n_tokens]
                early = own.loc[own["outcome"] != "horizon_reached", "reason"]
                first = own.iloc[0].to_dict()
                rows.append(
                    {
                        **{name: first[name] for name in _SHARED},
                        "panel": panel,
                        "source": build_source(json.loads(first["source_parameters"])).describe(),
                        "n_seeds": len(own),
                        "n_early": len(early),
                        "reason": str(early.iloc[0]) if len(early) else "",
                        **student_mean("excess", list(values.values())),
                        **slope,
                        **_theory(first),
                    }
                )
    frame = pd.DataFrame(rows)
    for end in ("", "_low", "_high"):
        frame[f"ratio{end}"] = frame[f"excess{end}"] / frame["analytic"]
    return frame


def _theory(cell: dict[Any, Any]) -> dict[str, Any]:
    """What is known of one cell's rule: its label, potential and rate, and P5's values."""
    parameters = json.loads(cell["rule_parameters"])
    is_plain = all(cell[key] == value for key, value in NO_DELAYS.items())
    is_limited = cell["n_chosen_groups"] < cell["n_groups"]
    is_own = balancers.registry()[parameters["kind"]] is PhiBalance and cell["comparator"] == "rule"
    if not is_own or is_limited or not is_plain:
        nothing = dict.fromkeys(
            ("ema_rate", "analytic", "bias_slope", "bias_slope_low", "bias_slope_high", "bias_analytic"),
            math.nan,
        )
        return {"label": cell["rule"], "potential": "", **nothing}
    others = ("kind", "run", "step_unit", *NO_DELAYS)
    rule = PhiBalance(**{key: value for key, value in parameters.items() if key not in others})
    k, n_tokens = int(cell["k"]), int(cell["n_tokens"])
    measured = _measured(cell["source_parameters"], rule.phi, rule.strength, k)
    rate = math.nan if isinstance(rule.ema_rate, str) else float(rule.ema_rate)
    analytic = math.nan
    if math.isfinite(rate):
        analytic = theory.averaging_excess(
            rule.phi, measured.shares, measured.covariance, ema_rate=rate, strength=rule.strength, k=k,
            n_tokens=n_tokens, slope=measured.share_slope,
        )  # fmt: skip
    power = f" {rule.phi.parameter:.4g}" if rule.phi.parameter else ""
    return {
        "label": rule.describe().removeprefix(_LABEL),
        "potential": f"{rule.phi.name.replace('_', ' ')}{power}, strength {rule.strength:.4g}",
        "ema_rate": rate,
        "analytic": analytic,
        "bias_slope": measured.slope.value,
        "bias_slope_low": measured.slope.low,
        "bias_slope_high": measured.slope.high,
        "bias_analytic": measured.analytic,
    }


@cache
def _measured(source_parameters: str, potential: Potential, strength: float, k: int) -> _Measured:
    """Measure on hard choices, at the minimiser of the rule's objective, of tokens of a seed of their own."""
    source = build_source(json.loads(source_parameters))
    found = penalised_minimiser(source, potential, strength=strength, k=k)
    source = source.with_seed(_SAMPLE_SEED)
    n_recorded = source.n_steps(1)
    n_tokens = _SAMPLE_TOKENS if n_recorded is None else min(_SAMPLE_TOKENS, n_recorded)
    biased = np.asarray(source.batch(0, n_tokens)) + found.bias
    shares = np.zeros(biased.shape)
    np.put_along_axis(shares, np.argpartition(biased, -k, axis=1)[:, -k:], 1.0 / k, axis=1)
    slope, analytic = _UNKNOWN, math.nan
    if shares.any(axis=0).all():
        bias = theory.minibatch_bias(potential, shares, batch_sizes=_BATCH_SIZES, n_batches=_N_BATCHES)
        slope, analytic = bias.slope, bias.analytic
    covariance = np.cov(shares.T, bias=True)
    return _Measured(found.shares, covariance, share_slope(source, found.bias, k=k), slope, analytic)


def minibatch_bias_table(frame: "pd.DataFrame") -> Group:
    """Lay out the report as text: per source the rules by batch size, then each potential's own slope.

    Parameters
    ----------
    frame : DataFrame
        What `minibatch_bias_rows` returns.

    Returns
    -------
    Group
        For ``rich.console.Console.print``.
    """
    return blocks_of(frame, "panel", _source, _NOTES)


def _source(rows: list[dict[Any, Any]]) -> Iterator[Table | Text]:
    first = rows[0]
    sizes = f"E={first['n_experts']}, K={first['k']}, N={first['horizon']:,}"
    yield Text(f"{first['source']}: {sizes}, seeds: {first['n_seeds']}", style="bold")
    table = _columns("rule", ("T", "regret/step", "analytic", "ratio [95 %]", "slope [95 %]"))
    for label, members in groupby(rows, key=lambda row: row["label"]):
        for i, row in enumerate(members):
            table.add_row(
                "" if i else label,
                str(row["n_tokens"]),
                _scientific(row["excess"]),
                _scientific(row["analytic"]),
                _interval(row, "ratio"),
                "" if i else _interval(row, "log_slope"),
            )
    yield table
    for row in rows:
        if row["n_early"]:
            text = f"{row['label']}, T={row['n_tokens']}: {row['n_early']} of {row['n_seeds']} seeds left out"
            yield Text(f"{text}: {row['reason']}", style="yellow")
    potentials = {row["potential"]: row for row in rows if row["potential"]}
    if potentials:
        own = _columns("potential", ("B x bias [95 %]", "tr(Hess phi Cov)/2"))
        for name, row in potentials.items():
            own.add_row(name, _interval(row, "bias_slope"), number(row["bias_analytic"], 3))
        yield own
    yield Text("")


def _columns(first: str, others: tuple[str, ...]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for title in others:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _scientific(value: float) -> str:
    return f"{value:.3e}" if math.isfinite(value) else "-"


def _interval(row: dict[Any, Any], name: str) -> str:
    if not math.isfinite(row[name]):
        return "-"
    low, high = number(row[f"{name}_low"], 3), number(row[f"{name}_high"], 3)
    return f"{number(row[name], 3)} [{low}, {high}]"


def summarise(run: RunDirectory) -> "pd.DataFrame":
    """The rows of a run; see `minibatch_bias_rows`.

    Raises
    ------
    RunDirectoryError
        If the directory is no run directory, has no finished cell, or a part is damaged.
    """
    return minibatch_bias_rows(load_summary(run), load_trajectories(run, CURVES))


def figures(run: RunDirectory, rows: "pd.DataFrame") -> "Iterator[tuple[str, Figure]]":
    """Draw one figure with a panel per source."""
    del run
    from balancesim.report.minibatch_bias_figure import sources_figure

    yield "batch-size", sources_figure(rows)


REPORT = Report(summarise, minibatch_bias_table, figures)
