"""What tests of the exact solver's kernels share: bits, noise, candidates and optima, the slow way."""

import math

import numpy as np
from scipy.optimize import linprog

from balancesim.kernels.candidates import collect_part
from tests import naive

ALL = 1e300
"""A width within which every entry is that is not masked."""


def experts_of(words):
    """Each token's experts, from its bits (T, words)."""
    return [[64 * w + b for w in range(row.size) for b in range(64) if int(row[w]) >> b & 1] for row in words]


def words_of(experts, n_experts):
    words = np.zeros((len(experts), -(-n_experts // 64)), np.uint64)
    for row, chosen in zip(words, experts, strict=True):
        for e in chosen:
            row[e // 64] |= np.uint64(1 << e % 64)
    return words


def noise(token, expert):
    """Philox2x32 with four rounds (Salmon et al. 2011) in Python integers, as a number in [-1/2, 1/2)."""
    left, right, key = token, expert, 0x9E3779B9
    for _ in range(4):
        high, low = divmod(0xD256D193 * left, 1 << 32)
        left, right, key = high ^ key ^ right, low, (key + 0x9E3779B9) % (1 << 32)
    return left / 2**32 - 0.5


def perturbed(scores, amplitude):
    """Scores with the noise that breaks ties."""
    n_tokens, n_experts = scores.shape
    return scores + amplitude * np.array([[noise(i, e) for e in range(n_experts)] for i in range(n_tokens)])


def quarters(rng, shape, levels=6):
    return rng.integers(-levels, levels + 1, shape) / 4


def masked(rng, scores, k):
    """The scores with masks: a third of the tokens keep exactly K experts, others lose a few."""
    scores = scores.copy()
    n_experts = scores.shape[1]
    for row in scores:
        hidden = n_experts - k if rng.random() < 1 / 3 else int(rng.integers(0, n_experts - k + 1))
        row[rng.permutation(n_experts)[:hidden]] = -np.inf
    return scores


def near_ties(scores, price, k, width):
    n_experts = scores.shape[1]
    ties = np.zeros((n_experts, n_experts), np.int64)
    for row in scores + price:
        _, kth, following, least, best_left = naive.boundary(row, k)
        if least - best_left <= width:
            ties[kth, following] += 1
    return ties


def collect(scores, k, price, width=ALL, amplitude=0.0, words=None):
    """All tokens' candidates, loads and words; given ``words`` are kept."""
    n_tokens, n_experts = scores.shape
    loads = np.zeros(n_experts, np.int64)
    keep = words is not None
    if words is None:
        words = np.zeros((n_tokens, -(-n_experts // 64)), np.uint64)
    found = collect_part(scores, k, price, width, amplitude, 0, n_tokens, loads, words, keep)
    return found, loads, words


def value_of(scores, experts):
    return math.fsum(scores[i, e] for i, chosen in enumerate(experts) for e in chosen)


def most_violated(scores, experts, price):
    """The most by which an unchosen expert beats a chosen one at the price: over all pairs of all tokens."""
    worst = -math.inf
    for row, chosen in zip(scores + price, experts, strict=True):
        for a in chosen:
            for b in set(range(row.size)) - set(chosen):
                worst = max(worst, row[b] - row[a])
    return worst


def optimum(scores, k, low, high):
    """Value of the best assignment whose loads are within limits, by HiGHS; minus infinity without one."""
    n_tokens, n_experts = scores.shape
    rows = np.kron(np.eye(n_tokens), np.ones(n_experts))
    columns = np.kron(np.ones(n_tokens), np.eye(n_experts))
    allowed = np.isfinite(scores).ravel()
    result = linprog(
        -np.where(allowed, scores.ravel(), 0.0),
        A_eq=rows,
        b_eq=np.full(n_tokens, k),
        A_ub=np.concatenate([columns, -columns]),
        b_ub=np.concatenate([high, -np.asarray(low)]),
        bounds=np.stack([np.zeros(allowed.size), allowed], axis=1),
    )
    return -result.fun if result.status == 0 else -math.inf
