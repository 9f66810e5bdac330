"""Other ways to choose than the K best of all: groups of experts first, or every expert above a threshold.

Both compare with the unbiased K best by membership: experts that both choose never enter the score lost (S5).
"""

from typing import Final, NamedTuple

import numpy as np

from balancesim.kernels.jit import inner
from balancesim.kernels.lanes import as_wide
from balancesim.kernels.topk import room_for_ties


class Groups(NamedTuple):
    """Group-limited choice (`balancesim.GroupLimit`).

    How many groups there are (0: no limit), how many a token may use, and how many of a group's best scores
    are summed for the group's own.
    """

    n_groups: int
    n_chosen: int
    n_summed: int


NO_GROUPS: Final = Groups(0, 0, 0)


@inner
def limit_groups(tile, bias, n_experts, groups, n_lanes, group_score, limited):
    """Write the tile with all experts outside each token's best groups at minus infinity.

    A group's score is the sum of its ``n_summed`` largest biased scores; ties go to the lower group.
    """
    nothing = tile.dtype.type(-np.inf)
    size = n_experts // groups.n_groups
    for g in range(groups.n_groups):
        for t in range(n_lanes):
            first, second = nothing, nothing
            for e in range(g * size, (g + 1) * size):
                x = tile[e, t] + bias[e]
                second = max(second, min(first, x))
                first = max(first, x)
            group_score[g, t] = first if groups.n_summed == 1 else first + second
    for e in range(n_experts, tile.shape[0]):
        for t in range(n_lanes):
            limited[e, t] = nothing
    for g in range(groups.n_groups):
        for t in range(n_lanes):
            own, better = group_score[g, t], np.int64(0)
            for h in range(groups.n_groups):
                other = group_score[h, t]
                better += np.int64(other > own) + np.int64(other == own and h < g)
            for e in range(g * size, (g + 1) * size):
                limited[e, t] = tile[e, t] if better < groups.n_chosen else nothing


@inner
def lacks_choice(top, k, n_lanes):
    """Whether a token has fewer than K experts to choose from."""
    nothing = top.dtype.type(-np.inf)
    lacking = as_wide(0, top)
    for t in range(n_lanes):
        lacking = as_wide(lacking + (top[k - 1, t] == nothing), top)
    return lacking > 0


@inner
def count_above(tile, bias, n_experts, n_lanes, loads):
    """Add to ``loads`` (E,) the tokens whose biased score is positive."""
    for e in range(n_experts):
        b = bias[e]
        reached = as_wide(0, tile)
        for t in range(n_lanes):
            reached = as_wide(reached + (tile[e, t] + b > 0.0), tile)
        loads[e] += reached


@inner
def count_lanes(tile, bias, k, n_experts, top, first, last, by_threshold, loads):
    """Add the loads of lanes ``first .. last - 1`` alone."""
    for t in range(first, last):
        border = tile.dtype.type(0.0) if by_threshold else top[k - 1, t]
        room = 0 if by_threshold else room_for_ties(tile, bias, k, n_experts, border, t)
        for e in range(n_experts):
            x = tile[e, t] + bias[e]
            if x > border:
                loads[e] += 1
            elif x == border and room > 0:
                room -= 1
                loads[e] += 1


@inner
def add_lost(tile, unbiased, k, n_experts, base_top, limited, bias, top, n_lanes, lost):
    """Add each token's unbiased score given up by choosing the K best of ``limited`` to ``lost`` (LANES,)."""
    for t in range(n_lanes):
        base_border, border = base_top[k - 1, t], top[k - 1, t]
        base_room = room_for_ties(tile, unbiased, k, n_experts, base_border, t)
        room = room_for_ties(limited, bias, k, n_experts, border, t)
        total = 0.0
        for e in range(n_experts):
            x, biased = tile[e, t], limited[e, t] + bias[e]
            is_best, is_chosen = x > base_border, biased > border
            if x == base_border and base_room > 0:
                base_room -= 1
                is_best = True
            if biased == border and room > 0:
                room -= 1
                is_chosen = True
            if is_best and not is_chosen:
                total += np.float64(x)
            elif is_chosen and not is_best:
                total -= np.float64(x)
        lost[t] += total


@inner
def add_chosen_above(tile, unbiased, k, n_experts, base_top, bias, n_lanes, lost):
    """As `add_lost`, where the experts with a positive biased score are chosen; negative for more.

    Returns how many of the tokens' K places stay empty.
    """
    n_empty = np.int64(0)
    for t in range(n_lanes):
        missing = np.int64(k)
        border = base_top[k - 1, t]
        room = room_for_ties(tile, unbiased, k, n_experts, border, t)
        total = 0.0
        for e in range(n_experts):
            x = tile[e, t]
            is_best, is_chosen = x > border, x + bias[e] > 0.0
            missing -= np.int64(is_chosen)
            if x == border and room > 0:
                room -= 1
                is_best = True
            if is_best and not is_chosen:
                total += np.float64(x)
            elif is_chosen and not is_best:
                total -= np.float64(x)
        lost[t] += total
        n_empty += max(missing, np.int64(0))
    return n_empty
