"""The running top-K, counting and tie repair against the naive twin."""

import numpy as np
import pytest
from hypothesis import given

from balancesim.batches import padded
from balancesim.kernels.choices import NO_GROUPS
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.route import fill_blocks, route_blocks, route_tokens
from tests import naive
from tests.conftest import INTERPRETED
from tests.kernels import box
from tests.strategies import batches

EXPONENT = {
    np.dtype(np.float32): np.array([0x7F800000], np.int32),
    np.dtype(np.float64): np.array([0x7FF << 52]),
}
UNTOUCHED = 0x7F7F7F7F


def route(scores, bias, k, experts=True):
    loads = np.zeros(scores.shape[1], np.int64)
    chosen = np.full((scores.shape[0] if experts else 0, k), -1)
    values = np.full(-(-len(scores) // LANES), np.nan)
    prices = padded(bias.astype(scores.dtype))
    exponent = EXPONENT[scores.dtype]
    contiguous = np.ascontiguousarray(scores)
    route_tokens(contiguous, prices, k, NO_GROUPS, 0, len(scores), loads, values, chosen, exponent)
    return loads, values.sum(), chosen


def route_laid_out(scores, bias, k):
    n_tokens, n_experts = scores.shape
    tiles = np.full((-(-n_tokens // LANES), n_rows(n_experts), LANES), np.nan, scores.dtype)
    tiles[-1] = -np.inf
    fill_blocks(np.ascontiguousarray(scores), 0, n_tokens, tiles, EXPONENT[scores.dtype])
    loads, chosen = np.zeros(n_experts, np.int64), np.full((n_tokens, k), -1)
    values = np.full(len(tiles), np.nan)
    prices = padded(bias.astype(scores.dtype))
    route_blocks(tiles, prices, k, n_experts, n_tokens, 0, n_tokens, loads, values, chosen)
    return loads, values.sum(), chosen


def check(scores, bias, k):
    loads, value, chosen = route(scores, bias, k)
    again = route_laid_out(scores, bias, k)
    assert again[0].tolist() == loads.tolist()
    assert again[1] == value
    assert again[2].tolist() == chosen.tolist()
    expected = naive.choose(scores, bias, k)
    assert chosen.tolist() == expected
    assert loads.tolist() == naive.loads_of(expected, scores.shape[1])
    sums = naive.top_sums(scores, bias, k)
    # Each addend is exact in float64; T K additions round by half an ulp of the running sum.
    assert value == pytest.approx(sum(sums), abs=1e-15 * len(sums) * k * max(1.0, float(np.abs(sums).max())))


@given(batches(masks=True))
def test_equals_naive_with_ties(batch):
    check(*batch)


EXPERTS = (2, 3, 9, 17) if INTERPRETED else (2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65)
TOKENS = (1, 9) if INTERPRETED else (1, 7, 8, 9, LANES - 1, LANES, LANES + 1, 2 * LANES + 3)


@pytest.mark.parametrize("n_experts", EXPERTS)
@pytest.mark.parametrize("n_tokens", TOKENS)
def test_every_k_across_block_borders(n_experts, n_tokens):
    rng = np.random.default_rng(n_experts * 1000 + n_tokens)
    ranks = range(1, n_experts) if n_experts <= 17 else (1, 2, 3, 5, 8, 9, 16, 17, n_experts - 1)
    for k in ranks:
        scores = rng.integers(-6, 7, (n_tokens, n_experts)) / 4
        check(scores.astype(np.float32 if k % 2 else np.float64), rng.integers(-4, 5, n_experts) / 4, k)


def test_all_scores_tied():
    scores = np.zeros((5, 10), np.float32)
    loads, _, chosen = route(scores, np.zeros(10), 3)
    assert loads.tolist() == [5, 5, 5] + [0] * 7
    assert chosen.tolist() == [[0, 1, 2]] * 5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_heavy_tails_and_extremes(dtype):
    rng = np.random.default_rng(3)
    scores = (rng.pareto(0.5, (60, 12)) * rng.choice([-1, 1], (60, 12))).astype(dtype)
    scores[0, :3] = np.finfo(dtype).max * np.array([0.5, -0.5, 0.25], dtype)
    scores[1, :3] = np.finfo(dtype).tiny * np.array([1, 0.5, 0], dtype)
    for k in (1, 2, 5, 8, 11):
        assert route(scores, np.zeros(12), k)[2].tolist() == naive.choose(scores, np.zeros(12), k)


def test_without_experts_gives_the_same():
    scores = np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32)
    with_experts, without = route(scores, np.zeros(20), 4), route(scores, np.zeros(20), 4, experts=False)
    assert (with_experts[0] == without[0]).all()
    assert with_experts[1] == without[1]


def route_in_box(case, *, experts, laid_out, first=0):
    """What is written for tokens ``first ..``, and that nothing else is."""
    scores, k = case.twin.scores, case.k
    n_tokens, n_experts = scores.shape
    exponent, prices = EXPONENT[scores.dtype], padded(case.twin.bias)
    loads = np.full(n_experts, UNTOUCHED)
    chosen = np.full((n_tokens if experts else 0, k), UNTOUCHED)
    values = np.full(-(-n_tokens // LANES) + 1, np.nan)
    if laid_out:
        tiles = np.empty((values.size - 1, n_rows(n_experts), LANES), scores.dtype)
        special = fill_blocks(scores, 0, n_tokens, tiles, exponent)
        route_blocks(tiles, prices, k, n_experts, n_tokens, first, n_tokens, loads, values, chosen)
    else:
        special = route_tokens(scores, prices, k, NO_GROUPS, first, n_tokens, loads, values, chosen, exponent)
    n_before = first // LANES
    assert special == (scores == -np.inf)[0 if laid_out else first :].any(), case.name
    assert (chosen[:first] == UNTOUCHED).all(), case.name
    assert np.isnan(values[[*range(n_before), -1]]).all(), case.name
    return loads - UNTOUCHED, values[n_before:-1], chosen[first:]


def check_in_box(case, forms, first=0):
    """Bit for bit: choice, loads, and sums in the order of addition."""
    marks = case.twin.chosen(case.k)[first:]
    loads, values = marks.sum(axis=0).tolist(), case.twin.values(case.k)[first // LANES :].tolist()
    listed = np.nonzero(marks)[1].reshape(-1, case.k)
    for experts, laid_out in forms:
        found = route_in_box(case, experts=experts, laid_out=laid_out, first=first)
        assert found[0].tolist() == loads, case.name
        assert found[1].tolist() == values, case.name
        assert (found[2] == listed[: len(found[2])]).all(), case.name


# Whether experts are asked for, and whether the scores lie in tiles: two of the four at a time.
FORMS = ([(False, False), (True, True)], [(True, False), (False, True)])


@pytest.mark.parametrize("kind", box.KINDS)
def test_equals_sorting_over_the_box(kind):
    for n, case in enumerate(box.cases(kind)):
        check_in_box(case, FORMS[n % 2])
        last_tile = (case.twin.scores.shape[0] - 1) // LANES * LANES
        if last_tile > 0:
            check_in_box(case, FORMS[n % 2][n % 4 // 2 :][:1], last_tile)


@pytest.mark.deep
@pytest.mark.parametrize("share", range(8))
def test_equals_sorting_all_over_the_box(share, record_property):
    """Every E and T with every K up to E = 17, from there on with every eighth: with every K for other Ts."""
    n_shapes = 0
    for n_experts in box.EXPERTS:
        for n_tokens in range(1 + (share + n_experts) % 8, box.MAX_TOKENS + 1, 8):
            # Any E and K meet every T mod 8: these eighths are no diagonals.
            eighth = (n_experts + n_tokens + n_tokens // 8) % 8
            ks = range(1, n_experts) if n_experts <= 17 else range(1 + eighth, n_experts, 8)
            turn = n_tokens // 8 + 7 * n_experts
            for case in box.at(box.KINDS[turn % 8], None, n_experts, n_tokens, ks, turn // 8 + n_experts):
                form = (case.k // 8 + n_tokens) % 4
                check_in_box(case, FORMS[form % 2][form // 2 :][:1])
                n_shapes += 1
    record_property("counted", f"routed: {n_shapes} shapes, share {share + 1} of 8 of the box of E, K and T")
