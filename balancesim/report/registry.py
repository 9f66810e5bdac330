"""Reports by name: what the table and the figures of an experiment show."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from balancesim.errors import ConfigurationError, unknown_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from balancesim.sweep import RunDirectory
    from balancesim.sweep.configuration import Configuration


def _shows_all(configuration: "Configuration") -> None:
    """Accept every experiment."""


@dataclass(frozen=True)
class Report:
    """One way to show what a run found.

    Attributes
    ----------
    summarise : callable
        From a run directory with at least one finished cell to one row per line of the table.
    table : callable
        From these rows to what the terminal prints.
    figures : callable
        From the run directory and the rows to (file name, figure), drawn inside the figures' settings.
    check : callable
        Given an experiment, raises `ConfigurationError` where the report could not show it.
    """

    summarise: "Callable[[RunDirectory], pd.DataFrame]"
    table: "Callable[[pd.DataFrame], RenderableType]"
    figures: "Callable[[RunDirectory, pd.DataFrame], Iterable[tuple[str, Figure]]]"
    check: "Callable[[Configuration], None]" = _shows_all


# Loaded when asked for: plotting takes a second to import, and a listing of cells needs none of it.
_MODULES = MappingProxyType(
    {
        "minibatch-bias": "balancesim.report.minibatch_bias",
        "phi-regret": "balancesim.report.phi_regret",
        "race": "balancesim.report.race",
        "regret": "balancesim.report.regret",
        "trade-off": "balancesim.report.trade_off",
    }
)


def check_report(configuration: "Configuration") -> None:
    """Make sure that there is the report that an experiment names, and that it can show the experiment.

    Raises
    ------
    ConfigurationError
        As `find_report`, or as the report's own check.
    """
    find_report(configuration.report).check(configuration)


def find_report(name: str) -> Report:
    """The report of a name, as an experiment's ``report`` key gives it.

    Raises
    ------
    ConfigurationError
        If there is none of that name; the message lists the names and the nearest one.
    """
    if name not in _MODULES:
        raise ConfigurationError(f"report: {unknown_name('report', name, _MODULES)}")
    found: Report = import_module(_MODULES[name]).REPORT
    return found
