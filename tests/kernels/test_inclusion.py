"""Inclusion probabilities and their derivatives against enumeration of who exceeds."""

import itertools

import numpy as np
import pytest

from balancesim.kernels.inclusion import add_inclusion


def naive(expert, k, above, density):
    """P(fewer than K others exceed), and for each other the density of being the K-th that does."""
    others = [e for e in range(above.size) if e != expert]
    chosen, tied = 0.0, np.zeros(above.size)
    for exceeds in itertools.product([False, True], repeat=len(others)):
        weight = np.prod([above[e] if x else 1 - above[e] for e, x in zip(others, exceeds, strict=True)])
        chosen += weight * (sum(exceeds) < k)
    for j in others:
        rest = [e for e in others if e != j]
        for exceeds in itertools.product([False, True], repeat=len(rest)):
            weight = np.prod([above[e] if x else 1 - above[e] for e, x in zip(rest, exceeds, strict=True)])
            tied[j] += weight * density[j] * (sum(exceeds) == k - 1)
    return chosen, tied


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("expert", [0, 2, 4])
def test_equals_enumeration(expert, k):
    rng = np.random.default_rng(6)
    weight, above, density = rng.random(3), rng.random((3, 5)), rng.random((3, 5))
    above[1, 1], above[2, 3], density[0, 0] = 0.0, 1.0, 0.0
    share, slope = np.zeros(5), np.zeros((5, 5))
    add_inclusion(expert, k, weight, above, density, share, slope)
    found = [naive(expert, k, above[q], density[q]) for q in range(3)]
    expected = sum(w * tied for w, (_, tied) in zip(weight, found, strict=True))
    assert share[expert] == pytest.approx(
        sum(w * c for w, (c, _) in zip(weight, found, strict=True)), rel=1e-14
    )
    assert share.sum() == share[expert]
    row = -expected
    row[expert] = expected.sum()
    np.testing.assert_allclose(slope[expert], row, rtol=1e-13)
    assert (np.delete(slope, expert, axis=0) == 0.0).all()
