"""What makes an assignment optimal, token by token, against plain loops; malformed rows are told."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancesim.kernels.certificate import BAD_ROWS, N_TALLIES, VIOLATED, certify_part
from balancesim.kernels.model import LANES
from tests import naive
from tests.conftest import INTERPRETED
from tests.kernels.instances import masked, quarters, value_of
from tests.strategies import batches

UNTOUCHED = -77.0


class Found:
    def __init__(self, scores, k, price, experts, parts=None):
        n_tokens, n_experts = scores.shape
        self.loads = np.zeros(n_experts, np.int64)
        self.slack = np.full((n_experts, 2), np.inf)
        self.tally, worst = np.zeros(N_TALLIES, np.int64), np.zeros(1)
        self.values = np.full(-(-n_tokens // LANES) + 1, UNTOUCHED)
        self.excess = self.values.copy()
        self.spread = np.full(n_tokens, UNTOUCHED)
        rows = np.ascontiguousarray(experts, np.int64)
        for first, last in parts or [(0, n_tokens)]:
            certify_part(
                scores, k, price, rows, first, last, self.loads, self.values, self.excess, self.spread,
                self.slack, self.tally, worst,
            )  # fmt: skip
        self.worst = float(worst[0])


def expected_slack(scores, price, experts):
    """How far each price may fall and rise: leads of the chosen, lags of the others."""
    slack = np.full((price.size, 2), math.inf)
    for row, chosen in zip(scores + price, experts, strict=True):
        others = sorted(set(range(price.size)) - set(chosen))
        for e in chosen:
            slack[e, 0] = min(slack[e, 0], row[e] - row[others].max())
        for e in others:
            slack[e, 1] = min(slack[e, 1], row[list(chosen)].min() - row[e])
    return slack


def check(scores, k, price, experts, parts=None):
    """Any K different experts a token; scores and prices in quarters, so that every sum is exact."""
    found = Found(scores, k, price, experts, parts)
    n_tokens, n_experts = scores.shape
    assert found.loads.tolist() == naive.loads_of(experts, n_experts)
    masks = [any(scores[i, e] == -math.inf for e in chosen) for i, chosen in enumerate(experts)]
    assert found.tally[BAD_ROWS] == sum(masks)
    low, high = np.zeros(n_experts, int), np.full(n_experts, n_tokens)
    twin = naive.certificate(scores, k, low, high, experts, price)
    assert found.worst == twin["slackness_violation"]
    assert found.tally[VIOLATED] == twin["n_violated"]
    assert (found.slack == expected_slack(scores, price, experts)).all()
    tops = naive.top_sums(scores, price, k)
    for tile in range(found.values.size - 1):
        tokens = range(LANES * tile, min(LANES * (tile + 1), n_tokens))
        value = value_of(scores[tokens], [experts[i] for i in tokens])
        assert found.values[tile] == value
        paid = sum(float(price[e]) for i in tokens for e in experts[i])
        assert found.excess[tile] == math.fsum(tops[i] for i in tokens) - value - paid
    assert found.values[-1] == found.excess[-1] == UNTOUCHED
    return found


SHAPES = [(5, 2, 1), (LANES + 2, 3, 2), (7, 9, 4), (3, 65, 64)]
if not INTERPRETED:
    SHAPES += [(1, 8, 3), (LANES - 1, 17, 9), (LANES, 63, 2), (9, 64, 8), (2 * LANES + 1, 130, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_routed_tokens_prove_themselves(shape):
    n_tokens, n_experts, k = shape
    rng = np.random.default_rng(shape)
    scores, price = masked(rng, quarters(rng, (n_tokens, n_experts)), k), quarters(rng, n_experts)
    found = check(scores, k, price, naive.choose(scores, price, k))
    assert found.worst == 0.0
    assert found.tally.tolist() == [0, 0]
    assert (found.excess[:-1] == 0.0).all()
    assert found.slack.min() >= 0.0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_other_choices_of_k_experts(shape):
    n_tokens, n_experts, k = shape
    rng = np.random.default_rng(shape)
    scores, price = quarters(rng, (n_tokens, n_experts)), quarters(rng, n_experts)
    experts = [sorted(rng.permutation(n_experts)[:k].tolist()) for _ in range(n_tokens)]
    found = check(scores, k, price, experts)
    assert found.tally[VIOLATED] > 0
    assert found.slack.min() == -found.worst < 0.0
    # The order in which a token's experts are listed says nothing.
    again = Found(scores, k, price, [chosen[::-1] for chosen in experts])
    for part in ("loads", "slack", "tally", "values", "excess", "worst"):
        assert np.array_equal(getattr(again, part), getattr(found, part)), part


@given(batches(max_tokens=12, max_experts=7, masks=True), st.data())
def test_equals_its_twin_with_ties(batch, data):
    scores, price = batch.scores.astype(np.float64), batch.bias.astype(np.float64)
    experts = naive.choose(scores, price, batch.k)
    i = data.draw(st.integers(0, len(scores) - 1))
    unmasked = np.flatnonzero(scores[i] > -np.inf).tolist()
    experts[i] = sorted(data.draw(st.permutations(unmasked))[: batch.k])
    check(scores, batch.k, price, experts)


def test_parts_add_up():
    rng = np.random.default_rng(0)
    n_tokens = 2 * LANES + 9
    scores, price = quarters(rng, (n_tokens, 6)), quarters(rng, 6)
    experts = [sorted(rng.permutation(6)[:2].tolist()) for _ in range(n_tokens)]
    whole = check(scores, 2, price, experts)
    parts = check(scores, 2, price, experts, parts=[(LANES, n_tokens), (0, LANES)])
    assert (whole.slack == parts.slack).all()


def test_one_token_at_the_second_best():
    scores = np.array([[3.0, 2.0, 0.0], [0.0, 1.0, 4.0]])
    for experts, worst, excess in (([[0], [2]], 0.0, 0.0), ([[1], [2]], 1.0, 1.0), ([[2], [1]], 3.0, 6.0)):
        found = check(scores, 1, np.zeros(3), experts)
        assert found.worst == worst
        assert found.excess[0] == excess
    assert check(scores, 1, np.array([0.0, 1.0, 0.0]), [[1], [2]]).worst == 0.0


def test_rounding_is_no_violation():
    """Beyond four units in the last place of the scores it is."""
    scores = np.array([[1.0, 1.0]])
    for units, violated in ((0, 0), (4, 0), (6, 1)):
        scores[0, 1] = 1.0 + units * 2.0**-52
        found = Found(scores, 1, np.zeros(2), [[0]])
        assert found.tally[VIOLATED] == violated
        assert found.worst == units * 2.0**-52


MALFORMED = {
    "repeated": ([1, 1], {1}),
    "past the last": ([1, 6], {1}),
    "far past the last": ([1 << 40, 0], {0}),
    "negative": ([-1, 3], {3}),
    "none": ([-5, 99], set()),
    "masked": ([0, 5], {0, 5}),
}


@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.parametrize("place", [0, 3, LANES + 1])
def test_malformed_rows_are_told(kind, place):
    """One bad row: it is counted, counts the experts that it has, and leaves the other tokens alone."""
    rng = np.random.default_rng(1)
    scores, price = rng.standard_normal((LANES + 3, 6)), 0.1 * rng.standard_normal(6)
    row, members = MALFORMED[kind]
    scores[:, 5] = np.where(np.arange(len(scores)) == place, -np.inf, scores[:, 5])
    experts = naive.choose(scores, price, 2)
    good = Found(scores, 2, price, experts)
    assert good.tally.tolist() == [0, 0]
    others = [chosen for i, chosen in enumerate(experts) if i != place]
    bad = Found(scores, 2, price, [row if i == place else chosen for i, chosen in enumerate(experts)])
    assert bad.tally[BAD_ROWS] == 1
    assert bad.loads.tolist() == naive.loads_of([*others, sorted(members)], 6)
    tile = place // LANES
    assert bad.values[1 - tile] == good.values[1 - tile]
    assert bad.excess[1 - tile] == good.excess[1 - tile]
    change = sum(scores[place, e] for e in row if 0 <= e < 6) - scores[place, experts[place]].sum()
    assert bad.values[tile] - good.values[tile] == pytest.approx(change, abs=1e-12)


def test_every_malformed_row_counts_once():
    rng = np.random.default_rng(2)
    scores = rng.standard_normal((len(MALFORMED) + 2, 6))
    scores[:-2, 5] = -np.inf
    rows = [row for row, _ in MALFORMED.values()]
    experts = rows + naive.choose(scores, np.zeros(6), 2)[-2:]
    assert Found(scores, 2, np.zeros(6), experts).tally[BAD_ROWS] == len(MALFORMED)
    with_word = rng.standard_normal((4, 130))
    for e in (0, 63, 64, 129):
        assert Found(with_word, 2, np.zeros(130), [[e, e], [e, 1], [e, 130], [1, e]]).tally[BAD_ROWS] == 2
