"""BIP: coordinate descent on the current batch's dual, with clipping (Sun 2025, arXiv:2502.15451)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from balancesim.balancers.protocol import Assignment, BatchRule
from balancesim.kernels.quantile import descend
from balancesim.numbers import check_int
from balancesim.routing import route
from balancesim.types import Float64Array, FloatArray


class BIPState(NamedTuple):
    """K, and the experts' prices (E,) of the batch before, which the next sweeps start from."""

    k: int
    prices: Float64Array


@dataclass(frozen=True, kw_only=True)
class BIP(BatchRule):
    """Several sweeps of clipped dual coordinate descent on each batch, which is then routed by its price.

    The program has at most K experts a token and at most floor(T K / E) tokens an expert, so both sides'
    prices are at least zero: a_i = max(0, (K+1)-th largest of scores_i - q), then q_k = max(0,
    (floor(T K / E) + 1)-th largest of scores_k - a); the bias is -q. Source: Sun 2025, arXiv:2502.15451,
    whose sweeps start from the batch before. With scores above zero and one sweep it is quantile balancing
    on the current batch, but for the clipping of experts' prices.

    Parameters
    ----------
    n_sweeps : int, optional
        Sweeps on each batch.

    Notes
    -----
    Clipping knows where the scores' zero is: with scores that are mostly negative the tokens' prices are all
    zero, and the rule balances expert by expert whatever the tokens' other choices are. The paper's scores
    are softmax probabilities. Each sweep costs E T numbers, selected from rather than sorted.
    """

    name = "bip"
    reference = "arXiv:2502.15451"
    n_sweeps: int = 4

    def __post_init__(self) -> None:
        check_int("n_sweeps", self.n_sweeps, 1)

    def init(self, n_experts: int, k: int) -> BIPState:
        """Start with prices of zero."""
        return BIPState(k, np.zeros(n_experts))

    def assign(self, state: BIPState, scores: FloatArray) -> tuple[Assignment, BIPState]:
        """Sweep, and choose each token's K best by the price that comes out."""
        prices = state.prices.copy()
        descend(np.ascontiguousarray(scores.T, dtype=np.float64), state.k, self.n_sweeps, prices)
        experts = route(scores, -prices, k=state.k, experts=True).experts
        return Assignment(experts, -prices), BIPState(state.k, prices)

    def describe(self) -> str:
        return f"BIP, {self.n_sweeps} sweep{'s' if self.n_sweeps > 1 else ''}"
