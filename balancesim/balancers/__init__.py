"""Balancing rules on two protocols: a price added to the scores, or a choice that sees the batch."""

from collections.abc import Mapping

from balancesim.balancers.alf_lb import AlfLB
from balancesim.balancers.compiled import CompiledRule, Delayed
from balancesim.balancers.exact import Exact
from balancesim.balancers.none import NoBalance
from balancesim.balancers.phi_balance import PhiBalance
from balancesim.balancers.protocol import Assignment, BatchRule, KernelForm, PriceRule, Rule
from balancesim.kernels.jit import rule_kernel

__all__ = [
    "AlfLB",
    "Assignment",
    "BatchRule",
    "CompiledRule",
    "Delayed",
    "Exact",
    "KernelForm",
    "NoBalance",
    "PhiBalance",
    "PriceRule",
    "Rule",
    "registry",
    "rule_kernel",
]


def registry() -> Mapping[str, type[Rule]]:
    """Return every rule that a configuration can name, the installed packages' own included.

    Returns
    -------
    mapping of str to type
        From the entry points of group ``balancesim.balancers``, sorted by name.
    """
    from balancesim.plugins import load_group

    return load_group("balancesim.balancers")
