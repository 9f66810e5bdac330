"""Price updates against the definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancesim.balancers.alf_lb import project
from tests import naive


@given(st.lists(st.integers(-40, 40).map(lambda q: q / 4), min_size=2, max_size=12), st.integers(1, 20))
def test_project_equals_naive(values, quarter):
    radius = quarter / 4
    price = np.array(values)
    expected = naive.project(price - price.mean(), radius)
    projected = price - price.mean()
    project(projected, radius)
    np.testing.assert_allclose(projected, expected, atol=1e-12)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12), st.floats(1e-3, 1e3))
def test_projection_is_feasible_and_no_farther_than_others(values, radius):
    price = np.array(values)
    projected = price.copy()
    project(projected, radius)
    scale = max(1.0, float(np.abs(price).max()), radius)
    assert np.abs(projected).max() <= radius
    assert abs(projected.sum()) <= 1e-12 * scale * price.size
    # The projection's obtuse-angle condition against the vertices' mixtures p = 0 and a scaled price.
    for other in (np.zeros(price.size), np.clip(price - price.mean(), -radius, radius) * 0.5):
        other = other - other.mean()
        if np.abs(other).max() <= radius:
            assert (price - projected) @ (other - projected) <= 1e-9 * scale**2 * price.size


def test_projection_of_an_infinite_price_stops():
    price = np.array([math.inf, 0.0])
    with np.errstate(invalid="ignore"):  # NumPy's scalars warn where the JIT does not
        project(price, 1.0)
    assert not np.isfinite(price).all() or np.abs(price).max() <= 1.0


@pytest.mark.parametrize("radius", [0.25, 1.0])
def test_already_inside_stays(radius):
    price = np.array([0.25, -0.25, 0.0])
    projected = price.copy()
    project(projected, radius)
    np.testing.assert_allclose(projected, price, atol=1e-15)
