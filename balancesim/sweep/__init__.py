"""Sweeps: an experiment file becomes cells, cells become Parquet parts, parts become a summary.

The names below load on first use, so that listing experiments imports neither numba nor pyarrow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from balancesim.sweep.groups import group_records, group_summary
    from balancesim.sweep.session import Outcome, Plan, Reporter, plan_sweep, run_sweep
    from balancesim.sweep.store import RunDirectory, read_configuration
    from balancesim.sweep.summary import load_summary, load_trajectories

__all__ = [
    "Outcome",
    "Plan",
    "Reporter",
    "RunDirectory",
    "group_records",
    "group_summary",
    "load_summary",
    "load_trajectories",
    "plan_sweep",
    "read_configuration",
    "run_sweep",
]

_HOMES = {
    "Outcome": "session",
    "Plan": "session",
    "Reporter": "session",
    "RunDirectory": "store",
    "group_records": "groups",
    "group_summary": "groups",
    "load_summary": "summary",
    "load_trajectories": "summary",
    "plan_sweep": "session",
    "read_configuration": "store",
    "run_sweep": "session",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"balancesim.sweep.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'balancesim.sweep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
