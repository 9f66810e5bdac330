"""What the theory says, computed: single steps, curvature, regret, growth, noise (labels of theory.md)."""

from balancesim.theory.approximate_balance import SignRun, balance_band, breakpoint_gap, sign_run
from balancesim.theory.curvature import CurvatureEstimate, curvature, estimate_curvature
from balancesim.theory.gradient import gradient_covariance, squared_gradient_bound
from balancesim.theory.growth import GrowthFit, fit_growth
from balancesim.theory.modulus import boundary_spread, modulus
from balancesim.theory.monotone_step import max_monotone_step
from balancesim.theory.potentials import (
    MinibatchBias,
    averaging_bound,
    averaging_ceiling,
    averaging_excess,
    minibatch_bias,
)
from balancesim.theory.preference import Preference, preference
from balancesim.theory.regret import general_slope, hindsight_gain, power_exponent, regret_bound, sharp_slope
from balancesim.theory.sampling import max_violation_floor
from balancesim.theory.step_change import StepChange, step_change
from balancesim.theory.tails import DomainModulus, domain_modulus, spread_limit

__all__ = [
    "CurvatureEstimate",
    "DomainModulus",
    "GrowthFit",
    "MinibatchBias",
    "Preference",
    "SignRun",
    "StepChange",
    "averaging_bound",
    "averaging_ceiling",
    "averaging_excess",
    "balance_band",
    "boundary_spread",
    "breakpoint_gap",
    "curvature",
    "domain_modulus",
    "estimate_curvature",
    "fit_growth",
    "general_slope",
    "gradient_covariance",
    "hindsight_gain",
    "max_monotone_step",
    "max_violation_floor",
    "minibatch_bias",
    "modulus",
    "power_exponent",
    "preference",
    "regret_bound",
    "sharp_slope",
    "sign_run",
    "spread_limit",
    "squared_gradient_bound",
    "step_change",
]
