"""What the theory says, computed: curvature, regret bounds, growth, sampling noise (labels of theory.md)."""

from balancesim.theory.growth import GrowthFit, fit_growth
from balancesim.theory.modulus import boundary_spread, modulus
from balancesim.theory.potentials import (
    MinibatchBias,
    averaging_bound,
    averaging_ceiling,
    averaging_excess,
    minibatch_bias,
)
from balancesim.theory.regret import power_exponent, regret_bound, sharp_slope
from balancesim.theory.sampling import max_violation_floor
from balancesim.theory.tails import DomainModulus, domain_modulus, spread_limit

__all__ = [
    "DomainModulus",
    "GrowthFit",
    "MinibatchBias",
    "averaging_bound",
    "averaging_ceiling",
    "averaging_excess",
    "boundary_spread",
    "domain_modulus",
    "fit_growth",
    "max_violation_floor",
    "minibatch_bias",
    "modulus",
    "power_exponent",
    "regret_bound",
    "sharp_slope",
    "spread_limit",
]
