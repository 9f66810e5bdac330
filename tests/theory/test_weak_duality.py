"""No price gives a dual value below the value of any balanced assignment, whoever made it."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import balancesim as bs
from tests import naive
from tests.strategies import batches


@pytest.mark.properties
@given(batch=batches(max_tokens=12, max_experts=7), data=st.data())
def test_weak_duality(batch, data):
    scores, bias, k = batch
    n_tokens, n_experts = scores.shape
    # Experts dealt round: every load is floor(L) or ceil(L), and each token has K different ones.
    order = np.array(data.draw(st.permutations(range(n_experts))))
    tokens = np.array(data.draw(st.permutations(range(n_tokens))))
    chosen = order[(tokens[:, None] * k + np.arange(k)) % n_experts]
    value = float(np.take_along_axis(scores, chosen, axis=1).sum(dtype=np.float64))
    integral = bs.dual_value(scores, bias, k=k, capacity="integral")
    assert value <= integral
    relaxed = naive.dual(scores, bias, k)
    assert relaxed <= Fraction(integral)
    if n_tokens * k % n_experts == 0:
        assert relaxed == Fraction(integral) == Fraction(bs.dual_value(scores, bias, k=k))


@pytest.mark.properties
@given(batch=batches(max_tokens=12, max_experts=7), data=st.data())
def test_constants_and_convexity(batch, data):
    """D does not change with a constant, and its middle is at most the mean of its ends."""
    scores, bias, k = batch
    quarters = st.integers(-8, 8).map(lambda q: q / 4)
    other = data.draw(hnp.arrays(np.float64, bias.size, elements=quarters))
    assert naive.dual(scores, bias + 0.25, k) == naive.dual(scores, bias, k)
    ends = naive.dual(scores, bias, k) + naive.dual(scores, other, k)
    assert 2 * naive.dual(scores, (bias + other) / 2, k) <= ends
