"""How far from a mean its confidence interval reaches."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from balancesim.types import Float64Array


def half_width(sample: ArrayLike, confidence: float) -> Float64Array:
    """Half of Student's interval of each column's mean.

    Parameters
    ----------
    sample : (n, ...) array_like
        n >= 2 independent values of each column.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    (...) ndarray of float64
        In the sample's unit; one number, with no axis, for a sample of shape (n,).
    """
    values = np.asarray(sample, dtype=np.float64)
    n = len(values)
    quantile = float(stdtrit(n - 1, 0.5 + 0.5 * confidence))
    return np.asarray(quantile * values.std(axis=0, ddof=1) / np.sqrt(n))
