"""Write the figures of a run directory."""

from pathlib import Path

import pandas as pd

from balancesim.report import style
from balancesim.report.registry import find_report
from balancesim.sweep import RunDirectory, read_configuration
from balancesim.sweep.atomic import storage_error


def write_report(run: RunDirectory | Path, rows: pd.DataFrame | None = None) -> list[Path]:
    """Draw the figures of a run's report, as SVG and PNG.

    Parameters
    ----------
    run : RunDirectory or Path
        A run directory with at least one finished cell.
    rows : DataFrame, optional
        What the report's ``summarise`` returned for it, where the caller has that already.

    Returns
    -------
    list of Path
        The files written, under ``figures/``, in the report's order. The same cells give the same bytes on
        one machine with one version of matplotlib.

    Raises
    ------
    ConfigurationError
        If the run names a report that is not known.
    RunDirectoryError
        If it is not a run directory, holds no finished cell, or its ``figures`` cannot be written.
    """
    directory = run if isinstance(run, RunDirectory) else RunDirectory(Path(run))
    report = find_report(read_configuration(directory).report)
    rows = report.summarise(directory) if rows is None else rows
    try:
        directory.figures.mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(directory.figures, error) from error
    written = []
    with style.settings():
        for name, figure in report.figures(directory, rows):
            written += style.save(figure, directory.figures, name)
    return written
