"""Scalar potentials: the identities that compiled rules rely on, at zero, inside and off the domain."""

import math

import numpy as np
import pytest

from balancesim.kernels import potentials as kernels

CASES = [
    (kernels.NEGATIVE_ENTROPY, 0.0),
    (kernels.SQUARED_NORM, 0.0),
    (kernels.P_NORM, 1.5),
    (kernels.P_NORM, 3.0),
    (kernels.TSALLIS, 0.5),
    (kernels.TSALLIS, 2.5),
    (kernels.LOG_BARRIER, 0.0),
]
each = pytest.mark.parametrize(("code", "parameter"), CASES)
POINTS = np.array([1e-3, 0.1, 0.4, 2.0])


def inverse_error(code, parameter, m):
    """What rounding v by some units changes m by, relative: eps |v| / (m f''), large for Tsallis q > 1."""
    v = kernels.gradient_at(code, parameter, m)
    return 1e-14 + 1e-15 * abs(v) / (m * kernels.curvature_at(code, parameter, m))


@each
def test_scalars_are_a_conjugate_pair(code, parameter):
    for m in POINTS:
        v = kernels.gradient_at(code, parameter, m)
        error = inverse_error(code, parameter, m)
        assert kernels.conjugate_gradient_at(code, parameter, v) == pytest.approx(m, rel=error)
        sum_of_both = kernels.value_at(code, parameter, m) + kernels.conjugate_at(code, parameter, v)
        assert sum_of_both == pytest.approx(m * v, rel=1e-11, abs=1e-12)
        # A central difference of f' over a relative step of 1e-5: its own error is 1e-10, rounding 1e5-fold.
        h = 1e-5 * m
        rise = kernels.gradient_at(code, parameter, m + h) - kernels.gradient_at(code, parameter, m - h)
        assert kernels.curvature_at(code, parameter, m) == pytest.approx(
            rise / (2 * h), rel=1e-9 + 1e5 * error
        )


@each
def test_limits(code, parameter):
    steep = bool(kernels.unbounded_at_zero(code, parameter))
    at_zero = kernels.gradient_at(code, parameter, 0.0)
    assert math.isinf(at_zero) == steep
    assert kernels.conjugate_gradient_at(code, parameter, -1e300) <= 1e-100
    bent = steep or (code == kernels.P_NORM and parameter < 2.0)
    assert math.isinf(kernels.curvature_at(code, parameter, 0.0)) == bent
    for never in {kernels.LOG_BARRIER: [0.0, 1.0], kernels.TSALLIS: [2.0, 3.0]}.get(code, []):
        if steep:
            assert math.isinf(kernels.conjugate_at(code, parameter, never))


@each
def test_divergence_is_the_definition(code, parameter):
    for a in (0.0, 0.099, 0.1, 0.11, 2.0):
        expected = (
            kernels.value_at(code, parameter, a)
            - kernels.value_at(code, parameter, 0.1)
            - kernels.gradient_at(code, parameter, 0.1) * (a - 0.1)
        )
        # The definition's own cancellation: terms of order one.
        assert kernels.divergence_at(code, parameter, a, 0.1) == pytest.approx(expected, rel=1e-9, abs=1e-14)
    assert kernels.divergence_at(code, parameter, 0.0, 0.0) == 0.0


@each
def test_arrays_go_through_the_scalars(code, parameter):
    out = np.empty(4)
    kernels.write_gradient(code, parameter, POINTS, out)
    v = out.copy()
    assert v.tolist() == [kernels.gradient_at(code, parameter, m) for m in POINTS]
    kernels.write_conjugate_gradient(code, parameter, v, out)
    for m, found in zip(POINTS, out, strict=True):
        assert found == pytest.approx(m, rel=inverse_error(code, parameter, m))
    kernels.write_curvature(code, parameter, POINTS, out)
    assert out.tolist() == [kernels.curvature_at(code, parameter, m) for m in POINTS]
    values = [kernels.value_at(code, parameter, m) for m in POINTS]
    assert kernels.value_of(code, parameter, POINTS) == pytest.approx(sum(values), rel=1e-14)
    conjugates = [kernels.conjugate_at(code, parameter, at) for at in v]
    assert kernels.conjugate_of(code, parameter, v) == pytest.approx(sum(conjugates), rel=1e-14)
    shifted = POINTS[::-1].copy()
    parts = [kernels.divergence_at(code, parameter, a, b) for a, b in zip(POINTS, shifted, strict=True)]
    assert kernels.divergence_of(code, parameter, POINTS, shifted) == pytest.approx(sum(parts), rel=1e-14)
