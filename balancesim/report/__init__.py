"""What a run says: a table for the terminal, figures for the page."""

from pathlib import Path
from typing import TYPE_CHECKING

from balancesim.report.tables import summary_table

if TYPE_CHECKING:
    import pandas as pd

    from balancesim.sweep import RunDirectory

__all__ = ["summary_table", "write_report"]


def write_report(run: "RunDirectory | Path", groups: "pd.DataFrame | None" = None) -> list[Path]:
    """Draw the figures of a run; see :func:`balancesim.report.write.write_report`."""
    # Deferred: the table alone needs no matplotlib.
    from balancesim.report.write import write_report as write

    return write(run, groups)
