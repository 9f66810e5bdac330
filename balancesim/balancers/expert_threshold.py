"""Expert-threshold routing: as many experts as a token's scores deserve (arXiv:2603.11535)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from balancesim.balancers.compiled import CompiledRule
from balancesim.kernels.jit import rule_kernel
from balancesim.kernels.quantile import find_quantiles
from balancesim.numbers import check_rate
from balancesim.types import Float64Array, FloatArray, IntArray


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
    """Keep the scores."""
    for e in range(n_experts):
        for t in range(n_lanes):
            memory[e * n_tokens + token + t] = tile[e, t]


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
    """Average the batch's top-K/E quantiles into the thresholds; the first batch's are taken as they are."""
    n_experts = price.size
    rate = parameters[0] if step > 1 else 1.0
    values, thresholds = np.empty(n_tokens), np.empty(n_experts)
    scores = memory.reshape(n_experts, n_tokens)
    find_quantiles(scores, np.zeros(n_tokens), k, 0, n_tokens, False, values, thresholds)
    for e in range(n_experts):
        price[e] = (1.0 - rate) * price[e] - rate * thresholds[e]


@dataclass(frozen=True, kw_only=True)
class ExpertThreshold(CompiledRule):
    """Each token goes to every expert whose score exceeds the expert's threshold, K on average.

    The threshold c_k is the exponential moving average of the (floor(T K / E) + 1)-th largest score of
    expert k in past batches: what would have given it its balanced load. The bias is -c, and positive biased
    scores are chosen. Source: Expert Threshold Routing, 2026, arXiv:2603.11535.

    Parameters
    ----------
    ema_rate : float, optional
        c in threshold <- (1 - c) threshold + c quantile.

    Notes
    -----
    The first batch is routed with thresholds of zero, so tokens may get all experts or none; the second with
    the first batch's quantiles. A threshold sees its own expert's scores alone: it minimises no dual, and
    regret is NaN. The memory is E T numbers.
    """

    name = "expert-threshold"
    reference = "arXiv:2603.11535"
    needs_scores = True
    allows_groups = False
    threshold = True
    compiled_update = staticmethod(update)
    compiled_observe = staticmethod(observe)
    ema_rate: float = 0.01

    def __post_init__(self) -> None:
        check_rate("ema_rate", self.ema_rate)

    def parameters(self) -> Sequence[float]:
        """Return the rate."""
        return (self.ema_rate,)

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Float64Array:
        """Return room for a batch's scores."""
        del k
        return np.zeros(n_experts * n_tokens)

    def describe(self) -> str:
        return f"expert thresholds, EMA {self.ema_rate:g}"
