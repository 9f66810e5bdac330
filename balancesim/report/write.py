"""Write the figures of a run directory."""

import re
from pathlib import Path

import pandas as pd

from balancesim.report import style
from balancesim.report.curves import source_figure
from balancesim.report.overview import overview_figure
from balancesim.sweep import RunDirectory, group_summary, load_summary, load_trajectories
from balancesim.sweep.atomic import storage_error


def write_report(run: RunDirectory | Path, groups: pd.DataFrame | None = None) -> list[Path]:
    """Draw one figure per source that has regret to show and one for the whole run, as SVG and PNG.

    Parameters
    ----------
    run : RunDirectory or Path
        A run directory with at least one finished cell.
    groups : DataFrame, optional
        What ``sweep.group_summary`` returned for it, where the caller has that already.

    Returns
    -------
    list of Path
        The files written, under ``figures/``: ``summary`` first, then one name per source in the run's order.
        The same cells give the same bytes on one machine with one version of matplotlib.

    Raises
    ------
    RunDirectoryError
        If it is not a run directory, holds no finished cell, or its ``figures`` cannot be written.
    """
    directory = run if isinstance(run, RunDirectory) else RunDirectory(Path(run))
    groups = group_summary(directory) if groups is None else groups
    cells, curves = load_summary(directory), load_trajectories(directory, ["cell", "step", "regret"])
    try:
        directory.figures.mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(directory.figures, error) from error
    with style.settings():
        written = style.save(overview_figure(groups), directory.figures, "summary")
        shown = groups.groupby("group").filter(lambda rules: bool(rules["regret"].notna().any()))
        for index, rules in shown.groupby("group", sort=False):
            figure = source_figure(rules, cells[cells["group"] == index], curves)
            name = re.sub(r"[^a-z0-9.]+", "-", str(rules["source"].iloc[0]).lower()).strip("-.")
            written += style.save(figure, directory.figures, f"source-{index:02}-{name[:60]}")
    return written
