"""The report "trade-off": stationary imbalance and score cost against one swept key of the rules."""

import json
import math
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from balancesim.report.race.measures import CURVES, Curve, curves_of, measures
from balancesim.report.registry import Report
from balancesim.report.rows import CURRENT_BATCH
from balancesim.report.sweeps import family_without, swept_key, value_of
from balancesim.report.tables import blocks_of, number, range_text, with_error
from balancesim.sweep import RunDirectory, load_summary, load_trajectories, read_configuration
from balancesim.sweep.groups import student_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from balancesim.sweep.configuration import Configuration

_NOTES = """\
lost: score per token and batch given up against no balancing, in score units; MaxVio: of a batch
both: mean over seeds and half its 95 % interval; over the last tenth of the steps, of current-batch rules all
/floor: MaxVio in sampling floors (a perfectly balanced random router has 1)"""
_SHARED = (
    "group", "source", "n_tokens", "k", "n_experts", "horizon", "causal", "rule", "spread",
    "max_violation_floor",
)  # fmt: skip
_COLUMNS = (
    *_SHARED, "family", "key", "value", "n_seeds", "n_early", "reason",
    *(f"{name}{end}" for name in ("lost", "max_violation") for end in ("", "_low", "_high")),
)  # fmt: skip


def trade_off_rows(cells: "pd.DataFrame", curves: dict[str, Curve], key: str) -> "pd.DataFrame":
    """One row per source and rule, over the seeds that reached the horizon.

    Parameters
    ----------
    cells : DataFrame
        The summary of a run.
    curves : dict of str to Curve
        Of each cell that reached its horizon.
    key : str
        The swept key of the rules.

    Returns
    -------
    DataFrame
        With ``family``, ``key`` and ``value`` (NaN for a rule without it), sorted by source, causal rules
        first, family and value. A rule that ended early on every seed has ``n_seeds`` 0 and NaN for the
        measures.
    """
    import pandas as pd

    rows = []
    for _, own in cells.groupby(["group", "rule"], sort=False):
        whole = own["outcome"] == "horizon_reached"
        found = [measures(cell, curves[cell["cell"]], 0) for cell in own[whole].to_dict("records")]
        rule = json.loads(str(own["rule_parameters"].iloc[0]))
        rows.append(
            {
                **{name: own.iloc[0][name] for name in _SHARED},
                "family": family_without(rule, key),
                "key": key,
                "value": value_of(rule, key),
                "n_seeds": len(found),
                "n_early": len(own) - len(found),
                "reason": next(iter(own.loc[~whole, "reason"]), ""),
                **student_mean("lost", [one["lost"] for one in found]),
                **student_mean("max_violation", [one["max_violation"] for one in found]),
            }
        )
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    frame["order"] = frame["family"].map({name: i for i, name in enumerate(dict.fromkeys(frame["family"]))})
    by = ["group", "causal", "order", "value"]
    return frame.sort_values(by, ascending=[True, False, True, True], kind="stable").drop(columns="order")


def trade_off_table(frame: "pd.DataFrame") -> Group:
    """Lay out a trade-off as text: per source a block of causal rules and one of current-batch rules.

    Parameters
    ----------
    frame : DataFrame
        What `trade_off_rows` returns.

    Returns
    -------
    Group
        For ``rich.console.Console.print``.
    """
    return blocks_of(frame, "group", _source, _NOTES)


def _source(rows: list[dict[Any, Any]]) -> Iterator[Table | Text]:
    first = rows[0]
    sizes = f"E={first['n_experts']}, K={first['k']}, T={first['n_tokens']}"
    seeds = range_text(row["n_seeds"] for row in rows)
    yield Text(f"{first['source']}: {sizes}, seeds: {seeds}", style="bold")
    floor = f"sampling floor of MaxVio {first['max_violation_floor']:.3g}"
    yield Text(f"{floor}; spread of scores at the K-th place {first['spread']:.3g}")
    for causal, members in groupby(rows, key=lambda row: row["causal"]):
        block = list(members)
        if not causal:
            yield Text(f"{CURRENT_BATCH}: {block[0]['horizon']:,} steps", style="italic")
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        table.add_column("rule", overflow="fold")
        for title in (first["key"], "lost", "MaxVio", "/floor"):
            table.add_column(title, justify="right", no_wrap=True)
        for row in block:
            table.add_row(
                row["family"],
                f"{row['value']:g}" if math.isfinite(row["value"]) else "-",
                with_error(row["lost"], row["lost_high"] - row["lost"]),
                with_error(row["max_violation"], row["max_violation_high"] - row["max_violation"]),
                number(row["max_violation"] / row["max_violation_floor"], 2),
            )
        yield table
    for row in rows:
        if row["n_early"]:
            yield Text(f"{row['rule']}: {row['n_early']} seeds left out: {row['reason']}", style="yellow")
    yield Text("")


def summarise(run: RunDirectory) -> "pd.DataFrame":
    """The rows of a run; see `trade_off_rows`.

    Raises
    ------
    ConfigurationError
        If nothing is swept.
    RunDirectoryError
        If the directory is no run directory, has no finished cell, or a part is damaged.
    """
    key = swept_key(read_configuration(run).rules)
    return trade_off_rows(load_summary(run), curves_of(load_trajectories(run, CURVES)), key)


def figures(run: RunDirectory, rows: "pd.DataFrame") -> "Iterator[tuple[str, Figure]]":
    """Draw one figure per source with a rule that reached the horizon, in the run's order."""
    del run
    from balancesim.report.style import source_name
    from balancesim.report.trade_off_figure import source_figure

    for index, own in rows[rows["n_seeds"] > 0].groupby("group", sort=False):
        yield source_name(index, str(own["source"].iloc[0])), source_figure(own)


def check(configuration: "Configuration") -> None:
    """Raise `ConfigurationError` where the experiment's rules sweep no key."""
    swept_key(configuration.rules)


REPORT = Report(summarise, trade_off_table, figures, check)
