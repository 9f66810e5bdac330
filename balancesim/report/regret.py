"""The report "regret": how regret grows under every rule, beside what the theory says."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from balancesim.report.registry import Report
from balancesim.report.tables import summary_table
from balancesim.sweep import RunDirectory, group_summary, load_summary, load_trajectories

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def figures(run: RunDirectory, groups: "pd.DataFrame") -> "Iterator[tuple[str, Figure]]":
    """Draw ``summary`` and one figure per source that has regret to show, in the run's order."""
    from balancesim.report.curves import source_figure
    from balancesim.report.overview import overview_figure
    from balancesim.report.style import source_name

    cells, curves = load_summary(run), load_trajectories(run, ["cell", "step", "regret"])
    yield "summary", overview_figure(groups)
    shown = groups.groupby("group").filter(lambda rules: bool(rules["regret"].notna().any()))
    for index, rules in shown.groupby("group", sort=False):
        figure = source_figure(rules, cells[cells["group"] == index], curves)
        yield source_name(index, str(rules["source"].iloc[0])), figure


REPORT = Report(group_summary, summary_table, figures)
