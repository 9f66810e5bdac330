"""What the theory says, computed: single steps, curvature, regret, growth, noise (labels of theory.md)."""

from balancesim.theory.approximate_balance import SignRun, balance_band, breakpoint_gap, sign_run
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
from balancesim.theory.regret import power_exponent, regret_bound, sharp_slope
from balancesim.theory.sampling import max_violation_floor
from balancesim.theory.step_change import StepChange, step_change

__all__ = [
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
    "fit_growth",
    "max_monotone_step",
    "max_violation_floor",
    "minibatch_bias",
    "modulus",
    "power_exponent",
    "preference",
    "regret_bound",
    "sharp_slope",
    "sign_run",
    "step_change",
]
