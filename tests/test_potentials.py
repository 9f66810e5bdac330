"""Potentials against their definitions: conjugacy, domains, mirror descent, divergences (P1-P3)."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancesim as bs
from balancesim.errors import InputError
from balancesim.kernels import potentials as kernels
from balancesim.kernels.jit import strict
from balancesim.potentials import LogBarrier, NegativeEntropy, PNorm, SquaredNorm, Tsallis, named

POTENTIALS = [
    NegativeEntropy(),
    SquaredNorm(),
    PNorm(1.5),
    PNorm(3.0),
    Tsallis(0.5),
    Tsallis(1.5),
    Tsallis(2.0),
    LogBarrier(),
]
each = pytest.mark.parametrize("potential", POTENTIALS, ids=repr)
shares = st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=8)
UNBOUNDED = (NegativeEntropy(), Tsallis(0.5), LogBarrier())


def definition(potential, m):
    """The textbook formula of one term, at the precision of mpmath."""
    m = mpmath.mpf(m)
    match potential:
        case NegativeEntropy():
            return m * mpmath.log(m)
        case SquaredNorm():
            return m**2 / 2
        case PNorm(p):
            return m ** mpmath.mpf(p) / p
        case Tsallis(q):
            return (m ** mpmath.mpf(q) - m) / (mpmath.mpf(q) - 1)
    return -mpmath.log(m)


@each
def test_value_gradient_and_curvature_are_the_definitions(potential):
    m = np.array([1e-4, 0.03, 0.25, 0.9])
    with mpmath.workdps(40):
        terms = [definition(potential, x) for x in m]
        slopes = [float(mpmath.diff(lambda x: definition(potential, x), x)) for x in m]
        bends = [float(mpmath.diff(lambda x: definition(potential, x), x, 2)) for x in m]
    assert potential.value(m) == pytest.approx(float(mpmath.fsum(terms)), rel=1e-14)
    # A power or a logarithm and one subtraction: a few units in the last place of the larger term.
    np.testing.assert_allclose(potential.gradient(m), slopes, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(potential.curvature(m), bends, rtol=1e-13)


@each
@given(m=shares)
def test_conjugate_pairs(potential, m):
    """P2 at a pair m, v = grad phi(m): Young's inequality is tight, and the gradients invert each other."""
    m = np.array(m)
    v = potential.gradient(m)
    gap = potential.value(m) + potential.conjugate(v) - float(m @ v)
    assert abs(gap) <= 1e-10 * max(1.0, float(np.abs(m * v).sum()))
    np.testing.assert_allclose(potential.conjugate_gradient(v), m, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(potential.gradient(potential.conjugate_gradient(v)), v, rtol=1e-10, atol=1e-10)


@each
@given(m=shares, at=st.floats(1e-6, 1.0))
def test_young_holds_off_pairs(potential, m, at):
    """phi(a) + phi*(v) - <a, v> is the divergence of a from the m of v; never negative."""
    m = np.array(m)
    other = np.full_like(m, at)
    v = potential.gradient(m)
    gap = potential.value(other) + potential.conjugate(v) - float(other @ v)
    size = abs(potential.value(other)) + abs(potential.conjugate(v)) + float(np.abs(other * v).sum())
    assert gap == pytest.approx(potential.divergence(other, m), abs=1e-14 * size)


@each
def test_conjugate_is_the_maximum_on_a_grid(potential):
    """P2 as it is written, the maximum found by search and not by the formula, at random v."""
    rng = np.random.default_rng(5)
    grid = np.concatenate([[0.0], np.geomspace(1e-9, 1e4, 4001)])
    values = np.array([potential.value([x]) for x in grid])
    for v in rng.uniform(-4.0, 0.9, 10):
        if v >= potential.ceiling:
            continue
        best = float((v * grid - values).max())
        slack = 1e-4 * max(1.0, abs(best))  # spacing h = 0.7 %: the maximum's loss is f'' (h m)^2 / 8
        assert best <= potential.conjugate([v]) + 1e-12
        assert best >= potential.conjugate([v]) - slack


@each
def test_uniform_is_the_minimiser(potential):
    """P1 on random points of the simplex."""
    rng = np.random.default_rng(3)
    uniform = potential.value(np.full(6, 1.0 / 6.0))
    for m in rng.dirichlet(np.full(6, 0.7), 200):
        assert potential.value(m) > uniform
    # The control: off the simplex there are smaller values, so that the restriction is what does it.
    assert min(potential.value(np.full(6, x)) for x in (1e-3, 0.3, 10.0)) < uniform


@each
@given(a=shares, b=shares)
def test_divergence_is_never_negative_and_equals_its_definition(potential, a, b):
    n = min(len(a), len(b))
    first, second = np.array(a[:n]), np.array(b[:n])
    found = potential.divergence(first, second)
    with mpmath.workdps(50):
        exact = mpmath.fsum(
            definition(potential, x)
            - definition(potential, y)
            - mpmath.diff(lambda z: definition(potential, z), y) * (mpmath.mpf(x) - mpmath.mpf(y))
            for x, y in zip(first, second, strict=True)
        )
    assert found >= 0.0
    assert found == pytest.approx(float(exact), rel=1e-11, abs=1e-300)


@each
@pytest.mark.parametrize("relative", [1e-12, 1e-7, 1e-3, 0.12])
def test_divergence_of_close_points_keeps_its_digits(potential, relative):
    b = 0.3
    a = b * (1.0 + relative)
    with mpmath.workdps(60):
        step = mpmath.mpf(a) - mpmath.mpf(b)
        slope = mpmath.diff(lambda z: definition(potential, z), b)
        exact = float(definition(potential, a) - definition(potential, b) - slope * step)
    # a - b is exact; the rest is one series of positive or fast-falling terms.
    assert potential.divergence([a], [b]) == pytest.approx(exact, rel=1e-13)


@each
def test_domain_at_zero_load(potential):
    at_zero = potential.gradient([0.0])[0]
    expected = {Tsallis(1.5): -2.0, Tsallis(2.0): -1.0}.get(potential, 0.0)
    assert at_zero == (-math.inf if potential in UNBOUNDED else expected)
    assert potential.value([0.0]) == (math.inf if potential == LogBarrier() else 0.0)
    assert potential.conjugate_gradient([at_zero])[0] == 0.0
    assert potential.conjugate([at_zero]) == (-math.inf if potential == LogBarrier() else 0.0)
    if potential not in UNBOUNDED:  # below the gradient at zero the conjugate sees nothing
        assert potential.conjugate_gradient([at_zero - 1.0])[0] == 0.0
        assert potential.conjugate([at_zero - 1.0]) == 0.0
    assert potential.divergence([0.0, 0.2], [0.0, 0.2]) == 0.0
    assert math.isinf(potential.divergence([0.1], [0.0])) == (potential in UNBOUNDED)
    assert math.isinf(potential.divergence([0.0], [0.1])) == (potential == LogBarrier())


@strict
def mirror_descent(code, parameter, x, rate):
    """P3: v by mirror descent and m by averaging, side by side; the largest |grad phi*(v) - m| / m.

    ``rate`` 0 is harmonic. The mirror step is grad phi*(v+) = grad phi*(v) - rate (grad phi*(v) - x).
    """
    n_experts = x.shape[1]
    m, v = np.full(n_experts, 1.0 / n_experts), np.empty(n_experts)
    for e in range(n_experts):
        v[e] = kernels.gradient_at(code, parameter, m[e])
    worst = 0.0
    for n in range(x.shape[0]):
        eta = rate if rate > 0.0 else 1.0 / (n + 2.0)
        for e in range(n_experts):
            mirrored = kernels.conjugate_gradient_at(code, parameter, v[e])
            v[e] = kernels.gradient_at(code, parameter, mirrored - eta * (mirrored - x[n, e]))
            m[e] = (1.0 - eta) * m[e] + eta * x[n, e]
            worst = max(worst, abs(kernels.conjugate_gradient_at(code, parameter, v[e]) - m[e]) / m[e])
    return worst


@each
@pytest.mark.parametrize("rate", [0.0, 0.01])
def test_mirror_descent_is_the_average(potential, rate):
    """P3 over 10^5 steps, for an expert with no load most of the time too.

    The error is that of m, relative, since v has no size of its own where grad phi is unbounded: it is the
    relative error of v times f'(m)/(m f''(m)), one over the exponent for powers and 1 + ln m for the entropy.
    """
    n_steps = 100_000
    rng = np.random.default_rng(7)
    x = rng.multinomial(16, np.array([0.7, 0.25, 0.045, 0.005]), n_steps) / 16.0
    assert mirror_descent(potential.code, potential.parameter, x, rate) < 1e-12


def test_mirror_descent_with_another_map_is_another_rule():
    """The control: the Euclidean step on v for the entropy drifts off the average at once."""
    rng = np.random.default_rng(7)
    entropy = NegativeEntropy()
    m, v = np.full(4, 0.25), entropy.gradient(np.full(4, 0.25))
    for x in rng.multinomial(16, np.array([0.6, 0.25, 0.1, 0.05]), 100) / 16.0:
        v = v - 0.01 * (entropy.conjugate_gradient(v) - x)
        m = 0.99 * m + 0.01 * x
    assert np.abs(entropy.conjugate_gradient(v) - m).max() > 0.01


def test_p_norm_and_tsallis_meet_their_relatives():
    m = np.array([0.1, 0.25, 0.65])
    assert PNorm(2.0).value(m) == pytest.approx(SquaredNorm().value(m), rel=1e-15)
    np.testing.assert_allclose(PNorm(2.0).gradient(m), SquaredNorm().gradient(m), rtol=1e-15)
    near = Tsallis(1.0 + 1e-6)
    assert near.value(m) == pytest.approx(NegativeEntropy().value(m), abs=1e-5)
    np.testing.assert_allclose(near.gradient(m), NegativeEntropy().gradient(m), atol=1e-5)


def test_names():
    for potential in POTENTIALS:
        power = potential.parameter if isinstance(potential, PNorm | Tsallis) else None
        assert named(potential.name, power) == potential
    assert bs.potentials.NegativeEntropy is NegativeEntropy


@pytest.mark.parametrize(
    ("potential", "method", "point", "message"),
    [
        (NegativeEntropy(), "value", [0.5, -0.1], "negative_entropy: `m` .* at least 0, got -0.1 at"),
        (SquaredNorm(), "gradient", [0.1, math.nan], "squared_norm: `m` .* finite .* got nan at expert 1"),
        (PNorm(3), "curvature", [math.inf], "p_norm: `m` must be finite and at least 0, got inf"),
        (LogBarrier(), "conjugate", [-1.0, 0.0], "log_barrier: `v` must be below 0, .* got 0.0 at expert 1"),
        (LogBarrier(), "conjugate_gradient", [2.0], "log_barrier: `v` must be below 0"),
        (Tsallis(0.5), "conjugate", [2.0], "tsallis: `v` must be below 2, .* got 2.0"),
        (NegativeEntropy(), "conjugate", [math.nan], "negative_entropy: `v` must be below inf"),
        (NegativeEntropy(), "value", [[0.1]], r"`m` must have shape \(E,\), got \(1, 1\)"),
        (NegativeEntropy(), "value", ["a"], "must be numbers, one per expert"),
    ],
)  # fmt: skip
def test_off_the_domain(potential, method, point, message):
    with pytest.raises(InputError, match=message):
        getattr(potential, method)(point)


def test_bad_input():
    with pytest.raises(InputError, match="same length, got 1 and 2"):
        SquaredNorm().divergence([1.0], [1.0, 2.0])
    for p in (1.0, 0.5, math.inf, True, "2"):
        with pytest.raises(InputError, match="`p` of a p-norm must be a finite number above 1"):
            PNorm(p)
    for q in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="`q` of Tsallis' potential must be a finite number above 0"):
            Tsallis(q)
    with pytest.raises(InputError, match="at q = 1 it is the negative entropy"):
        Tsallis(1.0)
    with pytest.raises(InputError, match="did you mean 'log_barrier'"):
        named("log_bariere")
    with pytest.raises(InputError, match='`power` must be given for the potential "tsallis"'):
        named("tsallis")
    with pytest.raises(InputError, match='`power` must be left out for the potential "squared_norm"'):
        named("squared_norm", 2.0)
