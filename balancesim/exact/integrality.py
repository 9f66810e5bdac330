"""From a relaxation's shares to experts, only where the shares are whole."""

import numpy as np

from balancesim.types import Float64Array, IntArray


def chosen_experts(share: Float64Array, k: int, within: float) -> tuple[IntArray | None, str]:
    """Read the experts from shares (T, E) that are 0 or 1 up to ``within``; otherwise say why there are none.

    Nothing is rounded to the nearest assignment: shares between 0 and 1 are an optimum of the relaxation
    that is no vertex, and which experts to take would be a guess.
    """
    fractional = np.minimum(np.abs(share), np.abs(share - 1.0)).max()
    if not fractional <= within:
        return None, f"the solution is not integral: a share lies {fractional:.2g} from 0 and 1"
    taken = share > 0.5
    wrong = np.flatnonzero(taken.sum(axis=1) != k)
    if wrong.size:
        return None, f"token {wrong[0]} has {taken[wrong[0]].sum()} experts instead of k = {k}"
    return np.nonzero(taken)[1].reshape(-1, k), ""
