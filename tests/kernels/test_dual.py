"""One pass of the dual against plain counting."""

import numpy as np
import pytest

from balancesim import sources
from balancesim.batches import padded
from balancesim.kernels.dual import dual_pass
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.scores import draw_pointer
from tests import naive

WIDTH = 0.2


def near_ties(scores, bias, k):
    """Tokens whose K-th and next biased scores are within the width, by the pair of experts."""
    counts = np.zeros((scores.shape[1],) * 2, np.int64)
    for row in scores + bias:
        order = sorted(range(row.size), key=lambda e: -row[e])
        if row[order[k - 1]] - row[order[k]] < WIDTH:
            counts[order[k - 1], order[k]] += 1
    return counts


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize(
    "source", [sources.Normal(n_experts=10), sources.Pareto(n_experts=9, tail_index=0.1)]
)
def test_equals_plain_counting(source, k):
    n_tokens, n_steps = 20, 2
    n_experts = source.n_experts
    dtype = source.batch(0, 1).dtype
    bias = np.linspace(-0.5, 0.5, n_experts).astype(dtype)
    loads = np.zeros(n_experts, np.int64)
    products = np.zeros((n_experts, n_experts))
    counts = np.zeros((n_experts, n_experts), np.int64)
    tile = np.zeros((n_rows(n_experts), LANES), dtype)
    n_near, candidates = dual_pass(
        draw_pointer(source.kernel_model(), dtype), source.kernel_model(), tile, 0, n_steps - 1, n_tokens, k,
        padded(bias), WIDTH, WIDTH, loads, products, counts,
    )  # fmt: skip
    scores = np.concatenate([source.batch(step, n_tokens) for step in range(n_steps)])
    assert loads.tolist() == naive.loads_of(naive.choose(scores, bias, k), n_experts)
    each = np.array([naive.loads_of(naive.choose(s, bias, k), n_experts) for s in (scores[:20], scores[20:])])
    violations = each / n_tokens - k / n_experts
    np.testing.assert_allclose(products, violations.T @ violations, atol=1e-14)
    assert (counts == near_ties(scores, bias, k)).all()
    assert n_near == counts.sum() == candidates.token.size
    assert n_near > 0 or source.name == "pareto"
    entry = np.repeat(candidates.token, np.diff(candidates.start))
    assert (candidates.score == scores[entry, candidates.expert]).all()


def test_collects_nothing_unless_asked():
    source = sources.Normal(n_experts=4)
    tile = np.zeros((n_rows(4), LANES), np.float32)
    _, candidates = dual_pass(
        draw_pointer(source.kernel_model(), tile.dtype), source.kernel_model(), tile, 0, 0, 50, 1,
        padded(np.zeros(4, np.float32)), 1e9, -1.0, np.zeros(4, np.int64), np.zeros((4, 4)),
        np.zeros((4, 4), np.int64),
    )  # fmt: skip
    assert candidates.token.size == candidates.expert.size == 0
