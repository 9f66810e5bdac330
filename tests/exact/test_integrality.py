"""Shares become experts only where they are whole and every token has K of them."""

import numpy as np
import pytest

from balancesim.exact.integrality import chosen_experts

WHOLE = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])


def test_whole_shares():
    experts, detail = chosen_experts(WHOLE + 1e-7 * np.array([1, -1, 0]), 2, 1e-6)
    assert experts.tolist() == [[0, 2], [1, 2]]
    assert detail == ""


@pytest.mark.parametrize(
    ("token", "share", "message"),
    [
        (1, [0.5, 0.5, 1.0], "a share lies 0.5 from 0 and 1"),
        (0, [1.0 - 2e-6, 2e-6, 1.0], "a share lies 2e-06 from 0 and 1"),
        (0, [2.0, 0.0, 0.0], "a share lies 1 from 0 and 1"),
        (0, [np.nan, 0.0, 1.0], "a share lies nan from 0 and 1"),
        (1, [0.0, 0.0, 1.0], "token 1 has 1 experts instead of k = 2"),
    ],
)
def test_no_guesses(token, share, message):
    shares = WHOLE.copy()
    shares[token] = share
    experts, detail = chosen_experts(shares, 2, 1e-6)
    assert experts is None
    assert message in detail
