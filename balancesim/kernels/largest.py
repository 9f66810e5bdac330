"""The largest so many of a list of scores, ties to the lower index."""

import numpy as np

from balancesim.kernels.jit import inner


@inner
def mark_largest(values, n, count, marks):
    """Set ``marks[:n]`` (bool) where ``values[:n]`` is one of the ``count`` largest; never where masked."""
    nothing = values.dtype.type(-np.inf)
    if count >= n:
        for i in range(n):
            marks[i] = values[i] > nothing
        return
    border = np.partition(values[:n], n - count)[n - count] if count > 0 else -nothing
    room = count
    for i in range(n):
        marks[i] = values[i] > border
        room -= marks[i]
    if border > nothing:
        for i in range(n):
            if room > 0 and values[i] == border:
                marks[i] = True
                room -= 1
