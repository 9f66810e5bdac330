"""P1-P3 on drawn potentials, shares, prices and rates: what holds for every example."""

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from balancesim.potentials import LogBarrier, NegativeEntropy, PNorm, SquaredNorm, Tsallis

pytestmark = pytest.mark.properties

EPS = float(np.finfo(np.float64).eps)
potentials = st.one_of(
    st.just(NegativeEntropy()),
    st.just(SquaredNorm()),
    st.just(LogBarrier()),
    st.floats(1.1, 5.0).map(PNorm),
    st.floats(0.1, 0.9).map(Tsallis),
    st.floats(1.1, 3.0).map(Tsallis),
)
counts = st.lists(st.integers(0, 12), min_size=2, max_size=8).filter(any)
positive = st.lists(st.floats(1e-3, 1.0), min_size=2, max_size=8)


def sizes(potential, m):
    """The sum of the sizes of phi's terms: what its rounding is a few eps of."""
    power = potential.parameter
    terms = [abs(potential.value([x])) for x in m]
    return sum(terms) + (sum(m) / abs(power - 1.0) if isinstance(potential, Tsallis) else 0.0)


@given(potential=potentials, counts=counts)
@example(potential=LogBarrier(), counts=[1, 0])
def test_p1_uniform_shares_are_the_only_minimiser(potential, counts):
    """Shares with a small denominator are either uniform or far enough from it for rounding not to matter."""
    m = np.array(counts) / sum(counts)
    uniform = np.full(m.size, 1.0 / m.size)
    excess = potential.value(m) - potential.value(uniform)
    if len(set(counts)) == 1:
        assert abs(excess) <= 8 * EPS * sizes(potential, uniform)
    else:
        assert excess > 0.0


@given(potential=potentials, counts=counts, unit=st.floats(0.05, 1.0))
@example(potential=LogBarrier(), counts=[0, 0, 1], unit=1.0)  # another expert is still without load
def test_p1_a_transfer_from_more_to_less_lowers_phi(potential, counts, unit):
    """Strict convexity and symmetry at once: any step towards equality helps, whichever the experts are."""
    m = np.array(counts) / sum(counts)
    rich, poor = int(m.argmax()), int(m.argmin())
    assume(m[rich] > m[poor])
    moved = m.copy()
    amount = 0.5 * unit * (m[rich] - m[poor])
    moved[rich] -= amount
    moved[poor] += amount
    if np.isfinite(potential.value(moved)):
        assert potential.value(moved) < potential.value(m)
    else:
        assert np.isinf(potential.value(m))
    assert potential.value(np.sort(m)) == pytest.approx(potential.value(m), rel=1e-14, abs=1e-14)


def test_p1_needs_symmetry_and_convexity():
    """The controls: with unequal weights, or the sign flipped, a transfer to equality raises the value."""
    entropy, norm = NegativeEntropy(), SquaredNorm()

    def weighted(m):
        return entropy.value(m[:1]) + 3.0 * entropy.value(m[1:])

    before, after = np.array([0.6, 0.4]), np.array([0.5, 0.5])
    assert entropy.value(after) < entropy.value(before)
    assert min(weighted(np.array([x, 1.0 - x])) for x in np.linspace(0.01, 0.99, 99)) < weighted(after)
    assert -norm.value(after) > -norm.value(before)


def price(potential, places):
    """Prices between a low one and the ceiling, from places in (0, 1)."""
    high = min(potential.ceiling, 4.0)
    return np.array([high - 1e-3 - 12.0 * place for place in places])


@given(
    potential=potentials,
    m=positive,
    places=st.lists(st.floats(0.0, 1.0), min_size=8, max_size=8),
)
def test_p2_young(potential, m, places):
    """phi(m) + phi*(v) >= <m, v> for every pair, with equality at m = grad phi*(v)."""
    m = np.array(m)
    v = price(potential, places[: m.size])
    best = potential.conjugate_gradient(v)
    assume(np.isfinite(best).all() and best.max() < 1e6)
    for point, tight in ((m, False), (best, True)):
        gap = potential.value(point) + potential.conjugate(v) - float(point @ v)
        # Near the ceiling a conjugate's own condition is 1 + |v|/(ceiling - v); a thousandth is left.
        size = sizes(potential, point) + sizes(potential, best) + float((np.abs(v) * (point + best)).sum())
        slack = 1e5 * EPS * (size + 1.0)
        assert gap >= -slack
        if tight:
            assert gap <= slack


@given(potential=potentials, m=positive)
def test_p2_gradients_are_inverse(potential, m):
    """At shares of a thousandth and more: the error of m is that of v, a few eps of its terms, over f''."""
    m = np.array(m)
    v = potential.gradient(m)
    back = potential.conjugate_gradient(v)
    assert (np.abs(back - m) <= rounding(potential, m, v)).all()
    gap = potential.value(m) + potential.conjugate(v) - float(m @ v)
    assert abs(gap) <= 1e3 * EPS * (sizes(potential, m) + float(np.abs(m * v).sum()) + 1.0)


def rounding(potential, m, v):
    """What a few roundings of v, and of the terms it is made of, do to m."""
    terms = 1.0 + np.abs(v)
    if isinstance(potential, Tsallis):
        terms = terms + 1.0 / abs(potential.parameter - 1.0)
    return 32 * EPS * (m + terms / potential.curvature(m))


@given(
    potential=potentials,
    start=positive,
    steps=st.lists(
        st.tuples(st.floats(0.01, 0.5), st.lists(st.integers(0, 6), min_size=8, max_size=8)),
        min_size=1,
        max_size=6,
    ),
)
def test_p3_mirror_descent_is_the_average(potential, start, steps):
    """Any positive start, rates and shares, experts without any among them."""
    m = np.array(start) / sum(start)
    v, allowed = potential.gradient(m), np.zeros(m.size)
    for eta, drawn in steps:
        x = np.array(drawn[: m.size], dtype=np.float64)
        assume(x.any())
        x /= x.sum()
        mirrored = potential.conjugate_gradient(v)
        v = potential.gradient(mirrored - eta * (mirrored - x))
        m = (1.0 - eta) * m + eta * x
        allowed = (1.0 - eta) * allowed + rounding(potential, m, v)
        assert (np.abs(potential.conjugate_gradient(v) - m) <= allowed + rounding(potential, m, v)).all()


@given(eta=st.floats(0.1, 0.5), share=st.floats(0.0, 0.4))
def test_p3_needs_the_conjugate_as_its_map(eta, share):
    """The control: a Euclidean step on the entropy's price is no average."""
    entropy = NegativeEntropy()
    m = np.array([0.5, 0.5])
    x = np.array([share, 1.0 - share])
    v = entropy.gradient(m) - eta * (m - x)
    apart = np.abs(entropy.conjugate_gradient(v) - ((1.0 - eta) * m + eta * x)).max()
    assert apart > 1e-3
