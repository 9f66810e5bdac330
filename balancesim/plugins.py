"""What installed packages add: rules, sources and checks, found by their entry points."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from balancesim.errors import ConfigurationError


def names(group: str) -> list[str]:
    """Names of a group's entry points, sorted; nothing is loaded."""
    return sorted(point.name for point in entry_points(group=group))


@cache
def load_group(group: str) -> Mapping[str, Any]:
    """Load every entry point of a group, once.

    Parameters
    ----------
    group : str
        ``"balancesim.balancers"``, ``"balancesim.sources"`` or ``"balancesim.checks"``.

    Returns
    -------
    mapping of str to object
        What each name stands for, sorted by name.

    Raises
    ------
    ConfigurationError
        If a package's entry point cannot be loaded.
    """
    found = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        try:
            found[point.name] = point.load()
        except Exception as error:
            package = point.dist.name if point.dist else "an installed package"
            raise ConfigurationError(
                f"{package} registers {point.name!r} in {group}, which cannot be loaded "
                f"({type(error).__name__}: {error}); repair or uninstall it"
            ) from error
    return MappingProxyType(found)
