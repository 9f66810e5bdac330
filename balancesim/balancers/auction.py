"""Auction: tokens bid for experts until every expert is full (Bertsekas; BASE layers)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from balancesim.balancers.protocol import Assignment, BatchRule
from balancesim.errors import InputError
from balancesim.exact.feasibility import infeasible
from balancesim.exact.problem import AssignmentProblem
from balancesim.numbers import check_int, check_positive
from balancesim.types import Float64Array, FloatArray, IntArray

_FACTOR = 10.0
"""By how much epsilon falls from one auction to the next."""


class Market(NamedTuple):
    """A batch as an auction takes it.

    ``values`` (R, E) float64, finite; ``demand`` (R,) int64; ``copies`` of each expert. The last row is the
    one that takes what is short of the ceiling of T K / E where that is fractional.
    """

    values: Float64Array
    demand: IntArray
    copies: int


def market(scores: FloatArray, k: int, epsilon: float) -> Market:
    """Turn a batch into bidders and copies.

    Parameters
    ----------
    scores : (T, E) ndarray of float32 or float64
        The batch; minus infinity masks an expert for a token.
    k : int
        Experts per token.
    epsilon : float
        The last auction's.

    Returns
    -------
    Market
        Every expert has C = ceil(T K / E) copies. If r = T K - E floor(T K / E) is not zero, one more bidder,
        indifferent between experts, wants E - r of them: their loads are the floor. Masked scores
        are so low that an assignment uses one only if none can do without.
    """
    n_tokens, n_experts = scores.shape
    floor, remainder = divmod(n_tokens * k, n_experts)
    values = np.zeros((n_tokens + (remainder > 0), n_experts))
    values[:n_tokens] = scores
    demand = np.full(len(values), k)
    if remainder:
        demand[-1] = n_experts - remainder
    masked = np.isneginf(values)
    if masked.any():
        known = values[:n_tokens][~masked[:n_tokens]]
        gap = n_experts * float(np.ptp(known)) + (n_experts + 1) * epsilon
        values[masked] = known.min() - gap
    return Market(values, demand, floor + (remainder > 0))


@dataclass(frozen=True, kw_only=True)
class Auction(BatchRule):
    """Bertsekas' auction with epsilon scaling: balanced loads, optimal up to a stated bound.

    Tokens that lack experts bid in turn (Bertsekas 1988; Bertsekas and Castanon 1989 for several copies of
    an item; as a router for K = 1 the BASE layer, Lewis et al. 2021, arXiv:2103.16716). Every load is the
    floor or the ceiling of T K / E. At the end epsilon-complementary slackness holds: at the prices no token
    would gain more than epsilon by giving up one of its experts for another. From that follows, up to the
    rounding of prices (ours in this form):

    * The value is within epsilon (T min(K, E - K) + min(r, E - r)) of the optimum, r = T K mod E; so is the
      dual D_int at the bias.
    * Another balanced assignment differs by cycles of at most E exchanges, and a cycle gains at most
      E epsilon. So if all scores are multiples of some delta and epsilon < delta/E, the value is the optimum.
    * A batch whose masks leave no balanced assignment is recognised, and ends the run.

    Parameters
    ----------
    epsilon : float, optional
        In score units; the last auction's. Earlier ones are coarser tenfold each, from the median lead of
        a token's best score over its (K+1)-th.
    max_bids : int, optional
        Bids per token, on average over the tokens of a batch and summed over its auctions, after which the
        run ends. Rounding can cause that, where epsilon is below that of the scores.

    Notes
    -----
    Tokens first bid in order, then as they are outbid; each bids on the lower of experts that tie. Another
    order of tokens may give another assignment within the bound. Each batch begins at equal prices. The bias
    is minus the prices, of zero mean.
    """

    name = "auction"
    reference = "Bertsekas 1988 (the auction algorithm); as a router arXiv:2103.16716 (BASE)"
    epsilon: float = 1e-3
    max_bids: int = 1000

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)
        check_int("max_bids", self.max_bids, 1)

    def init(self, n_experts: int, k: int) -> int:
        """Return K, all that a batch needs to know."""
        del n_experts
        return k

    def assign(self, state: int, scores: FloatArray) -> tuple[Assignment, int]:
        """Hold the auctions of a batch."""
        from balancesim.kernels.auction import hold_auction
        from balancesim.kernels.expert_choice import list_experts

        n_tokens, n_experts = scores.shape
        values, demand, copies = market(scores, state, self.epsilon)
        if not np.isfinite(values).all():
            return Assignment(None, reason="scores too large to be told from masked ones in float64"), state
        most = self.max_bids * len(values)
        price, held = np.zeros(n_experts), np.zeros(values.shape, np.bool_)
        n_bids = hold_auction(values, demand, copies, self.epsilons(scores, state), price, held, most)
        if n_bids > most:
            reason = f"the auction had not ended after `max_bids` = {self.max_bids} bids per token; "
            return Assignment(None, reason=reason + "raise that or `epsilon`"), state
        held = held[:n_tokens]
        if np.isneginf(scores[held]).any():
            return Assignment(None, reason=_why_masked(scores, state)), state
        experts = np.empty((n_tokens, state), np.int64)
        list_experts(held, experts)
        return Assignment(experts, price.mean() - price), state

    def epsilons(self, scores: FloatArray, k: int) -> Float64Array:
        """Return the epsilon of each auction on a batch, descending, (A,) float64."""
        leading = np.partition(scores, -k - 1, axis=1)[:, -k - 1 :].astype(np.float64)
        leads = leading.max(axis=1) - leading[:, 0]
        lead = float(np.median(leads[np.isfinite(leads)])) if np.isfinite(leads).any() else 0.0
        n_coarser = int(np.ceil(np.log10(lead / self.epsilon))) if lead > self.epsilon else 0
        return self.epsilon * _FACTOR ** np.arange(n_coarser, -1, -1.0)

    def describe(self) -> str:
        return f"auction, epsilon {self.epsilon:.4g}"


def _why_masked(scores: FloatArray, k: int) -> str:
    """Say which experts masks leave too few tokens."""
    try:
        error = infeasible(AssignmentProblem.of(scores, k=k))
    except InputError as found:
        error = found
    return str(error or "prices were rounded too coarsely to keep off masked experts; raise `epsilon`")
