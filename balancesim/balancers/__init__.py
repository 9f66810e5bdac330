"""Balancing rules: a price added to the scores or put in the loss, or a choice that sees the batch."""

from collections.abc import Mapping
from dataclasses import is_dataclass

from balancesim.balancers.alf_lb import AlfLB
from balancesim.balancers.auction import Auction
from balancesim.balancers.bip import BIP
from balancesim.balancers.capacity_drop import CapacityDrop
from balancesim.balancers.compiled import CompiledPenalty, CompiledRule
from balancesim.balancers.delayed import Delayed
from balancesim.balancers.exact import Exact
from balancesim.balancers.expert_choice import ExpertChoice
from balancesim.balancers.expert_threshold import ExpertThreshold
from balancesim.balancers.gshard_loss import GShardLoss
from balancesim.balancers.momentum import Momentum
from balancesim.balancers.none import NoBalance
from balancesim.balancers.phi_balance import PhiBalance
from balancesim.balancers.presets import preset, presets
from balancesim.balancers.protocol import (
    Assignment,
    BatchRule,
    KernelForm,
    OwnObjective,
    PenaltyRule,
    PriceRule,
    Rule,
)
from balancesim.balancers.quantile import QuantileBalance
from balancesim.balancers.secant import SecantHarmonic
from balancesim.balancers.sinkhorn import Sinkhorn
from balancesim.balancers.switch_loss import SwitchLoss
from balancesim.errors import ConfigurationError
from balancesim.kernels.jit import rule_kernel

__all__ = [
    "BIP",
    "AlfLB",
    "Assignment",
    "Auction",
    "BatchRule",
    "CapacityDrop",
    "CompiledPenalty",
    "CompiledRule",
    "Delayed",
    "Exact",
    "ExpertChoice",
    "ExpertThreshold",
    "GShardLoss",
    "KernelForm",
    "Momentum",
    "NoBalance",
    "OwnObjective",
    "PenaltyRule",
    "PhiBalance",
    "PriceRule",
    "QuantileBalance",
    "Rule",
    "SecantHarmonic",
    "Sinkhorn",
    "SwitchLoss",
    "preset",
    "presets",
    "registry",
    "rule_kernel",
]


def registry() -> Mapping[str, type[Rule]]:
    """Return every rule that a configuration can name, the installed packages' own included.

    Returns
    -------
    mapping of str to type
        From the entry points of group ``balancesim.balancers``, sorted by name.

    Raises
    ------
    ConfigurationError
        If an entry point cannot be loaded, or is no class of a rule whose keys are a dataclass's fields.
    """
    from balancesim.plugins import load_group

    found = load_group("balancesim.balancers")
    for name, cls in found.items():
        if not (isinstance(cls, type) and issubclass(cls, Rule) and is_dataclass(cls)):
            raise ConfigurationError(
                f"the entry point {name!r} of balancesim.balancers must be a dataclass that derives from "
                f"PriceRule, BatchRule or PenaltyRule, got {cls!r}; repair or uninstall its package"
            )
    return found
