"""Gradients by differences against a derivative that is known, and choices against routing."""

import numpy as np

import balancesim as bs
from paper_checks.choices import marks
from paper_checks.differences import gradient_by_differences


def test_gradient_of_a_smooth_function():
    at = np.random.default_rng(1).normal(size=(3, 2))
    found = gradient_by_differences(lambda x: float(np.exp(x).sum() + x[0, 1] * x[2, 0]), at)
    expected = np.exp(at)
    expected[0, 1] += at[2, 0]
    expected[2, 0] += at[0, 1]
    # Errors of h^4 = 1e-12 times fifth derivatives, and of rounding / h = 1e-13 times values near 10.
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_marks_are_what_routing_chooses():
    scores = np.random.default_rng(2).normal(size=(100, 7))
    found = marks(scores, 3)
    experts = bs.route(scores, np.zeros(7), k=3, experts=True).experts
    np.testing.assert_array_equal(np.sort(np.nonzero(found)[1].reshape(100, 3)), np.sort(experts))
    assert set(np.unique(found)) == {0.0, 1.0}
