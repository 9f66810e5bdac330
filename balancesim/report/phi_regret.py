"""The report "phi-regret": regret on each rule's own objective (P7) beside ALF-LB's on the dual (S4).

The two are regrets of different objectives. They stand in blocks and panels of their own, with the imbalance
that each rule leaves always beside them, and no constant of one is ranked against the other's. Current-batch
rules have a block of their own and no curve of regret: they see the batch, and have nothing to learn.
"""

import math
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from balancesim.report.registry import Report
from balancesim.report.rows import CURRENT_BATCH
from balancesim.report.tables import blocks_of, number, range_text, with_error
from balancesim.sweep import RunDirectory, group_summary, load_summary, load_trajectories
from balancesim.sweep.groups import student_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CURVES = ["cell", "step", "regret", "mean_max_violation"]
"""Columns of the trajectories that the report reads."""

OWN = "rule"
"""The comparator of a rule that is measured on its own objective."""

_NOTES = """\
R(N): regret per token, summed over N steps, in score units; mean over seeds and half its 95 % interval
last decade: R(N) - R(N/10); before: R(N/10) - R(N/100); ratio: of the two, 1 for a logarithm, 10 for a line
exponent: 0 is a logarithm, above 0 a power of N (S6); MaxVio/floor: of a batch, mean over the last tenth
own objective: the penalised one that the rule minimises; its regret says nothing of balance: see MaxVio"""


def decades(steps: np.ndarray, regret: np.ndarray) -> tuple[float, float]:
    """What regret grows by in the last decade of steps and in the one before.

    Parameters
    ----------
    steps, regret : (R,) ndarray
        A curve; between records regret is taken to be linear in the logarithm of the step.

    Returns
    -------
    (float, float)
        R(N) - R(N/10) and R(N/10) - R(N/100); NaN for a run of fewer than 100 steps.
    """
    last = float(steps[-1])
    if last < 100.0:
        return math.nan, math.nan
    ends = np.interp(np.log([last, last / 10.0, last / 100.0]), np.log(steps), regret)
    return float(ends[0] - ends[1]), float(ends[1] - ends[2])


def phi_regret_rows(
    groups: "pd.DataFrame", cells: "pd.DataFrame", trajectories: "pd.DataFrame"
) -> "pd.DataFrame":
    """Add to a grouped summary what regret grows by in each of the last two decades of steps.

    Parameters
    ----------
    groups, cells, trajectories : DataFrame
        ``sweep.group_summary``, the summary, and at least the columns of `CURVES`.

    Returns
    -------
    DataFrame
        With ``decade``, ``decade_before``, their intervals, and ``decade_ratio``, of the means. Of each
        source the causal rules come first, and of these the ones on their own objective.
    """
    import pandas as pd

    done = cells[cells["outcome"] == "horizon_reached"]
    members = {key: set(own["cell"]) for key, own in done.groupby(["group", "rule"], sort=False)}
    curves = dict(iter(trajectories.groupby("cell", sort=False)))
    added = []
    for row in groups.to_dict("records"):
        own = [curves[cell] for cell in sorted(members.get((row["group"], row["rule"]), ()))]
        grown = [decades(curve["step"].to_numpy(), curve["regret"].to_numpy()) for curve in own]
        last = student_mean("decade", [late for late, _ in grown])
        before = student_mean("decade_before", [early for _, early in grown])
        ratio = last["decade"] / before["decade_before"] if before["decade_before"] else math.nan
        added.append({**last, **before, "decade_ratio": ratio})
    frame = pd.concat([groups.reset_index(drop=True), pd.DataFrame(added)], axis=1)
    frame["is_own"] = frame["comparator"] == OWN
    by = ["group", "causal", "is_own"]
    return frame.sort_values(by, ascending=[True, False, False], kind="stable")


def phi_regret_table(frame: "pd.DataFrame") -> Group:
    """Lay out the report as text: per source a block for each objective, and for current-batch rules.

    Parameters
    ----------
    frame : DataFrame
        What `phi_regret_rows` returns.

    Returns
    -------
    Group
        For ``rich.console.Console.print``.
    """
    return blocks_of(frame, "group", _source, _NOTES)


def _source(rows: list[dict[Any, Any]]) -> Iterator[Table | Text]:
    first = rows[0]
    sizes = f"E={first['n_experts']}, K={first['k']}, T={first['n_tokens']}, N={first['horizon']:,}"
    seeds = range_text(row["n_seeds"] for row in rows)
    yield Text(f"{first['source']}: {sizes}, seeds: {seeds}", style="bold")
    for (causal, is_own), members in groupby(rows, key=lambda row: (row["causal"], row["is_own"])):
        if not causal:
            yield Text(CURRENT_BATCH, style="italic")
        title = "regret on each rule's own objective (P7)" if is_own else "regret on the dual (S4)"
        yield Text(title, style="italic")
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        table.add_column("rule", overflow="fold")
        for column in ("R(N)", "last decade", "before", "ratio", "exponent [95 %]", "MaxVio/floor"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in members:
            ends = f"[{number(row['exponent_low'], 2)}, {number(row['exponent_high'], 2)}]"
            table.add_row(
                row["rule"],
                with_error(row["regret"], row["regret_high"] - row["regret"]),
                with_error(row["decade"], row["decade_high"] - row["decade"]),
                with_error(row["decade_before"], row["decade_before_high"] - row["decade_before"]),
                number(row["decade_ratio"], 2),
                f"{number(row['exponent'], 2)} {ends}",
                number(row["max_violation"] / row["max_violation_floor"], 2),
            )
        yield table
    for row in rows:
        if row["n_early"]:
            yield Text(f"{row['rule']}: {row['n_early']} seeds left out: {row['reason']}", style="yellow")
    yield Text("")


def summarise(run: RunDirectory) -> "pd.DataFrame":
    """The rows of a run; see `phi_regret_rows`.

    Raises
    ------
    RunDirectoryError
        If the directory is no run directory, has no finished cell, or a part is damaged.
    """
    return phi_regret_rows(group_summary(run), load_summary(run), load_trajectories(run, CURVES))


def figures(run: RunDirectory, rows: "pd.DataFrame") -> "Iterator[tuple[str, Figure]]":
    """Draw one figure per source, in the run's order."""
    from balancesim.report.phi_regret_figure import source_figure
    from balancesim.report.style import source_name

    cells, curves = load_summary(run), load_trajectories(run, CURVES)
    for index, own in rows.groupby("group", sort=False):
        figure = source_figure(own, cells[cells["group"] == index], curves)
        yield source_name(index, str(own["source"].iloc[0])), figure


REPORT = Report(summarise, phi_regret_table, figures)
