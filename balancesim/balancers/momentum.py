"""SMEBU: soft-clamped momentum expert bias updates (Singh et al. 2026, arXiv:2602.17004)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from balancesim.balancers.compiled import CompiledRule
from balancesim.errors import InputError
from balancesim.kernels.jit import rule_kernel
from balancesim.numbers import check_positive, is_number
from balancesim.types import Float64Array, IntArray


@rule_kernel
def update(
    parameters: Float64Array,
    step: int,
    n_tokens: int,
    k: int,
    loads: IntArray,
    price: Float64Array,
    memory: Float64Array,
) -> None:
    """One step: soft-clamp the relative violation, centre, average with the past, add."""
    size, sharpness, momentum = parameters[0], parameters[1], parameters[2]
    n_experts = price.size
    balanced = n_tokens * k / n_experts
    direction = np.empty(n_experts)
    for e in range(n_experts):
        direction[e] = size * math.tanh(sharpness * (balanced - loads[e]) / balanced)
    direction -= direction.mean()
    for e in range(n_experts):
        memory[e] = momentum * memory[e] + (1.0 - momentum) * direction[e]
        price[e] += memory[e]


@dataclass(frozen=True, kw_only=True)
class Momentum(CompiledRule):
    """SMEBU, the momentum rule of Trinity Large, between ALF-LB's sign and constant schedules.

    With v = (L - A)/L the relative violation: d = u tanh(kappa v), centred; m <- b m + (1 - b) d; p += m.
    Source: Singh et al. 2026, arXiv:2602.17004, whose numbers are the defaults.

    Parameters
    ----------
    step_size : float, optional
        u, in score units: the most that one step can add before centring. Small violations move p as the
        "constant" schedule with step u kappa E/K does (docs/theory.md).
    sharpness : float, optional
        kappa: violations far above 1/kappa act as their sign.
    momentum : float, optional
        b, at least 0 and below 1: the share of the last move that is kept.
    """

    name = "momentum"
    reference = "arXiv:2602.17004"
    compiled_update = staticmethod(update)
    step_size: float = 5e-4
    sharpness: float = 2.0
    momentum: float = 0.5

    def __post_init__(self) -> None:
        check_positive("step_size", self.step_size)
        check_positive("sharpness", self.sharpness)
        if not (is_number(self.momentum) and 0.0 <= self.momentum < 1.0):
            raise InputError(f"`momentum` must be at least 0 and below 1, got {self.momentum!r}")

    def parameters(self) -> Sequence[float]:
        """Return step size, sharpness and momentum."""
        return self.step_size, self.sharpness, self.momentum

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Float64Array:
        """Return the last move, zero before the first."""
        del n_tokens, k
        return np.zeros(n_experts)

    def describe(self) -> str:
        return f"SMEBU, step {self.step_size:.4g}"
