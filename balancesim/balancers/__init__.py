"""Balancing rules on one protocol: a price added to the scores."""

from collections.abc import Mapping

from balancesim.balancers.alf_lb import AlfLB
from balancesim.balancers.none import NoBalance
from balancesim.balancers.protocol import PriceRule

__all__ = ["AlfLB", "NoBalance", "PriceRule", "registry"]


def registry() -> Mapping[str, type[PriceRule]]:
    """Return every rule that a configuration can name, the installed packages' own included.

    Returns
    -------
    mapping of str to type
        From the entry points of group ``balancesim.balancers``, sorted by name.
    """
    from balancesim.plugins import load_group

    return load_group("balancesim.balancers")
