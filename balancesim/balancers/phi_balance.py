"""phi-balancing: a mirror-descent price from a moving average (Chen et al. 2026, arXiv:2605.15403).

The published rule acts through the router's gradient (P4); the selection form is ours (P6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from balancesim.balancers.compiled import CompiledRule, CompiledState
from balancesim.balancers.protocol import OwnObjective, PenaltyRule
from balancesim.errors import InputError, unknown_name
from balancesim.kernels.jit import rule_kernel
from balancesim.kernels.potentials import conjugate_at, gradient_at
from balancesim.numbers import check_positive, is_number
from balancesim.potentials import Potential, named
from balancesim.types import Float64Array, IntArray

_FORMS = ("selection", "gradient")
_SELECTION = 0


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
    """One step of either form: the average moves, the price is the potential's gradient there.

    ``memory`` holds, in the selection form, the summed dual term and the average; in the gradient form the
    batch's mean probabilities and the average.
    """
    code, exponent, rate, strength, form = parameters
    if rate == 0.0:
        rate = 1.0 / (step + 1)
    n_experts = price.size
    origin = gradient_at(code, exponent, 1.0 / n_experts)
    if form == _SELECTION:
        term = -origin
        for e in range(n_experts):
            term += conjugate_at(code, exponent, gradient_at(code, exponent, memory[1 + e]))
        memory[0] += strength * term
        average = memory[1:]
    else:
        average = memory[n_experts:]
    for e in range(n_experts):
        share = loads[e] / (n_tokens * k) if form == _SELECTION else memory[e]
        average[e] = (1.0 - rate) * average[e] + rate * share
        v = gradient_at(code, exponent, average[e])
        price[e] = -strength / k * (v - origin) if form == _SELECTION else strength * v


@dataclass(frozen=True, kw_only=True)
class PhiBalance(CompiledRule, PenaltyRule):
    """Mirror descent on a price whose mirror map is the conjugate of a potential phi (P1-P7).

    The price is v = grad phi(m), m an exponential moving average that starts at the uniform shares (P3).
    *Selection form* (ours, P6): m averages the shares A/(K T), and -(strength/K) v is added to the scores,
    less its value at uniform shares, so that a run starts at zero; a constant changes no choice.
    *Gradient form* (P4, the published rule): m averages the router's mean probabilities before the choice,
    and strength * v is the `penalty` that a learning router's loss gains; `simulate` refuses it.

    A potential whose gradient is unbounded at zero load (negative entropy, log barrier, Tsallis q < 1) has no
    price there. With a harmonic rate no share falls below 1/(E n); with a constant rate below 1 it takes
    hundreds of batches without a load until a share underflows or the price outgrows the scores; at rate 1,
    one. The run then ends with the status "the bias became non-finite or too large".

    Parameters
    ----------
    potential : str or Potential, optional
        "negative_entropy", "squared_norm", "p_norm", "tsallis", "log_barrier", or a
        `balancesim.potentials.Potential`.
    power : float, optional
        The exponent of "p_norm" and "tsallis" where these are given by name.
    ema_rate : float or "harmonic", optional
        Weight of the newest batch in m, in (0, 1]; "harmonic" is 1/(n + 1) at batch n = 1, 2, ... (P7).
    strength : float, optional
        lambda, the weight of phi(m): in score units in the selection form, in those of the loss in the other.
    form : {"selection", "gradient"}, optional
        How the price acts.
    """

    name = "phi-balance"
    reference = "arXiv:2605.15403; the selection form is ours (docs/theory.md, P6)"
    compiled_update = staticmethod(update)
    potential: Literal["negative_entropy", "squared_norm", "p_norm", "tsallis", "log_barrier"] | Potential = (
        "negative_entropy"
    )
    power: float | None = None
    ema_rate: float | Literal["harmonic"] = 0.01
    strength: float = 1.0
    form: Literal["selection", "gradient"] = "selection"

    def __post_init__(self) -> None:
        if isinstance(self.potential, Potential):
            if self.power is not None:
                raise InputError(f"`power` must be left out with {self.potential!r}, got {self.power!r}")
        else:
            named(self.potential, self.power)
        if self.ema_rate != "harmonic" and not (is_number(self.ema_rate) and 0.0 < self.ema_rate <= 1.0):
            raise InputError(f'`ema_rate` must be a number in (0, 1] or "harmonic", got {self.ema_rate!r}')
        check_positive("strength", self.strength)
        if self.form not in _FORMS:
            raise InputError(f"`form`: {unknown_name('form', str(self.form), _FORMS)}")

    @property
    def phi(self) -> Potential:
        """The potential itself."""
        if isinstance(self.potential, Potential):
            return self.potential
        return named(self.potential, self.power)

    @property
    def needs_probabilities(self) -> bool:  # type: ignore[override]  # a constant of the class for others
        """Whether this is the gradient form."""
        return self.form == "gradient"

    def parameters(self) -> Sequence[float]:
        """Return the potential's code and exponent, the rate (0: harmonic), the strength and the form."""
        rate = 0.0 if self.ema_rate == "harmonic" else self.ema_rate
        return self.phi.code, self.phi.parameter, rate, self.strength, _FORMS.index(self.form)

    def start(self, n_experts: int, k: int) -> Float64Array:
        """Return zero, or in the gradient form the penalty at uniform shares."""
        del k
        if not self.needs_probabilities:
            return np.zeros(n_experts)
        return self.strength * self.phi.gradient(np.full(n_experts, 1.0 / n_experts))

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Float64Array:
        """Return uniform shares behind the cells that the form needs (see `update`)."""
        del n_tokens, k
        ahead = n_experts if self.needs_probabilities else 1
        return np.concatenate([np.zeros(ahead), np.full(n_experts, 1.0 / n_experts)])

    def bias(self, state: CompiledState) -> Float64Array:
        """Return the price; zero in the gradient form."""
        return np.zeros_like(state.price) if self.needs_probabilities else state.price

    def penalty(self, state: CompiledState) -> Float64Array:
        """Return what the router's loss gains per unit of mean probability, (E,); zero in selection form."""
        return state.price if self.needs_probabilities else np.zeros_like(state.price)

    def average(self, state: CompiledState) -> Float64Array:
        """Return m, (E,)."""
        n_experts = state.price.size
        if state.memory is None:
            return np.full(n_experts, 1.0 / n_experts)
        return state.memory[-n_experts:]

    def update(
        self, state: CompiledState, loads: IntArray, probabilities: Float64Array | None
    ) -> CompiledState:
        """Take one step; the gradient form averages the probabilities, the selection form the loads."""
        if self.needs_probabilities and (probabilities is None or probabilities.shape != loads.shape):
            raise InputError(
                f"`probabilities` must be the router's mean probabilities, {loads.shape}, for "
                f"{self.describe()}"
            )
        return super().update(state, loads, probabilities)

    def own_objective(self, source: Any, n_tokens: int, k: int) -> OwnObjective | None:
        """Return the minimiser of P6's dual objective, E topsum_K(scores + bias) + strength * phi*(v).

        For scores that are not independent it is found on a sample: regret against it is then lower than
        against the true one by up to ``excess`` a step (`balancesim.penalised`).

        Raises
        ------
        InputError
            For a source that changes along the run, which has no one minimiser.
        """
        del n_tokens
        if self.needs_probabilities:
            return None
        from balancesim.penalised import penalised_minimiser

        found = penalised_minimiser(source, self.phi, strength=self.strength, k=k)
        # What is routed is the bias as rounded to the scores' dtype; the term is that of the same point.
        bias = found.bias.astype(source.batch(0, 1).dtype).astype(np.float64)
        origin = self.phi.gradient(np.full(bias.size, 1.0 / bias.size))
        term = self.phi.conjugate(origin - k / self.strength * bias) - float(origin[0])
        return OwnObjective(bias, self.strength * term, found.excess)

    def describe(self) -> str:
        rate = self.ema_rate if isinstance(self.ema_rate, str) else f"{self.ema_rate:.4g}"
        power = f" {self.phi.parameter:.4g}" if self.phi.parameter else ""
        which = self.phi.name.replace("_", " ") + power
        return f"phi-balancing {self.form}, {which}, rate {rate}, strength {self.strength:.4g}"
