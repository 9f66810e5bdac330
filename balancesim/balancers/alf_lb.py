"""ALF-LB: a bias per expert, nudged against each batch's loads (Wang et al. 2024, arXiv:2408.15664)."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from balancesim.balancers.protocol import PriceRule
from balancesim.errors import InputError, unknown_name
from balancesim.kernels import rules as codes
from balancesim.numbers import check_int, check_positive
from balancesim.types import Float64Array, IntArray

SCHEDULES = {"sign": codes.SIGN, "constant": codes.CONSTANT, "harmonic": codes.HARMONIC, "sqrt": codes.SQRT}


class AlfLBState(NamedTuple):
    """Price p (E,) float64, number of batches seen, and K."""

    price: Float64Array
    step: int
    k: int


@dataclass(frozen=True, kw_only=True)
class AlfLB(PriceRule):
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
    schedule: Literal["harmonic", "sign", "constant", "sqrt"] = "harmonic"
    step_size: float | Literal["auto"] = 1.0
    recentre: bool = False
    radius: float | None = None
    delay: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise InputError(f"`schedule`: {unknown_name('schedule', self.schedule, SCHEDULES)}")
        if self.step_size != "auto":
            check_positive("step_size", self.step_size, otherwise=', or "auto"')
        if self.recentre not in (True, False):
            raise InputError(f"`recentre` must be true or false, got {self.recentre!r}")
        if self.radius is not None:
            check_positive("radius", self.radius, otherwise=", or omitted")
        check_int("delay", self.delay, 0)

    def init(self, n_experts: int, k: int) -> AlfLBState:
        """Start from price zero."""
        return AlfLBState(np.zeros(n_experts), 0, k)

    def bias(self, state: AlfLBState) -> Float64Array:
        """Return the price."""
        return state.price

    def update(self, state: AlfLBState, loads: IntArray, probabilities: Float64Array | None) -> AlfLBState:
        """Take one step; probabilities are not used."""
        del probabilities
        price, step = state.price.copy(), state.step + 1
        n_tokens = int(loads.sum()) // state.k
        codes.update_price(codes.ALF_LB, self.kernel_form()[1], step, n_tokens, state.k, loads, price)
        return AlfLBState(price, step, state.k)

    def kernel_form(self) -> tuple[int, Float64Array]:
        """Kind and parameters; raises `InputError` while the step size is "auto"."""
        if self.step_size == "auto":
            raise InputError(
                '`step_size` "auto" is resolved by `simulate`, which knows the source; give a number'
            )
        parameters = np.zeros(codes.N_PARAMETERS)
        parameters[codes.SCHEDULE] = SCHEDULES[self.schedule]
        parameters[codes.STEP_SIZE] = self.step_size
        parameters[codes.DELAY] = self.delay
        parameters[codes.RECENTRE] = self.recentre
        parameters[codes.RADIUS] = math.inf if self.radius is None else self.radius
        return codes.ALF_LB, parameters

    def describe(self) -> str:
        size = self.step_size if isinstance(self.step_size, str) else f"{self.step_size:.4g}"
        return f"ALF-LB {self.schedule}, step {size}"
