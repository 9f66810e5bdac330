"""Elementary functions against correctly rounded ones."""

import math

import mpmath
import numpy as np
import pytest

from balancesim.kernels import elementary
from balancesim.kernels.jit import kernel

FLOATS = {
    np.float32: (
        elementary.log32,
        elementary.minus_log_complement32,
        elementary.exp32,
        elementary.sincos32,
    ),
    np.float64: (
        elementary.log64,
        elementary.minus_log_complement64,
        elementary.exp64,
        elementary.sincos64,
    ),
}


def vectorised(function):
    @kernel
    def loop(arguments, results):
        for i in range(arguments.shape[0]):
            results[i] = function(arguments[i])

    return loop


def evaluate(function, arguments):
    results = np.empty_like(arguments)
    with np.errstate(over="ignore", under="ignore"):  # NumPy's scalars warn where the JIT does not
        vectorised(function)(arguments, results)
    return results


def worst_error(results, arguments, exact):
    """Largest relative error in units of the dtype's epsilon."""
    eps = float(np.finfo(arguments.dtype).eps)
    with mpmath.workdps(40):
        errors = [
            abs((mpmath.mpf(float(r)) - exact(mpmath.mpf(float(x)))) / exact(mpmath.mpf(float(x))))
            for x, r in zip(arguments, results, strict=True)
        ]
    return float(max(errors)) / eps


@pytest.mark.parametrize("real", FLOATS)
def test_log(real):
    exponents = np.linspace(-30.0, 30.0, 401)
    arguments = (2.0**exponents).astype(real)
    # Where the logarithm vanishes its relative error is that of the argument's distance from 1.
    arguments = arguments[np.abs(arguments - 1) > 0.01]
    assert worst_error(evaluate(FLOATS[real][0], arguments), arguments, mpmath.log) < 2.0


@pytest.mark.parametrize("real", FLOATS)
def test_exp(real):
    arguments = np.linspace(-80.0, 80.0, 401).astype(real)
    assert worst_error(evaluate(FLOATS[real][2], arguments), arguments, mpmath.exp) < 2.0


@pytest.mark.parametrize("real", FLOATS)
def test_exp_beyond_the_range(real):
    top = math.log(float(np.finfo(real).max))
    arguments = np.array([top + 1.0, 1e9, -2.0 * top, -1e9, 0.0], real)
    assert evaluate(FLOATS[real][2], arguments).tolist() == [math.inf, math.inf, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("real", FLOATS)
def test_minus_log_complement_at_both_ends(real):
    @kernel
    def loop(small, complement, results):
        for i in range(small.shape[0]):
            results[i] = function(small[i], complement[i])

    function = FLOATS[real][1]
    near_zero = np.array([2.0**-33, 1e-6, 1e-3, 0.1, 0.2499, 0.25, 0.3], real)
    results = np.empty_like(near_zero)
    loop(near_zero, (1 - near_zero.astype(np.float64)).astype(real), results)
    expected = -np.log1p(-near_zero.astype(np.float64))
    # 0.25 .. 0.3 use 1 - w as rounded: an error of eps/2 in it is amplified by 1/((1 - w) |log(1 - w)|) < 5.
    np.testing.assert_allclose(results, expected, rtol=6 * float(np.finfo(real).eps))
    tiny = np.array([2.0**-33, 1e-6, 1e-3], real)
    results = np.empty_like(tiny)
    loop((1 - tiny.astype(np.float64)).astype(real), tiny, results)
    np.testing.assert_allclose(results, -np.log(tiny.astype(np.float64)), rtol=3 * float(np.finfo(real).eps))


@pytest.mark.parametrize("real", FLOATS)
def test_sincos(real):
    @kernel
    def loop(turns, sine, cosine):
        for i in range(turns.shape[0]):
            sine[i], cosine[i] = function(turns[i])

    function = FLOATS[real][3]
    turns = np.linspace(-2.0, 2.0, 403).astype(real)
    sine, cosine = np.empty_like(turns), np.empty_like(turns)
    loop(turns, sine, cosine)
    with mpmath.workdps(40):
        angles = [mpmath.pi / 2 * mpmath.mpf(float(t)) for t in turns]
        # Absolute errors: the results are of order one.
        eps = float(np.finfo(real).eps)
        assert max(abs(float(mpmath.sin(a) - float(s))) for a, s in zip(angles, sine, strict=True)) < 2 * eps
        assert (
            max(abs(float(mpmath.cos(a) - float(c))) for a, c in zip(angles, cosine, strict=True)) < 2 * eps
        )
