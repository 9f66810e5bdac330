"""Small types that several floors share."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32] | NDArray[np.float64]
Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Estimate(NamedTuple):
    """A number with the interval it is known to, and how it was found.

    Attributes
    ----------
    value, low, high : float
        The estimate and a 95 % interval; equal where the value is exact to rounding.
    method : str
        How the value was found, e.g. ``"closed form"`` or ``"boundary gaps"``.
    """

    value: float
    low: float
    high: float
    method: str
