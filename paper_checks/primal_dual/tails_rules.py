"""Rules of T8 and T10: steps by given moduli, one global modulus from gaps, and AdaGrad."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from balancesim.balancers import CompiledRule, PriceRule, rule_kernel
from balancesim.balancers.alf_lb import project
from balancesim.types import Float64Array, FloatArray, IntArray

_PER_OCTAVE = 4
_LOWEST = -128
_N_BINS = -2 * _LOWEST * _PER_OCTAVE


@rule_kernel
def observe_gaps(
    parameters: Float64Array,
    n_tokens: int,
    k: int,
    n_experts: int,
    tile: FloatArray,
    bias: FloatArray,
    top: FloatArray,
    token: int,
    n_lanes: int,
    memory: Float64Array,
) -> None:
    """Count each token's gap between its K-th and its next biased score in bins of its logarithm."""
    best_left = np.full(n_lanes, -np.inf)
    for e in range(n_experts):
        for t in range(n_lanes):
            x = tile[e, t] + bias[e]
            if x < top[k - 1, t] and x > best_left[t]:
                best_left[t] = x
    for t in range(n_lanes):
        place = _PER_OCTAVE * (math.log2(top[k - 1, t] - best_left[t]) - _LOWEST)
        memory[int(min(max(place, 0.0), _N_BINS - 1.0))] += 1.0


@rule_kernel
def update_by_gaps(
    parameters: Float64Array,
    step: int,
    n_tokens: int,
    k: int,
    loads: IntArray,
    price: Float64Array,
    memory: Float64Array,
) -> None:
    """T8's step 1/(m_1 + ... + m_n), m_i the gaps' density at zero over E - 1 (T1) as batch i leaves it."""
    safety, wait = parameters[0], parameters[1] * price.size / (k * n_tokens)
    counts, n_experts = memory[:_N_BINS], price.size
    total = counts.sum()
    if step < wait:
        return
    wanted = max(1.0, total * min(0.5, total**-0.25))
    below, width = 0.0, 0.0
    for b in range(_N_BINS):
        if below + counts[b] >= wanted:
            low = 2.0 ** (_LOWEST + b / _PER_OCTAVE)
            width = low * (1.0 + (2.0 ** (1.0 / _PER_OCTAVE) - 1.0) * (wanted - below) / counts[b])
            break
        below += counts[b]
    modulus = -math.log1p(-wanted / (total + 1.0)) / (width * (n_experts - 1))
    memory[_N_BINS] += modulus * (step + wait) if memory[_N_BINS] == 0.0 else modulus
    for e in range(n_experts):
        violation = (loads[e] * n_experts - n_tokens * k) / (n_experts * n_tokens)
        price[e] -= safety / memory[_N_BINS] * violation
    if (step & (step - 1)) == 0:
        counts *= 0.5


@dataclass(frozen=True, kw_only=True)
class GapModulus(CompiledRule):
    """Harmonic steps by one modulus, estimated from the gaps at the K-th place.

    Parameters
    ----------
    safety : float, optional
        S8's factor on the step.
    wait : float, optional
        The first step waits for so many tokens per balanced load, and steps begin as if as many had passed.
    """

    name = "gap-modulus"
    reference = "docs/heavy_tails.md"
    needs_scores = True
    compiled_update = staticmethod(update_by_gaps)
    compiled_observe = staticmethod(observe_gaps)
    safety: float = 1.0
    wait: float = 4.0

    def parameters(self) -> Sequence[float]:
        """Return safety and wait."""
        return self.safety, self.wait

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Float64Array:
        """Return empty bins and the sum of moduli."""
        del n_experts, n_tokens, k
        return np.zeros(_N_BINS + 1)


@rule_kernel
def update_adagrad(
    parameters: Float64Array,
    step: int,
    n_tokens: int,
    k: int,
    loads: IntArray,
    price: Float64Array,
    memory: Float64Array,
) -> None:
    """Divide each expert's step by the root of its summed squares."""
    n_experts = price.size
    for e in range(n_experts):
        violation = (loads[e] * n_experts - n_tokens * k) / (n_experts * n_tokens)
        memory[e] += violation * violation
        if memory[e] > 0.0:
            price[e] -= parameters[0] * violation / math.sqrt(memory[e])


@dataclass(frozen=True, kw_only=True)
class AdaGrad(CompiledRule):
    """Diagonal AdaGrad.

    Parameters
    ----------
    step_size : float, optional
        In score units.
    """

    name = "adagrad"
    reference = "Duchi, Hazan & Singer 2011"
    compiled_update = staticmethod(update_adagrad)
    step_size: float = 1.0

    def parameters(self) -> Sequence[float]:
        """Return the step."""
        return (self.step_size,)

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Float64Array:
        """Return sums of zero."""
        del n_tokens, k
        return np.zeros(n_experts)


@dataclass(frozen=True)
class SummedModulus(PriceRule):
    """T8's steps 1/(m_1 + ... + m_n), m_n given, with S4's projection.

    Parameters
    ----------
    moduli : (N,) ndarray
        m_n.
    radius : float
        Of the projection, score units.
    """

    name = "summed-modulus"
    moduli: Float64Array = field(repr=False)
    radius: float

    def init(self, n_experts: int, k: int) -> tuple[int, int, Float64Array]:
        """Start at zero: steps done, K, price."""
        return 0, k, np.zeros(n_experts)

    def bias(self, state: tuple[int, int, Float64Array]) -> Float64Array:
        """Return the price."""
        return state[2]

    def update(
        self, state: tuple[int, int, Float64Array], loads: IntArray, probabilities: Float64Array | None
    ) -> tuple[int, int, Float64Array]:
        """Take a step and project."""
        del probabilities
        n, k, price = state
        violation = (loads - loads.mean()) * (k / loads.sum())
        moved = price - violation / self.moduli[: n + 1].sum()
        project(moved, self.radius)
        return n + 1, k, moved
