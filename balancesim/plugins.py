"""What installed packages add: rules, sources and checks, found by their entry points."""

from importlib.metadata import entry_points
from typing import Any


def load_group(group: str) -> dict[str, Any]:
    """Load every entry point of a group.

    Parameters
    ----------
    group : str
        ``"balancesim.balancers"``, ``"balancesim.sources"`` or ``"balancesim.checks"``.

    Returns
    -------
    dict of str to object
        What each name stands for, sorted by name.
    """
    return {point.name: point.load() for point in sorted(entry_points(group=group), key=lambda p: p.name)}
