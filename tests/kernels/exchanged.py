"""What tests of augmenting paths and of settled prices share: instances, and a choice that kernels change."""

import numpy as np

from balancesim.kernels.candidates import write_choice
from balancesim.kernels.exchange import balance, settle
from tests import naive
from tests.conftest import INTERPRETED
from tests.kernels.instances import ALL, collect, experts_of, masked, most_violated, quarters, value_of

SEEDS = range(8 if INTERPRETED else 40)
TOLERANCE = 1e-12
"""Rounding of sums of a few scores below ten."""
ENOUGH = 10_000


def instance(seed, *, smooth=None, masks=None):
    """Scores, K and the loads of some assignment."""
    rng = np.random.default_rng(seed)
    n_tokens, n_experts = int(rng.integers(2, 15)), int(rng.integers(2, 8))
    k = int(rng.integers(1, n_experts))
    smooth = seed % 2 == 0 if smooth is None else smooth
    scores = rng.standard_normal((n_tokens, n_experts)) if smooth else quarters(rng, (n_tokens, n_experts))
    if seed % 3 == 0 if masks is None else masks:
        scores = masked(rng, scores, k)
    order = np.argsort(
        np.where(np.isfinite(scores), rng.random(scores.shape), 2.0) + np.arange(n_experts) / 9
    )
    return scores, k, np.bincount(order[:, :k].ravel(), minlength=n_experts)


class Exchanged:
    """A choice that is optimal at its price, and what the kernels make of it."""

    def __init__(self, scores, k, price, *, width=ALL, words=None):
        self.scores, self.k, self.price = scores, k, np.array(price, np.float64)
        self.found, loads, self.words = collect(scores, k, self.price, width, words=words)
        self.loads = np.array(naive.loads_of(experts_of(self.words), loads.size))
        self.reserve = 0.0
        self.moves = 0

    def balance(self, kept, low=None, high=None, *, reach=ALL, most=ENOUGH, centre=None):
        low, high = (kept.copy() if limit is None else limit for limit in (low, high))
        centre = self.price.copy() if centre is None else centre
        ending, moves, self.reserve = balance(
            self.found, self.loads, kept, low, high, self.price, self.reserve, centre, reach, most
        )
        self.look()
        self.moves += moves
        return ending, moves

    def settle(self, kept, low=None, high=None, *, reach=ALL, centre=None, tolerance=TOLERANCE, most=5000):
        low, high = (kept.copy() if limit is None else limit for limit in (low, high))
        centre = self.price.copy() if centre is None else centre
        result = settle(
            self.found, self.loads, kept, low, high, self.price, self.reserve, centre, reach, tolerance, most
        )
        self.look()
        return result

    def look(self):
        """Whatever has happened, the choice is one of K experts each, and loads are in step."""
        write_choice(self.found, self.words)
        self.experts = experts_of(self.words)
        assert [len(chosen) for chosen in self.experts] == [self.k] * len(self.experts)
        assert self.loads.tolist() == naive.loads_of(self.experts, self.loads.size)
        self.value = value_of(self.scores, self.experts)

    def violation(self):
        return most_violated(self.scores, self.experts, self.price)

    def unit_slack(self):
        """The least by which any move of one token costs more than it gains; infinite without moves."""
        return -self.violation()


def limits_around(loads, n_tokens, seed):
    room = np.random.default_rng(seed).integers(0, 3, (loads.size, 2))
    return np.clip(loads - room[:, 0], 0, n_tokens), np.clip(loads + room[:, 1], 0, n_tokens)


def reserve_of(price, kept, low, high):
    """A price at which what is kept may be kept: no less than of those that might keep fewer."""
    dear, cheap = price[kept > low], price[kept < high]
    return float(dear.max()) if dear.size else float(cheap.min()) if cheap.size else 0.0
