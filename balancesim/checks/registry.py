"""Statements by label, from every installed package."""

import re
from collections.abc import Iterable

from balancesim.checks.statement import Statement
from balancesim.errors import ConfigurationError, unknown_name
from balancesim.plugins import load_group

GROUP = "balancesim.checks"


def find_statements(labels: Iterable[str] = ()) -> list[Statement]:
    """Return the statements of some labels, or all.

    Parameters
    ----------
    labels : iterable of str, optional
        In any case; a leading part names a family, as ``"D"`` does D1 to D5. Default: all.

    Returns
    -------
    list of Statement
        Each once; letters in alphabetical order, numbers in theirs.

    Raises
    ------
    ConfigurationError
        If a label is unknown (the message names the nearest), or a package registers something that is no
        statement, or under a name that is not its label.
    """
    known: dict[str, Statement] = {}
    for name, found in load_group(GROUP).items():
        if not isinstance(found, Statement) or found.label != name:
            raise ConfigurationError(
                f"{name!r} in {GROUP} must be a Statement of that label, got {type(found).__name__}; repair "
                "or uninstall the package that registers it"
            )
        known[name] = found
    chosen: set[str] = set()
    for label in labels:
        matching = [name for name in known if name.upper() == label.upper() or _family(name) == label.upper()]
        if not matching:
            raise ConfigurationError(unknown_name("statement", label, known))
        chosen.update(matching)
    return [known[name] for name in sorted(chosen or known, key=_order)]


def _family(name: str) -> str:
    return name.rstrip("0123456789").upper()


def _order(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
