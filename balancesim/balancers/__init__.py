"""Balancing rules: a price added to the scores or put in the loss, or a choice that sees the batch."""

from collections.abc import Mapping

from balancesim.balancers.alf_lb import AlfLB
from balancesim.balancers.compiled import CompiledPenalty, CompiledRule, Delayed
from balancesim.balancers.exact import Exact
from balancesim.balancers.gshard_loss import GShardLoss
from balancesim.balancers.none import NoBalance
from balancesim.balancers.phi_balance import PhiBalance
from balancesim.balancers.protocol import Assignment, BatchRule, KernelForm, PenaltyRule, PriceRule, Rule
from balancesim.balancers.switch_loss import SwitchLoss
from balancesim.kernels.jit import rule_kernel

__all__ = [
    "AlfLB",
    "Assignment",
    "BatchRule",
    "CompiledPenalty",
    "CompiledRule",
    "Delayed",
    "Exact",
    "GShardLoss",
    "KernelForm",
    "NoBalance",
    "PenaltyRule",
    "PhiBalance",
    "PriceRule",
    "Rule",
    "SwitchLoss",
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
