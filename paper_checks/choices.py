"""Choices by their definition, apart from the routing that is put to the test."""

import numpy as np

from balancesim.types import Float64Array


def marks(scores: Float64Array, k: int) -> Float64Array:
    """1 for each token's K highest scores, else 0; which of equal scores at the K-th place is left open."""
    found = np.zeros(scores.shape)
    np.put_along_axis(found, np.argpartition(scores, -k, axis=1)[:, -k:], 1.0, axis=1)
    return found
