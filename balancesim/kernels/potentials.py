"""Scalar potentials of phi-balancing and their conjugates: one source for compiled rules and for Python.

A potential is a sum over experts, phi(m) = sum_k f(m_k) on m >= 0, so that one-dimensional functions, chosen
by an integer code and one parameter, are all there is. At zero and at minus infinity they take their limits.
The conjugate is that on m >= 0: where v lies below f'(0), its maximiser is zero.
"""

import numpy as np

from balancesim.kernels.jit import rule_kernel, strict

NEGATIVE_ENTROPY = 0
SQUARED_NORM = 1
P_NORM = 2
TSALLIS = 3
LOG_BARRIER = 4


@strict
def unbounded_at_zero(code, parameter):
    """Whether f' falls without bound towards zero."""
    return code in (NEGATIVE_ENTROPY, LOG_BARRIER) or (code == TSALLIS and parameter < 1.0)


@strict
def value_at(code, parameter, m):
    """f(m)."""
    if code == NEGATIVE_ENTROPY:
        return m * np.log(m) if m > 0.0 else 0.0
    if code == SQUARED_NORM:
        return 0.5 * m * m
    if code == P_NORM:
        return m**parameter / parameter
    if code == TSALLIS:
        return (m**parameter - m) / (parameter - 1.0)
    return -np.log(m) if m > 0.0 else np.inf


@strict
def gradient_at(code, parameter, m):
    """v = f'(m)."""
    if m <= 0.0 and unbounded_at_zero(code, parameter):
        return -np.inf
    if code == NEGATIVE_ENTROPY:
        return 1.0 + np.log(m)
    if code == SQUARED_NORM:
        return m
    if code == P_NORM:
        return m ** (parameter - 1.0)
    if code == TSALLIS:
        return (parameter * m ** (parameter - 1.0) - 1.0) / (parameter - 1.0)
    return -1.0 / m


@strict
def curvature_at(code, parameter, m):
    """f''(m)."""
    if m <= 0.0 and (unbounded_at_zero(code, parameter) or parameter < 2.0):
        return 1.0 if code == SQUARED_NORM else np.inf
    if code == NEGATIVE_ENTROPY:
        return 1.0 / m
    if code == SQUARED_NORM:
        return 1.0
    if code == P_NORM:
        return (parameter - 1.0) * m ** (parameter - 2.0)
    if code == TSALLIS:
        return parameter * m ** (parameter - 2.0)
    return 1.0 / (m * m)


@strict
def conjugate_gradient_at(code, parameter, v):
    """The m >= 0 that maximises v m - f(m); infinite where that grows for ever."""
    if code == NEGATIVE_ENTROPY:
        return np.exp(v - 1.0)
    if code == SQUARED_NORM:
        return max(v, 0.0)
    if code == P_NORM:
        return max(v, 0.0) ** (1.0 / (parameter - 1.0))
    if code == TSALLIS:
        base = (1.0 + (parameter - 1.0) * v) / parameter
        if base > 0.0:
            return base ** (1.0 / (parameter - 1.0))
        return 0.0 if parameter > 1.0 else np.inf
    return -1.0 / v if v < 0.0 else np.inf


@strict
def conjugate_at(code, parameter, v):
    """The largest v m - f(m) over m >= 0; infinite where there is none."""
    if code == LOG_BARRIER:
        return -1.0 - np.log(-v) if v < 0.0 else np.inf
    m = conjugate_gradient_at(code, parameter, v)
    if code == NEGATIVE_ENTROPY:
        return m
    if code == SQUARED_NORM:
        return 0.5 * m * m
    if code == P_NORM:
        return m**parameter * (1.0 - 1.0 / parameter)
    return m**parameter


@strict
def divergence_at(code, parameter, a, b):
    """f(a) - f(b) - f'(b)(a - b), in forms that do not subtract near-equal values; b > 0 where f'(0) is not.

    With s = a/b and r = s - 1: entropy b (s ln s - r), log barrier r - ln s, and the powers
    b^p (s^p - 1 - p r) times a factor. Each loses digits for small r, where its series is summed.
    """
    if code == SQUARED_NORM:
        return 0.5 * (a - b) * (a - b)
    if a == b:
        return 0.0
    if b == 0.0:
        return value_at(code, parameter, a) - gradient_at(code, parameter, b) * a
    s, r = a / b, (a - b) / b
    if abs(r) < 0.125:
        return curvature_at(code, parameter, b) * b * b * _small_divergence(code, parameter, r)
    if code == NEGATIVE_ENTROPY:
        return b * (value_at(code, parameter, s) - r)
    if code == LOG_BARRIER:
        return r + value_at(code, parameter, s)
    excess = b**parameter * (s**parameter - 1.0 - parameter * r)
    return excess / parameter if code == P_NORM else excess / (parameter - 1.0)


@strict
def _small_divergence(code, parameter, r):
    """The divergence over f''(b) b^2: sum over j >= 2 of r^j times the j-th derivative's ratio over j!."""
    power = 1.0 if code == NEGATIVE_ENTROPY else 0.0 if code == LOG_BARRIER else parameter
    term = 0.5 * r * r
    total = term
    for j in range(2, 40):
        term *= r * (power - j) / (j + 1.0)
        total += term
        if abs(term) <= 1e-18 * total:
            break
    return total


@rule_kernel
def value_of(code, parameter, m):
    """Sum of f over an array."""
    total = 0.0
    for e in range(m.size):
        total += value_at(code, parameter, m[e])
    return total


@rule_kernel
def conjugate_of(code, parameter, v):
    """Sum of the conjugate over an array."""
    total = 0.0
    for e in range(v.size):
        total += conjugate_at(code, parameter, v[e])
    return total


@rule_kernel
def divergence_of(code, parameter, a, b):
    """Sum of the divergence over two arrays."""
    total = 0.0
    for e in range(a.size):
        total += divergence_at(code, parameter, a[e], b[e])
    return total


@rule_kernel
def write_gradient(code, parameter, m, out):
    """Write f' of every entry."""
    for e in range(m.size):
        out[e] = gradient_at(code, parameter, m[e])


@rule_kernel
def write_curvature(code, parameter, m, out):
    """Write f'' of every entry."""
    for e in range(m.size):
        out[e] = curvature_at(code, parameter, m[e])


@rule_kernel
def write_conjugate_gradient(code, parameter, v, out):
    """Write the conjugate's derivative at every entry."""
    for e in range(v.size):
        out[e] = conjugate_gradient_at(code, parameter, v[e])
