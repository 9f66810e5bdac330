"""What the theory says, computed: curvature, regret bounds, growth, sampling noise (labels of theory.md)."""

from balancesim.theory.curvature import CurvatureEstimate, curvature, estimate_curvature
from balancesim.theory.gradient import gradient_covariance, squared_gradient_bound
from balancesim.theory.growth import GrowthFit, fit_growth
from balancesim.theory.modulus import boundary_spread, modulus
from balancesim.theory.potentials import (
    MinibatchBias,
    averaging_bound,
    averaging_ceiling,
    averaging_excess,
    minibatch_bias,
)
from balancesim.theory.regret import general_slope, hindsight_gain, power_exponent, regret_bound, sharp_slope
from balancesim.theory.sampling import max_violation_floor

__all__ = [
    "CurvatureEstimate",
    "GrowthFit",
    "MinibatchBias",
    "averaging_bound",
    "averaging_ceiling",
    "averaging_excess",
    "boundary_spread",
    "curvature",
    "estimate_curvature",
    "fit_growth",
    "general_slope",
    "gradient_covariance",
    "hindsight_gain",
    "max_violation_floor",
    "minibatch_bias",
    "modulus",
    "power_exponent",
    "regret_bound",
    "sharp_slope",
    "squared_gradient_bound",
]
