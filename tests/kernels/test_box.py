"""The box itself: that it covers what it says, that its twin is the naive one, that poison arrives."""

import numpy as np
import pytest

from balancesim.kernels.jit import kernel
from balancesim.kernels.model import LANES
from tests import naive
from tests.conftest import INTERPRETED
from tests.kernels import box
from tests.kernels.instances import experts_of


@kernel
def scratch(n_ranks, n_lanes):
    return np.empty((n_ranks, n_lanes), np.float32), np.empty(n_lanes, np.int64), np.empty(n_lanes)


@pytest.mark.parametrize("byte", box.POISONS)
def test_kernels_are_given_poisoned_scratch(byte):
    with box.poisoned(byte) as is_poisoned:
        if not is_poisoned:
            pytest.skip("memory is poisoned through glibc's mallopt only")
        parts = scratch(8, 4 * LANES)  # what malloc keeps at hand is smaller
        assert all((part.view(np.uint8) == byte).all() for part in parts)


@pytest.mark.skipif(INTERPRETED, reason="a few shapes are left where kernels are interpreted")
def test_the_design_covers_every_expert_count_and_batch_size():
    shapes, n_cases = set(), 0
    for kind in box.KINDS:
        own = {}
        for case in box.cases(kind):
            n_tokens, n_experts = case.twin.scores.shape
            own.setdefault((n_experts, n_tokens, case.twin.scores.dtype), set()).add(case.k)
        n_cases += sum(map(len, own.values()))
        assert [n for n, _, _ in own] == list(range(2, 131))
        assert all(ks == set(box.ranks(n)) for (n, _, _), ks in own.items())
        # Every kind and dtype crosses every border of a tile.
        for dtype in box.DTYPES:
            met = {n_tokens for _, n_tokens, made in own if made == dtype}
            assert {1, LANES - 1, LANES, LANES + 1, 2 * LANES - 1, 2 * LANES, 2 * LANES + 1} < met
        shapes |= set(own)
    assert {t for _, t, _ in shapes} == set(range(1, 301))
    assert n_cases == 8 * 1461
    assert {box.tokens(index, LANES) for index in range(4 * LANES)} == set(range(1, LANES + 1))


@pytest.mark.parametrize("dtype", box.DTYPES)
@pytest.mark.parametrize("kind", box.KINDS)
def test_the_twin_is_the_naive_one(kind, dtype):
    for n_experts, n_tokens in ((2, 3), (9, 5), (17, 20)):
        for case in box.at(kind, dtype, n_experts, n_tokens, box.ranks(n_experts), 0):
            scores, bias = case.twin.scores, case.twin.bias
            assert np.isfinite(bias).all()
            assert ((scores > -np.inf).sum(axis=1) >= case.k).all()
            assert (np.isfinite(case.twin.biased) == np.isfinite(scores)).all()
            marks = case.twin.chosen(case.k)
            expected = naive.choose(scores, bias, case.k)
            assert [np.flatnonzero(row).tolist() for row in marks] == expected
            assert experts_of(box.words_of(marks)) == expected
            sums = naive.top_sums(scores, bias, case.k)
            # Each of T K additions rounds by half an ulp of what is added so far.
            n = n_tokens * case.k
            scale = n * float(np.abs(case.twin.ranked[:, : case.k].astype(np.float64)).max())
            assert abs(case.twin.values(case.k).sum() - sum(sums)) <= n * np.finfo(float).eps * scale


def test_scores_are_what_they_are_called():
    for dtype in box.DTYPES:
        limits, rng = np.finfo(dtype), np.random.default_rng(0)
        made = {kind: box.scores_of(kind, rng, 300, 130, dtype)[0] for kind in box.KINDS}
        assert (np.abs(made["denormal"]) < limits.tiny).all()
        assert np.unique(made["denormal"]).size == 17
        gaps = np.diff(np.unique(made["near"]))
        assert (gaps < limits.tiny).all()
        assert (gaps > 0).all()
        assert np.unique(np.signbit(made["zeros"][made["zeros"] == 0])).size == 2
        assert np.abs(made["huge"]).min() >= (1e38 if dtype == np.float32 else 1e300) * (1 - limits.eps)
        exponents = np.log10(np.abs(made["magnitudes"]).astype(np.longdouble))
        assert np.ptp(exponents.astype(float)) > (75 if dtype == np.float32 else 600)
