"""ALF-LB: a bias per expert, nudged against each batch's loads (Wang et al. 2024, arXiv:2408.15664)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from balancesim.balancers.compiled import CompiledRule
from balancesim.errors import InputError, unknown_name
from balancesim.kernels.jit import rule_kernel, strict
from balancesim.numbers import check_int, check_positive
from balancesim.types import Float64Array, IntArray

_SCHEDULES = ("sign", "constant", "harmonic", "sqrt")
_SIGN, _CONSTANT, _HARMONIC, _SQRT = range(4)


@strict
def project(price: Float64Array, radius: float) -> None:
    """Project onto {sum p = 0, |p_k| <= radius} (S4) in place: shift, then clip.

    The sum of the clipped prices falls monotonically with the shift; bisection ends when no floating-point
    number is left between the brackets of its root.
    """
    low, high = price.min() - radius, price.max() + radius
    while True:
        shift = 0.5 * (low + high)
        if not low < shift < high:
            break
        total = 0.0
        for e in range(price.size):
            total += min(max(price[e] - shift, -radius), radius)
        if total > 0.0:
            low = shift
        else:
            high = shift
    for e in range(price.size):
        price[e] = min(max(price[e] - shift, -radius), radius)


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
    """One ALF-LB step (theory.md, "Step rules")."""
    schedule, size, delay = parameters[0], parameters[1], parameters[2]
    recentre, radius = parameters[3], parameters[4]
    if schedule == _HARMONIC:
        size = size / (step + delay)
    elif schedule == _SQRT:
        size = size / np.sqrt(step + delay)
    n_experts = price.size
    for e in range(n_experts):
        violation = (loads[e] * n_experts - n_tokens * k) / (n_experts * n_tokens)
        if schedule == _SIGN:
            violation = np.sign(violation)
        price[e] -= size * violation
    if recentre != 0.0 or radius < np.inf:
        price -= price.mean()
    if radius < np.inf and np.abs(price).max() > radius:
        project(price, radius)


@dataclass(frozen=True, kw_only=True)
class AlfLB(CompiledRule):
    """The rule of Wang et al. (2024), with the step rules of docs/theory.md.

    With g = (A - L)/T the per-token violation of step n: "sign" p -= u sign(g); "constant" p -= u g;
    "harmonic" p -= u/(n + n0) g; "sqrt" p -= u/sqrt(n + n0) g.

    Parameters
    ----------
    schedule : {"harmonic", "sign", "constant", "sqrt"}, optional
        The step rule.
    step_size : float or "auto", optional
        u, in score units in every schedule. "auto" is 1/mu at the population minimiser, where the modulus
        is known (S2).
    recentre : bool, optional
        Whether to subtract the mean of the price after each step; it never changes a choice.
    radius : float, optional
        Project onto {sum p = 0, |p_k| <= radius} after each step (S4).
    delay : int, optional
        n0: harmonic and sqrt steps begin as if n0 batches had passed (S4).
    """

    name = "alf-lb"
    reference = "arXiv:2408.15664; harmonic steps after arXiv:2512.03915 (docs/theory.md, S4)"
    compiled_update = staticmethod(update)
    schedule: Literal["harmonic", "sign", "constant", "sqrt"] = "harmonic"
    step_size: float | Literal["auto"] = 1.0
    recentre: bool = False
    radius: float | None = None
    delay: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in _SCHEDULES:
            raise InputError(f"`schedule`: {unknown_name('schedule', self.schedule, _SCHEDULES)}")
        if self.step_size != "auto":
            check_positive("step_size", self.step_size, otherwise=', or "auto"')
        if self.recentre not in (True, False):
            raise InputError(f"`recentre` must be true or false, got {self.recentre!r}")
        if self.radius is not None:
            check_positive("radius", self.radius, otherwise=", or omitted")
        check_int("delay", self.delay, 0)

    def parameters(self) -> Sequence[float]:
        """Return schedule, step size, n0, recentring and radius.

        Raises
        ------
        InputError
            While the step size is "auto".
        """
        if self.step_size == "auto":
            raise InputError(
                '`step_size` "auto" is resolved by `simulate`, which knows the source; give a number'
            )
        radius = math.inf if self.radius is None else self.radius
        return _SCHEDULES.index(self.schedule), self.step_size, self.delay, self.recentre, radius

    def describe(self) -> str:
        size = self.step_size if isinstance(self.step_size, str) else f"{self.step_size:.4g}"
        return f"ALF-LB {self.schedule}, step {size}"
