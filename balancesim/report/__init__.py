"""What a run says: a table for the terminal, figures for the page; which ones, the experiment's report.

The names below load on first use, so that the list of reports needs neither pandas nor matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from balancesim.report.registry import Report, check_report, find_report
    from balancesim.report.tables import summary_table
    from balancesim.report.write import write_report

__all__ = ["Report", "check_report", "find_report", "summary_table", "write_report"]

_HOMES = {
    "Report": "registry",
    "check_report": "registry",
    "find_report": "registry",
    "summary_table": "tables",
    "write_report": "write",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"balancesim.report.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'balancesim.report' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
