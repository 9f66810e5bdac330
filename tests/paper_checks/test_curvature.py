"""What S1's and S3's checks measure against: expected loads, domains, expected counts."""

import numpy as np
import pytest
from scipy import special

from balancesim import sources
from balancesim.theory import curvature, estimate_curvature
from paper_checks.primal_dual import curvature as hessians
from paper_checks.primal_dual import curvature_estimates as counts


def test_expected_loads_sum_to_k_and_balance_at_the_minimiser():
    place = hessians.Place(sources.Gumbel(n_experts=6), 2, np.linspace(-0.5, 0.5, 6))
    loads = hessians._expected_loads(place, place.bias)
    assert loads.sum() == pytest.approx(2.0, abs=1e-12)
    assert (np.diff(loads) > 0.0).all()
    np.testing.assert_allclose(hessians._expected_loads(place, np.zeros(6)), 1 / 3, atol=1e-12)


def test_biases_stay_in_the_domain():
    rng = np.random.default_rng(0)
    for row in 3.0 * rng.standard_normal((50, 5)):
        inside = hessians._into_domain(row, 0.7)
        assert abs(inside.sum()) < 1e-12
        assert np.abs(inside).max() <= 0.7 * (1 + 1e-12)


@pytest.mark.parametrize("expected", counts._EXPECTED, ids=counts.METHODS)
def test_expected_counts_start_at_the_trace(expected):
    trace = np.trace(curvature(sources.Logistic(n_experts=8), 2))
    assert expected(1e-6) == pytest.approx(trace, rel=1e-5)


def test_slope_of_the_naive_count():
    # theory.md, S3: -E(E-1)/4 times the integral of f^3 (E-2) [Q(K-2) + Q(K-1)], Q of E-3 others.
    z = np.linspace(-40.0, 40.0, 8001)
    below = special.expit(z)
    density = below * (1 - below)
    q = sum(special.binom(5, m) * (1 - below) ** m * below ** (5 - m) for m in (0, 1))
    slope = -0.25 * 56 * 6 * np.trapezoid(density**3 * q, z)
    trace = np.trace(curvature(sources.Logistic(n_experts=8), 2))
    # The next term is of order w: 1e-3 of the slope at w = 1e-3.
    assert (counts._expected_naive(1e-3) - trace) / 1e-3 == pytest.approx(slope, rel=2e-3)


def test_expected_gaps_are_those_counted():
    scores = sources.Logistic(n_experts=8, seed=61).batch(0, 100_000).astype(float)
    for method, expected in zip(("gap", "difference"), counts._EXPECTED, strict=False):
        found = estimate_curvature(scores, 2, method=method, width=0.7).mean_eigenvalue
        # Five standard errors: a false alarm once in 10^6.
        error = (found.high - found.low) / 3.92
        assert found.value == pytest.approx(expected(0.7) / 7, abs=5 * error)


def test_a_jump_of_the_density_fails_the_order_that_it_must():
    control = counts._jumping(8, 16_384)
    assert control.verdict == "fails"
    # 1 - w/2 exactly: order 1, within five standard errors (a false alarm once in 10^6).
    assert control.value == pytest.approx(1.0, abs=5 * (control.high - control.value) / 1.96)
