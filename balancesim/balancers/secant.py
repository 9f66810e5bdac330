"""Harmonic steps that need no modulus: expert by expert, scaled by what batches ask for (ours)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from balancesim.balancers.compiled import CompiledRule
from balancesim.kernels.jit import rule_kernel
from balancesim.kernels.quantile import next_scores, select
from balancesim.numbers import check_not_negative, check_positive
from balancesim.types import Float64Array, FloatArray, IntArray

_HEADER = 2
_FILLED, _SIZE = range(_HEADER)
"""The first cells of the memory: tokens pooled so far, and tokens of a full pool; then the E sums each of
loads, moves and violations, and the pool's margins, expert by expert."""


@rule_kernel
def observe(
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
    """Keep each expert's margin: its biased score less the one that it must beat, or that must beat it."""
    best_left = next_scores(tile, bias, k, n_experts, top, n_lanes)
    size, filled = int(memory[_SIZE]), int(memory[_FILLED])
    for e in range(n_experts):
        first = _HEADER + 3 * n_experts + e * size + filled + token
        for t in range(n_lanes):
            x, least = tile[e, t] + bias[e], top[k - 1, t]
            memory[first + t] = np.float64(x) - np.float64(best_left[t] if x >= least else least)


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
    """Pool the batch; with a full pool take one harmonic step, in units of past moves per violation."""
    multiple, delay = parameters[0], parameters[1]
    n_experts, size = price.size, int(memory[_SIZE])
    sums = memory[_HEADER : _HEADER + 3 * n_experts].reshape(3, n_experts)
    for e in range(n_experts):
        sums[0, e] += loads[e]
    memory[_FILLED] += n_tokens
    if memory[_FILLED] < size:
        return
    memory[_FILLED] = 0.0
    update_number = step * n_tokens // size
    rate = multiple / (update_number + delay)
    wanted = size * k / n_experts
    rank = int(wanted - 0.5)
    share = wanted - 0.5 - rank
    margins = memory[_HEADER + 3 * n_experts :].reshape(n_experts, size)
    for e in range(n_experts):
        # The margins' order statistic of rank L + 1/2: the move that would balance expert e alone.
        lower = select(margins[e], rank + 1)
        upper = margins[e, 0]
        for t in range(1, rank + 1):
            upper = min(upper, margins[e, t])
        move = abs((1.0 - share) * upper + share * lower)
        violation = sums[0, e] - wanted
        sums[0, e] = 0.0
        if move < np.inf:
            sums[1, e] += update_number * move
            sums[2, e] += update_number * abs(violation)
        if sums[2, e] > 0.0:
            price[e] -= rate * violation * sums[1, e] / sums[2, e]
    price -= price.mean()


@dataclass(frozen=True, kw_only=True)
class SecantHarmonic(CompiledRule):
    """Harmonic steps per expert, scaled by the moves that past batches asked for per unit of violation.

    After a batch, the coordinate move m_k of expert k is the change of its price that would balance it alone:
    the order statistic of rank L + 1/2 of its margins (biased score less the K-th largest of the others). The
    step is p_k -= (c/(n + n0)) g_k R_k with R_k the sum of i |m_k| over the sum of i |g_k|, i <= n the number
    of the update: a running secant of the inverse curvature, in which recent batches count for more. No scale
    and no modulus enters: scores times s give prices times s and the same choices.

    Parameters
    ----------
    multiple : float, optional
        c, positive. For scores that are independent and identically distributed up to location, 1 is about
        the step 1/(mu n) of a known modulus. The logarithm is lost at 1/(2 lambda) and below, lambda the
        second eigenvalue of the normalised graph of ties: at (E-1)/(2E) for such scores, higher where tokens
        are clustered, and at 1 or above where each of two halves of the experts has a quarter of its ties or
        fewer with the other (docs/heavy_tails.md, T10).
    delay : float, optional
        n0: steps begin as if n0 updates had passed.
    pool : float, optional
        An update waits for as many batches as bring the balanced load of an expert, and the tokens it does
        not get, to this many tokens, as a quantile of fewer says little.

    Notes
    -----
    The rule needs scores, to learn from after a batch was routed. Regret was seen to be logarithmic on
    independent scores, and a power where groups of experts seldom tie and ``multiple`` is too small; what
    is proved and under which hypothesis is in docs/heavy_tails.md. The memory is E numbers a token of a
    pool; an update selects two order statistics per expert.
    """

    name = "secant"
    reference = "ours (docs/heavy_tails.md)"
    needs_scores = True
    allows_groups = False
    compiled_update = staticmethod(update)
    compiled_observe = staticmethod(observe)
    multiple: float = 1.0
    delay: float = 1.0
    pool: float = 8.0

    def __post_init__(self) -> None:
        check_positive("multiple", self.multiple)
        check_not_negative("delay", self.delay)
        check_positive("pool", self.pool)

    def parameters(self) -> Sequence[float]:
        """Return multiple and n0."""
        return self.multiple, self.delay

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Float64Array:
        """Return an empty pool behind its size and three sums per expert."""
        share = min(k, n_experts - k) / n_experts
        size = n_tokens * max(1, math.ceil(max(self.pool, 1.0) / (share * n_tokens)))
        memory = np.zeros(_HEADER + 3 * n_experts + n_experts * size)
        memory[_SIZE] = size
        return memory

    def describe(self) -> str:
        parts = ["harmonic secant steps"]
        parts += [f"times {self.multiple:g}"] if self.multiple != 1.0 else []
        parts += [f"delay {self.delay:g}"] if self.delay != 1.0 else []
        return ", ".join(parts)
